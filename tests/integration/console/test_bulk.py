"""Many alerts at once: another console finishes what a killed one began."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.integration.console.conftest import Console, serving, stopping_at
from tests.support.eventually import eventually
from tests.support.ports import Ports

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
    async with serving(ports.take(), app) as made.url:
        yield made


SHORT = "bulk.LEASE_SECONDS = 1"
MAIN = stopping_at("bulk.Bulk.stop", more=SHORT)  # which nobody calls here
AT = {
    "before the call": stopping_at("gateway.Gateway.post", more=SHORT),
    "during the call": MAIN,
    "before it counts": stopping_at("bulk.add_done", more=SHORT),
}


async def begin(console: Console, role: str) -> None:
    """Have one that this person began."""
    body = {"email": "ewa@example.com", "name": "Ewa", "roles": [role]}
    assert (await console.call("POST", "/api/staff", body)).status == 201
    console.query(
        "INSERT INTO bulk_action (id, staff_id, verb, filter, reason, expected)"
        " SELECT gen_random_uuid(), id, 'retry', %s, 'new token', 7 FROM staff",
        '{"status": "failed"}',
    )


async def ended(console: Console, state: str) -> Any:
    async def found() -> list[Any]:
        return console.query("SELECT * FROM bulk_action WHERE state = %s", state)

    return (await eventually(found, 30))[0]


@pytest.mark.parametrize("at", AT)
async def test_another_console_goes_on_after_a_kill(
    idle_console: Console, owner: Owner, at: str
) -> None:
    console = idle_console
    console.environment["GATEWAY_URL"] = owner.url
    owner.holds = at == "during the call"
    await console.start(AT[at])
    await begin(console, "ops")

    async def called() -> bool:
        return bool(owner.calls)

    await (eventually(called, 30) if owner.holds else console.stopped())
    console.kill9()
    owner.holds = False
    await console.start(MAIN)
    row = await ended(console, "done")
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
    await console.start(MAIN)
    await begin(console, "ops")
    row = await ended(console, "done")
    assert (row.done, len(owner.calls)) == (9, 3)  # of 7: a call is not cut


async def test_who_lost_the_role_acts_no_more(idle_console: Console, owner: Owner) -> None:
    console = idle_console
    console.environment["GATEWAY_URL"] = owner.url
    await console.start(MAIN)
    await begin(console, "viewer")
    await ended(console, "refused")
    assert owner.calls == []
