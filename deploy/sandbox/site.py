"""The web site of the example company: examples/site.

Its pages name a gateway that does not exist; they are served with the address of ours, and with the
policy that docs/widget.md advises.
"""

from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parents[2] / "examples" / "site"
NAMED = "https://leads.ostoja-wnetrza.example"
KINDS = {".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml"}


def add_routes(app: web.Application, gateway: str) -> None:
    policy = (
        f"default-src 'none'; script-src {gateway}; connect-src {gateway}; "
        "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
    )

    def add(path: str, file: Path) -> None:
        text = file.read_text(encoding="utf-8").replace(NAMED, gateway)

        async def serve(_: web.Request) -> web.Response:
            headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
            return web.Response(text=text, content_type=KINDS[file.suffix], headers=headers)

        app.router.add_get(path, serve)

    for file in sorted(FOLDER.rglob("*.*")):
        name = file.relative_to(FOLDER).as_posix().removesuffix(".html")
        add("/" if name == "index" else f"/{name}", file)
