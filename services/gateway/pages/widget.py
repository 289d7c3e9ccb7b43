"""The script that puts forms and a chat on web pages: built files, served from memory."""

import gzip
import hashlib
import tomllib
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from libs.common.http.application import Problem, json_response
from services.gateway.door.access import Access, Requirements

FOLDER = Path(__file__).parents[1] / "static" / "widget"
BRIEFLY = "public, max-age=300"
FOR_A_YEAR = "public, max-age=31536000, immutable"
# Any page may load it, also with `crossorigin` (for `integrity`) and under cross-origin isolation.
SHARED = {
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    hdrs.VARY: hdrs.ACCEPT_ENCODING,
}
FREE = Requirements(policy="none")
"""Counting would cost more than answering, and an office with one address would lose its form."""


@dataclass(frozen=True, slots=True)
class Build:
    name: str
    content: bytes
    compressed: bytes

    @property
    def integrity(self) -> str:
        """As in the attribute `integrity` of a script tag (Subresource Integrity)."""
        return "sha384-" + b64encode(hashlib.sha384(self.content).digest()).decode()

    def answer(self, request: web.Request, cache_control: str) -> web.Response:
        headers = {**SHARED, hdrs.CACHE_CONTROL: cache_control, hdrs.ETAG: f'W/"{self.name}"'}
        if any(tag.value in {self.name, "*"} for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        packed = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "")
        if packed:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(
            body=self.compressed if packed else self.content,
            headers=headers,
            content_type="text/javascript",
            charset="utf-8",
        )


def builds() -> list[Build]:
    """Return every build that is served, newest last."""
    listed = tomllib.loads((FOLDER / "builds.toml").read_text(encoding="utf-8"))["builds"]
    contents = [(build["file"], (FOLDER / build["file"]).read_bytes()) for build in listed]
    return [Build(name, content, gzip.compress(content, mtime=0)) for name, content in contents]


def add_routes(app: web.Application, access: Access, public_base_url: str) -> None:
    served = builds()
    by_name = {build.name: build for build in served}
    newest = served[-1]
    described = {
        "url": f"{public_base_url}/widget/{newest.name}",
        "integrity": newest.integrity,
        "bytes": len(newest.content),
    }

    async def script(request: web.Request) -> web.Response:
        return newest.answer(request, BRIEFLY)

    async def build(request: web.Request) -> web.Response:
        found = by_name.get(request.match_info["build"])
        if found is None:
            raise Problem(404, detail="there is no such build; /widget.json names the newest")
        return found.answer(request, FOR_A_YEAR)

    async def description(_: web.Request) -> web.Response:
        response = json_response(described)
        response.headers.update({**SHARED, hdrs.CACHE_CONTROL: BRIEFLY})
        return response

    routes: dict[str, Handler] = {
        "/widget.js": script,
        "/widget/{build}": build,
        "/widget.json": description,
    }
    for path, handler in routes.items():
        for method in (hdrs.METH_GET, hdrs.METH_HEAD):
            access.guard(app.router.add_route(method, path, handler), FREE)
