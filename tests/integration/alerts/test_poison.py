"""An alert that kills its sender fails in bounded time and delays no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import web

from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.integration.alerts.test_dead_letter_moved_back import DEAD, dead_letters
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports

pytestmark = pytest.mark.promise("P1", "P6")

POISON = "poison"


class Sink:
    """A target that responds as Slack does, but kills the process that sends it poison."""

    def __init__(self) -> None:
        self.victim: Alerts | None = None
        self.kills = 0
        self.texts: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        text = str((await request.json())["text"])
        if POISON in text and self.victim is not None:
            self.kills += 1
            self.victim.kill9()
        else:
            self.texts.append(text)
        return web.Response(text="ok")


@asynccontextmanager
async def listening(sink: Sink, port: int) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/", sink.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield f"http://{HOST}:{port}/"
    finally:
        await runner.cleanup()


async def test_poison_fails_with_an_escalation_and_delays_no_other(
    alerts: StartAlerts, ports: Ports
) -> None:
    sink = Sink()
    async with listening(sink, ports.take()) as url:
        subject = await alerts(
            SLACK_WEBHOOK_URL=url, slack={"retry_delays": [1.5] * 3}, ALERTS_RECONCILE_SECONDS="1"
        )
        sink.victim = subject
        before = [await subject.accept(payload={"text": f"before {n}"}) for n in range(5)]
        poison = await subject.accept(payload={"text": POISON})
        after = [await subject.accept(payload={"text": f"after {n}"}) for n in range(5)]

        async def failed() -> bool:
            if subject.process.poll() is not None:  # as a supervisor would
                with suppress(aiohttp.ClientError, AssertionError):
                    await subject.start()
            row = await subject.row(poison)
            return row is not None and row.state == "failed"

        await eventually(failed, 90)
        row = await subject.row(poison)
        assert (row.reason, row.attempt) == ("exhausted", 4)
        assert sink.kills == 4
        for alert_id in (*before, *after):
            await subject.until(alert_id, "delivered")
        assert await subject.scalar("SELECT array_agg(alert_id) FROM escalation") == [row.alert_id]
        ((reason, letter),) = await eventually(lambda: dead_letters(subject, DEAD))
        assert (letter["alert_id"], reason) == (poison, "exhausted")
        assert (await subject.check())["ok"]
