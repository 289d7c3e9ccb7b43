"""What the console counts for its charts, and what open pages hear."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.integration.console.conftest import Console, serving
from tests.integration.console.test_people import Browser, joined
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.staff import COOKIE

CLOSED = {"state": "closed", "failures": 0, "open_since": None, "next_trial_at": None}


@dataclass
class Owners:
    """Stand for the gateway and what is behind it."""

    delivered: int = 1
    leads: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        counts = {"pending": 0, "failed": 0, "in_doubt": 0, "delivered": self.delivered}
        slack = counts | {"oldest_pending_seconds": None}
        answers: dict[str, Any] = {
            "/api/dlq/stats": counts | {"targets": {"slack": slack}},
            "/api/breakers": {"slack": CLOSED},
            "/api/leads": {"items": self.leads},
        }
        nothing = {"items": [], "total": 0, "next_cursor": None, "ok": True}
        return web.json_response(answers.get(request.path, nothing))


@pytest.fixture
async def owners(ports: Ports, idle_console: Console) -> AsyncIterator[Owners]:
    made = Owners()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    async with serving(ports.take(), app) as url:
        idle_console.environment |= {"GATEWAY_URL": url, "METRICS_PORT": str(ports.take())}
        yield made


@dataclass
class Events:
    """What an open page hears, until its stream is over."""

    heard: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def hears(self, name: str) -> None:
        await until(lambda: name in self.heard, 30)

    async def ends(self) -> None:
        async with asyncio.timeout(30):
            await self.over.wait()


@asynccontextmanager
async def open_page(console: Console, who: Browser) -> AsyncIterator[Events]:
    events = Events()
    headers = {"Cookie": f"{COOKIE}={who.cookie}", "X-Internal-Key": console.key}

    async def listen() -> None:
        with suppress(aiohttp.ClientError):
            async with console.session.get(f"{console.url}/console/events", headers=headers) as got:
                async for line in got.content:
                    if line.startswith(b"data: "):
                        events.heard.append(line.decode()[6:-1])
        events.over.set()

    listening = asyncio.create_task(listen())
    yield events
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_open_pages_hear_what_changed_until_their_session_ends(
    owners: Owners, idle_console: Console
) -> None:
    console = idle_console
    await console.start()
    viewer = await joined(console, roles=["viewer"])
    seller = await joined(console, roles=["sales"], email="ola@example.com")
    async with open_page(console, viewer) as oldest, open_page(console, seller) as leads:
        await asyncio.gather(oldest.hears("alerts"), leads.hears("leads"), leads.hears("cases"))
        async with open_page(console, viewer) as page, open_page(console, viewer) as newest:
            await oldest.ends()
            assert oldest.heard[-1] == "another"
            for each in (page, newest, leads):
                each.heard.clear()
            owners.delivered += 1
            owners.leads.append({"id": "1", "state": "new"})
            await asyncio.gather(page.hears("alerts"), newest.hears("alerts"), leads.hears("leads"))
            assert set(leads.heard) == {"leads"}  # not what its roles may not see
            assert set(page.heard) == {"alerts"}
            await viewer.post("/console/logout")
            owners.delivered += 1
            await asyncio.gather(page.ends(), newest.ends())
            assert page.heard[-1] == newest.heard[-1] == "session"
        assert not leads.over.is_set()

    async def nobody_listens() -> bool:
        owners.leads.append({"id": str(len(owners.leads)), "state": "new"})
        return await streams(console, 0)

    await eventually(nobody_listens, 60, every=1)  # as when the gateway was killed
    async with open_page(console, seller) as leads:
        await leads.hears("leads")
        # It would wait 20 s for an answer that is under way, and then say that it failed.
        assert await asyncio.wait_for(console.stop(), 15) == 0
        await leads.ends()


async def streams(console: Console, number: int) -> bool:
    url = f"http://{HOST}:{console.environment['METRICS_PORT']}/metrics"
    async with console.session.get(url) as answer:
        return f"console_streams {number:.1f}" in await answer.text()


async def test_a_page_that_refreshes_itself_keeps_no_session_open(
    owners: Owners, idle_console: Console
) -> None:
    console = idle_console
    await console.start()
    viewer = await joined(console, roles=["viewer"])
    console.query("UPDATE staff_session SET seen_at = now() - interval '5 minutes'")
    headers = {"Cookie": f"{COOKIE}={viewer.cookie}", "X-Internal-Key": console.key}
    url = f"{console.url}/console/targets"
    async with console.session.get(url, headers=headers | {"X-Refresh": "1"}) as refreshed:
        assert refreshed.status == 200
    async with open_page(console, viewer) as page:
        await page.hears("alerts")
    seen = "SELECT 1 FROM staff_session WHERE seen_at > now() - interval '4 minutes'"
    assert console.query(seen) == []
    assert (await viewer.get("/console/targets")).status == 200
    assert len(console.query(seen)) == 1


async def test_charts_show_what_was_counted_each_minute_for_14_days(
    owners: Owners, idle_console: Console
) -> None:
    console = idle_console
    console.query("INSERT INTO sample VALUES (now() - interval '15 days', 'slack', 0, 0, 0)")
    await console.start()

    async def counted() -> bool:
        found = console.query("SELECT at > now() - interval '14 days' AS young FROM sample")
        return [row.young for row in found] == [True]

    await eventually(counted, 60)
    hours = f"'{datetime.now(UTC):%Y-%m-%d %H:00+00}'::timestamptz - interval"
    console.query(
        "DELETE FROM sample; INSERT INTO sample VALUES"
        f" ({hours} '3 hours', 'slack', 4, 100, 7),"
        f" ({hours} '179 minutes', 'slack', 2, 130, 9),"
        # Two were sent again: no delivery is taken back by that.
        f" ({hours} '61 minutes', 'slack', 1, 131, 7),"
        f" ({hours} '1 minute', 'slack', 0, 131, 8)"
    )
    viewer = await joined(console, roles=["viewer"])
    for days in ("1", "14"):
        shown = (await viewer.get(f"/console/targets?days={days}")).body
        for caption in (
            "Most pending at once: 4",
            "Delivered in that time: 31",
            "Failed in that time: 3",
        ):
            assert f"<figcaption>{caption}</figcaption>" in shown, days
        assert days == "14" or shown.count('<th scope="row">') >= 3
