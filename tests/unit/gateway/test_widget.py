"""The committed builds are what their names say, and are served as pages need them."""

import gzip
import hashlib
import json
import re
from base64 import b64encode
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient

from libs.common.http.application import create_app
from services.gateway.door.cors import Cors
from services.gateway.pages import widget

SITE = "https://www.ostoja-wnetrza.example"
BUDGET = 12 * 1024
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\bcookie\b"
)

Client = TestClient[web.Request, web.Application]


class _Open:
    def guard(self, *_: Any) -> None:
        """Ask for nothing."""


@pytest.fixture
async def gateway(aiohttp_client: AiohttpClient) -> Client:
    app = create_app(internal_key=None)
    widget.add_routes(app, cast("Any", _Open()), "https://leads.example.pl")
    app.on_response_prepare.append(Cors(SITE, https=True).finish)
    return await aiohttp_client(app, auto_decompress=False)


def test_each_build_is_named_by_its_hash_and_within_the_budget() -> None:
    for build in widget.builds():
        assert build.name == hashlib.sha256(build.content).hexdigest()[:16] + ".js"
        assert len(gzip.compress(build.content, 9)) <= BUDGET
        assert not FORBIDDEN.search(build.content.decode())
    on_disk = {path.name for path in widget.FOLDER.iterdir()} - {"builds.toml"}
    assert on_disk == {build.name for build in widget.builds()}


async def test_a_build_is_kept_for_a_year_by_any_page_and_may_be_checked(gateway: Client) -> None:
    newest = widget.builds()[-1]
    for origin in (SITE, "https://other.example"):
        answer = await gateway.get(f"/widget/{newest.name}", headers={"Origin": origin})
        assert answer.status == 200
        assert await answer.read() == newest.compressed
        assert gzip.decompress(newest.compressed) == newest.content
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert answer.headers.getall("Vary") == ["Accept-Encoding"]  # one copy for all pages
    plain = await gateway.get(f"/widget/{newest.name}", headers={"Accept-Encoding": "identity"})
    assert await plain.read() == newest.content


async def test_the_newest_script_is_asked_for_again_after_five_minutes(gateway: Client) -> None:
    answer = await gateway.get("/widget.js")
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    again = await gateway.get("/widget.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304
    assert await again.read() == b""
    changed = await gateway.get("/widget.js", headers={"If-None-Match": 'W/"older.js"'})
    assert changed.status == 200


async def test_the_description_has_what_a_script_tag_needs(gateway: Client) -> None:
    newest = widget.builds()[-1]
    described = json.loads(await (await gateway.get("/widget.json")).read())
    digest = hashlib.sha384(newest.content).digest()
    assert described == {
        "url": f"https://leads.example.pl/widget/{newest.name}",
        "integrity": f"sha384-{b64encode(digest).decode()}",
        "bytes": len(newest.content),
    }


async def test_nothing_but_the_builds_is_served_from_their_folder(gateway: Client) -> None:
    for name in ("builds.toml", "0000000000000000.js", "..%2Fwidget.py", ""):
        assert (await gateway.get(f"/widget/{name}")).status == 404
