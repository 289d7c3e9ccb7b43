"""Many alerts at once: another console finishes what a killed one began."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.integration.console.conftest import Console
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports

MANY = 7


@dataclass
class Owner:
    """Stands for the gateway: it acts on three alerts in each call, and may keep the answer."""

    left: int
    calls: list[dict[str, Any]] = field(default_factory=list)
    holds: bool = False
    url: str = ""

    async def act(self, request: web.Request) -> web.Response:
        self.calls.append(await request.json())
        done = min(3, self.left)
        self.left -= done
        if self.holds:
            await asyncio.sleep(60)
        body = {"matched": self.left + done, "requeued": done}
        return web.json_response(body | ({"more": True} if self.left else {}))


@pytest.fixture
async def owner(ports: Ports) -> AsyncIterator[Owner]:
    made = Owner(MANY)
    app = web.Application()
    app.router.add_post("/api/dlq/retry", made.act)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = ports.take()
    await web.TCPSite(runner, HOST, port).start()
    made.url = f"http://{HOST}:{port}"
    yield made
    await runner.cleanup()


SHORT = """
from services.console.store import bulk
bulk.LEASE_SECONDS = 1
"""
AT = {
    "before the call": """
import asyncio
from services.console.gateway import Gateway
async def stuck(*_, **__):
    print("stopped", flush=True)
    await asyncio.sleep(60)
Gateway.post = stuck
""",
    "amid the call": "",
    "before it counts": """
import asyncio
async def stuck(*_, **__):
    print("stopped", flush=True)
    await asyncio.sleep(60)
bulk.add_done = stuck
""",
}
MAIN = """
from services.console.__main__ import main
main()
"""


async def begin(console: Console, role: str) -> None:
    """Have one that this person began."""
    body = {"email": "ewa@example.com", "name": "Ewa", "roles": [role]}
    assert (await console.call("POST", "/api/staff", body)).status == 201
    console.query(
        "INSERT INTO bulk_action (id, staff_id, verb, filter, reason, expected)"
        " SELECT gen_random_uuid(), id, 'retry', %s, 'new token', 7 FROM staff",
        '{"status": "failed"}',
    )


@pytest.mark.parametrize("at", AT)
async def test_another_console_goes_on_after_a_kill(
    idle_console: Console, owner: Owner, at: str
) -> None:
    console = idle_console
    console.environment["GATEWAY_URL"] = owner.url
    owner.holds = at == "amid the call"
    await console.start(SHORT + AT[at] + MAIN)
    await begin(console, "ops")

    async def reached() -> bool:
        return bool(owner.calls) if owner.holds else "stopped" in console.log.read_text()

    await eventually(reached, 30)
    console.kill9()
    owner.holds = False
    await console.start(SHORT + MAIN)

    async def ended() -> list[Any]:
        return console.query("SELECT * FROM bulk_action WHERE state = 'done'")

    (row,) = await eventually(ended, 30)
    assert owner.left == 0
    lost = 0 if at == "before the call" else 3  # acted on, and not counted
    assert row.done == MANY - lost
    acts = console.query("SELECT outcome FROM staff_action WHERE action = 'bulk.retry'")
    assert [act.outcome for act in acts] == ["done"]
    assert all(call == {"status": "failed"} for call in owner.calls)


async def test_it_ends_when_as_many_as_were_announced_are_done(
    idle_console: Console, owner: Owner
) -> None:
    console = idle_console
    console.environment["GATEWAY_URL"] = owner.url
    owner.left = 20
    await console.start(SHORT + MAIN)
    await begin(console, "ops")

    async def ended() -> list[Any]:
        return console.query("SELECT done FROM bulk_action WHERE state = 'done'")

    (row,) = await eventually(ended, 30)
    assert (row.done, len(owner.calls)) == (9, 3)  # of 7: a call is not cut


async def test_who_lost_the_role_acts_no_more(idle_console: Console, owner: Owner) -> None:
    console = idle_console
    console.environment["GATEWAY_URL"] = owner.url
    await console.start(SHORT + MAIN)
    await begin(console, "viewer")

    async def ended() -> list[Any]:
        return console.query("SELECT 1 FROM bulk_action WHERE state = 'refused'")

    await eventually(ended, 30)
    assert owner.calls == []
