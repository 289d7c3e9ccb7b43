"""A person takes a lead: its follow-ups end (docs/protocols.md, D, step 13)."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack
from services.followups import metrics
from tests.integration.followups.conftest import CONFIG, GOOD_LEAD, World

EMAIL = "jan@example.com"


def taken(lead_id: uuid.UUID, kind: str = "case.answered", by: str = "Ewa Lis") -> Message:
    at, id_ = datetime.now(UTC).isoformat(), str(lead_id)
    body = {"case_id": id_, "lead_id": id_, "at": at, "by": by}
    return Message(id=str(uuid.uuid4()), type=kind, body=body)


@pytest.fixture
async def world(engine: AsyncEngine) -> AsyncIterator[World]:
    again = {**CONFIG.sequences, "again": CONFIG.sequences["default"]}
    async with World(engine, replace(CONFIG, sequences=again)).serving() as served:
        yield served


@pytest.fixture
async def lead(world: World) -> uuid.UUID:
    await world.say(f"{GOOD_LEAD}, {EMAIL}")
    assert set(await world.statuses()) == {"scheduled"}
    return uuid.UUID(str((await world.lead())["id"]))


async def handle(world: World, message: Message) -> None:
    assert await world.consumers.outcomes(message) == Ack()


async def test_its_scheduled_steps_are_cancelled_and_say_why(world: World, lead: uuid.UUID) -> None:
    stopped = metrics.TAKEN._value.get()
    count = len(await world.steps())
    await handle(world, taken(lead))
    items = await world.listed("followups", email=EMAIL)
    assert {(each["status"], each["reason"]) for each in items} == {("cancelled", "taken")}
    assert metrics.TAKEN._value.get() == stopped + count


async def test_it_has_the_name_of_who_took_it_and_keeps_what_staff_have_decided(
    world: World, lead: uuid.UUID
) -> None:
    await handle(world, taken(lead))
    row = await world.lead()
    assert (row["state"], row["state_by"]) == ("taken", "Ewa Lis")
    await world.set_state(lead, "won", "anna")
    await handle(world, taken(lead))  # late
    row = await world.lead()
    assert (row["state"], row["state_by"]) == ("won", "anna")


async def test_a_lead_follows_its_case_in_the_order_of_their_times(
    world: World, lead: uuid.UUID
) -> None:
    async def after(*told: Message) -> tuple[str, str]:
        for each in told:
            await handle(world, each)
        row = await world.lead()
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
    world: World, lead: uuid.UUID
) -> None:
    first, back = taken(lead), taken(lead, "case.released")
    await handle(world, back)
    await handle(world, first)
    row = await world.lead()
    assert row["state"] == "new"


async def test_the_chat_does_not_enrol_the_person_again(world: World) -> None:
    await world.say("remont kuchni, jan@example.com")  # not yet worth a sequence
    row = await world.lead()
    assert await world.steps() == []
    await handle(world, taken(row["id"]))
    await world.say(f"{GOOD_LEAD}, 600 700 800")
    await world.say("tak")
    assert await world.steps() == []


async def test_a_second_copy_does_not_stop_what_staff_have_enrolled_since(
    world: World, lead: uuid.UUID
) -> None:
    """The case was released, and staff decided to write again."""
    message = taken(lead)
    await handle(world, message)
    body = {"email": EMAIL, "sequence": "again"}
    assert (await world.post("/api/followups", body))[0] == 202
    before = await world.statuses()
    assert "scheduled" in before
    await handle(world, message)
    assert await world.statuses() == before
