"""kill -9 of the gateway and of followups at each step of a form's way to staff (P11).

After each restart, and after the page has asked again where it had no answer, the lead is stored
once, its alert is in the ledger once, and so is its agreement in the trail.

Published and not deleted, from the same outbox, is in test_a_follow_up_at_each_step.py.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults.conftest import ACK
from tests.faults.test_a_follow_up_at_each_step import HandOver, started
from tests.faults.test_killed_gateway import forget_what_runs
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.forms import agreed, alerts, new_key, quiet, stored, submit
from tests.support.proxy import DOWN, UP, Direction, Proxy
from tests.support.stack import Stack
from tests.support.system import fresh_address

AT_COMMIT = ("lead_submission", "INSERT INTO lead_submission")
pytestmark = [pytest.mark.faults, pytest.mark.promise("P11")]


class Sent:
    """A form, sent by a page that repeats it with its key until it has an answer."""

    def __init__(self, stack: Stack, consents: dict[str, str]) -> None:
        self.stack = stack
        self.email, self.key, self.consents = fresh_address(), new_key(), consents

    async def post(self, wish: str = "Remont kuchni") -> Any:
        fields = {"email": self.email, "message": wish}
        answer = await submit(self.stack, fields, key=self.key, consents=self.consents)
        assert answer.status == 202, answer
        return answer.body["id"]

    async def once(self) -> None:
        """Wait until nothing is on its way: one row, one alert for each target, one agreement."""

        async def recorded() -> Any:
            path = f"/api/consent/audit/{self.email}"
            found = await self.stack.http("GET", path, key="admin")
            return found.status == 200 and found.body["entries"]

        (row,) = await eventually(self._stored, 60)
        await eventually(lambda: quiet(self.stack), 60)
        entries = await eventually(recorded, 30)
        assert len(stored(self.stack, self.email)) == 1
        assert [entry["action"] for entry in entries] == ["opt-in"]
        rows = alerts(self.stack, row.id)
        assert {(each.target, each.state) for each in rows} == {
            ("slack", "delivered"),
            ("monday", "delivered"),
        }
        told = [text for text in await self.stack.slack_texts() if self.email in text]
        assert len(told) == 1, told

    async def _stored(self) -> Any:
        return stored(self.stack, self.email)


@pytest.fixture
async def rig(stack: Stack, tmp_path: Path) -> AsyncIterator[HandOver]:
    async with started(HandOver, stack, tmp_path) as made:
        await made.flowing("followups.leads")
        yield made


@pytest.fixture
async def sent(stack: Stack) -> Sent:
    return Sent(stack, await agreed(stack))


@pytest.mark.parametrize(
    ("direction", "at"),
    [(UP, b"lead.submit"), (DOWN, ACK)],
    ids=["not published", "not confirmed"],
)
async def test_a_gateway_killed_at_its_publish_and_asked_again_makes_one_lead(
    stack: Stack, proxy: Proxy, sent: Sent, direction: Direction, at: bytes
) -> None:
    held = proxy.stall_before(direction, at)
    asked = asyncio.create_task(sent.post())
    await held.wait()
    await stack.kill9("gateway")
    with pytest.raises(aiohttp.ClientError):
        await asked
    proxy.cut()
    await proxy.resume()
    await stack.start("gateway")
    await forget_what_runs(stack)
    assert await sent.post() == await sent.post()
    await sent.once()


async def test_a_gateway_killed_while_followups_takes_its_form_makes_one_lead(
    stack: Stack, rig: HandOver, proxy: Proxy, sent: Sent
) -> None:
    await proxy.refuse()
    async with rig.locked("LOCK TABLE followups.lead_submission IN SHARE MODE"):
        asked = asyncio.create_task(sent.post())
        await rig.waits_for_a_lock(statement="INSERT INTO lead_submission")
        await stack.kill9("gateway")
        with pytest.raises(aiohttp.ClientError):
            await asked
    await proxy.resume()
    await stack.start("gateway")
    await forget_what_runs(stack)
    await sent.post()
    await sent.once()


async def test_a_form_that_is_not_committed_is_taken_again(rig: HandOver, sent: Sent) -> None:
    async with rig.dies_at(*AT_COMMIT):
        await sent.post()
    assert stored(rig.stack, sent.email) == []
    await rig.restart()
    await sent.once()


async def test_a_form_that_was_committed_and_not_acked_is_one_lead(
    rig: HandOver, sent: Sent
) -> None:
    held = rig.broker.stall_before(UP, ACK)
    await sent.post()
    await held.wait()
    assert len(stored(rig.stack, sent.email)) == 1
    await rig.kill()
    await rig.until_depth("followups.leads", 1)
    await rig.restart()
    await sent.once()


async def test_a_form_that_was_committed_and_not_published_alerts_once(
    rig: HandOver, sent: Sent
) -> None:
    rig.broker.stall(UP)
    await sent.post()
    await until(lambda: stored(rig.stack, sent.email), 30)
    await rig.kill()
    assert await rig.stack.slack_texts() == []
    await rig.restart()
    await sent.once()


async def test_a_returning_customer_gets_one_new_lead_and_the_crm_has_both_whole(
    rig: HandOver, sent: Sent
) -> None:
    """Killed at the commit: neither the lead, nor its row that names the one before."""

    def leads() -> list[Any]:
        of = "SELECT * FROM followups.lead WHERE known ->> 'email' = %s ORDER BY created_at"
        return rig.stack.query(of, sent.email)

    async def both() -> Any:
        found = leads()
        return found if len(found) == 2 and await quiet(rig.stack) else None

    await sent.post()
    await sent.once()
    rig.query("UPDATE followups.lead SET state = 'won', state_by = 'Jan' RETURNING id")
    again = Sent(rig.stack, {})
    again.email = sent.email
    async with rig.dies_at(*AT_COMMIT):
        await again.post("Remont łazienki")
    assert len(leads()) == 1
    await rig.restart()
    old, new = await eventually(both, 60)
    assert (old.state, new.state) == ("won", "new")
    assert new.previous == {"id": str(old.id), "state": "won", "owner": "Jan"}

    async def items() -> Any:
        received = await rig.stack.sandbox.received("monday")
        of = [each["body"]["variables"] for each in received if "name" in each["body"]["variables"]]
        return of if len(of) == 2 else None

    kitchen, bathroom = [each["values"] for each in await eventually(items, 60)]
    assert "Remont kuchni" in kitchen
    assert "Remont łazienki" in bathroom
    assert "kuchni" not in bathroom
    assert all(sent.email in each for each in (kitchen, bathroom))
