"""A person takes a lead: its follow-ups end (docs/protocols.md, D, step 13)."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import CALLER, create_app
from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack
from services.followups import metrics
from services.followups.consumers import Consumers
from services.followups.http.followups import FollowupRoutes
from tests.integration.followups.conftest import CONFIG, GOOD_LEAD, World, mails, submissions_of

KEY = "internal-key-of-this-test"
NO_BROKER: Any = None
EMAIL = "jan@example.com"


def taken(lead_id: uuid.UUID, kind: str = "case.answered", by: str = "Ewa Lis") -> Message:
    body = {
        "case_id": str(lead_id),
        "lead_id": str(lead_id),
        "at": datetime.now(UTC).isoformat(),
        "by": by,
    }
    return Message(id=str(uuid.uuid4()), type=kind, body=body)


@pytest.fixture
async def client(engine: AsyncEngine) -> AsyncIterator[TestClient[Any, Any]]:
    app = create_app(internal_key=KEY)
    sequences = {**CONFIG.sequences, "again": CONFIG.sequences["default"]}
    config = replace(CONFIG, sequences=sequences)
    FollowupRoutes(engine, config, mails(config)).add_to(app)
    headers = {"X-Internal-Key": KEY, CALLER: "service"}
    async with TestClient(TestServer(app), headers=headers) as opened:
        yield opened


@pytest.fixture
async def lead(world: World) -> uuid.UUID:
    await world.say(f"{GOOD_LEAD}, {EMAIL}")
    assert set(await world.statuses()) == {"scheduled"}
    row = await world.lead()
    assert row is not None
    found: uuid.UUID = row["id"]
    return found


async def handle(engine: AsyncEngine, message: Message) -> None:
    assert await Consumers(engine, NO_BROKER, submissions_of(engine)).outcomes(message) == Ack()


async def test_its_scheduled_steps_are_cancelled_and_say_why(
    world: World, engine: AsyncEngine, lead: uuid.UUID, client: TestClient[Any, Any]
) -> None:
    stopped = metrics.TAKEN._value.get()
    count = len(await world.steps())
    await handle(engine, taken(lead))
    async with client.get("/api/followups", params={"email": EMAIL}) as answer:
        items = (await answer.json())["items"]
    assert {(each["status"], each["reason"]) for each in items} == {("cancelled", "taken")}
    assert metrics.TAKEN._value.get() == stopped + count


async def test_it_has_the_name_of_who_took_it_and_keeps_what_staff_have_decided(
    world: World, engine: AsyncEngine, lead: uuid.UUID
) -> None:
    await handle(engine, taken(lead))
    row = await world.lead()
    assert row is not None
    assert (row["state"], row["state_by"]) == ("taken", "Ewa Lis")
    await world.set_state(lead, "won", "anna")
    await handle(engine, taken(lead))  # late
    row = await world.lead()
    assert row is not None
    assert (row["state"], row["state_by"]) == ("won", "anna")


async def test_a_lead_follows_its_case_in_the_order_of_their_times(
    world: World, engine: AsyncEngine, lead: uuid.UUID
) -> None:
    async def after(*told: Message) -> tuple[str, str]:
        for each in told:
            await handle(engine, each)
        row = await world.lead()
        assert row is not None
        return row["state"], row["state_by"]

    first, back = taken(lead), taken(lead, "case.released")
    again, other = taken(lead), taken(lead, "case.released", by="Jan Nowak")
    assert await after(first, other) == ("taken", "Ewa Lis")  # of another case of this lead
    assert await after(back) == ("new", "Ewa Lis")
    assert await after(first) == ("new", "Ewa Lis")
    assert await after(again, back) == ("taken", "Ewa Lis")
    await world.set_state(lead, "new", "staff:7 Ewa Lis")  # staff, in the console
    late = Message(id=str(uuid.uuid4()), type="case.answered", body=again.body)
    assert await after(late) == ("new", "staff:7 Ewa Lis")
    await world.set_state(lead, "taken", "staff:7 Ewa Lis")
    assert await after(back) == ("taken", "staff:7 Ewa Lis")
    assert await after(taken(lead, "case.released")) == ("new", "Ewa Lis")


async def test_a_release_that_overtakes_its_take_leaves_the_lead_new(
    world: World, engine: AsyncEngine, lead: uuid.UUID
) -> None:
    first, back = taken(lead), taken(lead, "case.released")
    await handle(engine, back)
    await handle(engine, first)
    row = await world.lead()
    assert row is not None
    assert row["state"] == "new"


async def test_the_chat_does_not_enrol_the_person_again(world: World, engine: AsyncEngine) -> None:
    await world.say("remont kuchni, jan@example.com")  # not yet worth a sequence
    row = await world.lead()
    assert row is not None
    assert await world.steps() == []
    await handle(engine, taken(row["id"]))
    await world.say(f"{GOOD_LEAD}, 600 700 800")
    await world.say("tak")
    assert await world.steps() == []


async def test_a_second_copy_does_not_stop_what_staff_have_enrolled_since(
    world: World, engine: AsyncEngine, lead: uuid.UUID, client: TestClient[Any, Any]
) -> None:
    """The case was released, and staff decided to write again."""
    message = taken(lead)
    await handle(engine, message)
    body = {"email": EMAIL, "sequence": "again"}
    async with client.post("/api/followups", json=body) as answer:
        assert answer.status == 202, await answer.text()
    before = await world.statuses()
    assert "scheduled" in before
    await handle(engine, message)
    assert await world.statuses() == before
