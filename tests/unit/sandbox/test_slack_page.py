"""What Slack got, as a page that a person can read; nothing on it acts."""

import re
from pathlib import Path
from typing import Any

from pytest_aiohttp.plugin import AiohttpClient

from deploy.sandbox import providers
from deploy.sandbox.providers import PROVIDERS
from deploy.sandbox.recorder import Recorder

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
