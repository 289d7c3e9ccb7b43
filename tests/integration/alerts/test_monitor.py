"""A monitor elsewhere is asked while the ledger check is ok, and stays unasked when it is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr, ValidationError

from services.alerts.channels import monitor
from services.alerts.settings import AlertsSettings
from tests.integration.alerts.conftest import StartAlerts
from tests.support.eventually import eventually
from tests.support.targets import listening

SECRET = "ping/3f1c9a52-secret"


@asynccontextmanager
async def monitoring(
    status: int = 200, body: bytes = b""
) -> AsyncIterator[tuple[str, list[bytes]]]:
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 %d x\r\nConnection: close\r\n\r\n" % status + body)
        await writer.drain()

    async with listening(handle) as port:
        yield f"http://127.0.0.1:{port}/{SECRET}", asked


async def test_a_monitor_is_asked_while_the_ledger_check_is_ok(alerts: StartAlerts) -> None:
    async with monitoring() as (url, asked):
        subject = await alerts(HEARTBEAT_URL=url, ALERTS_RECONCILE_SECONDS="0.3")

        async def twice_more() -> bool:
            return len(asked) >= before + 2

        before = 0
        await eventually(twice_more, 20)
        assert asked[0].startswith(f"GET /{SECRET} HTTP/1.1\r\n".encode())
        await subject.execute("INSERT INTO ledger_total (target, accepted) VALUES ('x', 1)")

        async def silent() -> bool:
            seen = len(asked)
            await asyncio.sleep(2)
            return len(asked) == seen

        await eventually(silent, 30)
        await subject.execute("DELETE FROM ledger_total WHERE target = 'x'")
        before = len(asked)
        await eventually(twice_more, 30)
        assert SECRET not in subject.log.read_text()


@pytest.mark.parametrize(
    ("status", "fault"), [(500, "500"), (404, "404"), (302, "302"), (200, None)]
)
async def test_what_a_monitor_answers_is_logged_without_its_url(
    capsys: pytest.CaptureFixture[str], status: int, fault: str | None
) -> None:
    async with monitoring(status, b"x" * 1_000_000) as (url, asked):
        await monitor.ping(SecretStr(url))
    assert len(asked) == 1
    said = capsys.readouterr().out
    await monitor.ping(SecretStr(url))  # it is gone by now, which is no error
    gone = capsys.readouterr().out
    assert "monitor.refused" in gone
    assert SECRET not in said + gone
    assert (f"fault={fault}" in said.replace("'", "")) is (fault is not None)


@pytest.mark.parametrize("url", ["hc-ping.com/x", "ftp://x", "javascript:x"])
def test_a_heartbeat_url_that_is_none_is_refused_unshown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HEARTBEAT_URL", url)
    with pytest.raises(ValidationError) as caught:
        AlertsSettings()
    faults = {str(each["loc"][0]): each["msg"] for each in caught.value.errors()}
    assert faults["heartbeat_url"] == "Value error, not an http(s) URL"
