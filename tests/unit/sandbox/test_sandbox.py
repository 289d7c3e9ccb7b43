import re
from pathlib import Path
from typing import Any

from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from deploy.sandbox import providers, site
from deploy.sandbox.mail import Mail
from deploy.sandbox.providers import PROVIDERS
from deploy.sandbox.recorder import ACCEPTED_LIMIT, REFUSED_LIMIT, Kept, Recorder


def mail(size: int = 1) -> Mail:
    return Mail("a@b.pl", ["c@d.pl"], b"x" * size)


def test_the_oldest_are_pushed_out_by_number_or_bytes_and_stay_counted() -> None:
    for limit, size in (((3, 1000), 1), ((100, 20), 6)):
        kept = Kept[Mail](limit)
        for number in range(5):
            kept.add(number, mail(size))
        assert (len(kept), kept.count) == (3, 5)
        assert kept.get(1) is None
        assert kept.get(2) is not None


def test_a_flood_of_refused_requests_evicts_no_accepted_one() -> None:
    recorder = Recorder(["slack"])
    recorder.record("slack", b"first", accepted=True, answered=200)

    for _ in range(REFUSED_LIMIT[0] + 1):
        recorder.record("slack", b"x", accepted=False, answered=500)

    count, received = recorder.received("slack", refused_too=True)
    assert count == REFUSED_LIMIT[0] + 2
    assert len(received) == REFUSED_LIMIT[0] + 1
    assert received[0].content == b"first"
    assert ACCEPTED_LIMIT[0] >= 10_000


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


KEY = {"Authorization": "Bearer x"}


async def test_the_page_shows_messages_as_slack_does_and_after_a_restart(
    aiohttp_client: AiohttpClient, tmp_path: Path
) -> None:
    async def started() -> Any:
        recorder = Recorder([*PROVIDERS, "email"])
        return await aiohttp_client(providers.create_app(recorder, None, tmp_path / "slack.sqlite"))

    client = await started()
    said = "*Anna* <script>alert('<')</script> <javascript:x|tu> <https://a.example/?a=1&amp;b=2|karta>\ud800"
    for text in (said, "*Call: <tel:+48600700800|+48600700800>*", 7, ["x"]):
        assert (await client.post("/slack", json={"text": text})).status == 200
    refused = await client.post("/slack", json={})
    assert refused.status == 400
    button = {"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "Biorę"}}
    blocks = [{"type": "actions", "elements": [button]}]
    posted = await client.post(
        "/slack/api/chat.postMessage", json={"channel": "C7", "blocks": blocks}, headers=KEY
    )
    ts = (await posted.json())["ts"]
    await client.close()

    client = await started()
    changed = {"channel": "C7", "ts": ts, "text": "Ma to _Ewa_"}
    page = await (await client.get("/slack")).text()
    assert (page.count("<article"), page.count("Biorę"), page.count("in C7")) == (5, 1, 1)
    assert "<strong>Anna</strong>" in page
    assert re.search(r"<strong>Call: <a [^>]*>[+]48600700800</a></strong>", page)
    assert '<a href="https://a.example/?a=1&amp;b=2" rel="noreferrer">karta</a>' in page
    assert not re.search(r"<script|javascript:|<button|<form", page)
    await client.post("/slack/api/chat.update", json=changed, headers=KEY)
    answer = await client.get("/slack")
    page = await answer.text()
    assert (page.count("<article"), page.count("Biorę"), page.count("<em>Ewa</em>")) == (5, 0, 1)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
