"""The example web site names our gateway, and nothing of it comes from anywhere else."""

import re

from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from deploy.sandbox import site

GATEWAY = "http://127.0.0.1:8080"


async def test_every_page_names_the_gateway_that_runs_and_loads_nothing_from_elsewhere(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application()
    site.add_routes(app, GATEWAY)
    client = await aiohttp_client(app)
    for path in ("/", "/dziekujemy", "/prywatnosc"):
        answer = await client.get(path)
        page = await answer.text()
        assert answer.status == 200
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*?(?:src|href)="([^"]+)"', page)
        for url in loaded:
            if url.startswith("http"):
                assert url == f"{GATEWAY}/widget.js"
            else:
                assert (await client.get(f"/{url}")).status == 200, url
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert site.NAMED not in page
    assert f'src="{GATEWAY}/widget.js"' in await (await client.get("/")).text()
