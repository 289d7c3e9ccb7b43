"""What a chat leaves in the tables and in the outbox."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import migrate
from services.followups import messages
from services.followups.store import conversations, steps, tables
from tests.conftest import NewDatabase
from tests.integration.followups.conftest import CONFIG, GOOD_LEAD, World
from tests.support.eventually import eventually


async def test_the_migrations_make_the_tables_that_the_code_describes(
    database: NewDatabase,
) -> None:
    url = await database("followups")
    assert migrate.differences(url.owner_url, tables.metadata) == []


async def test_a_chat_with_an_email_a_budget_and_a_wish_is_a_qualified_lead(world: World) -> None:
    answer = await world.say("Chcę nową kuchnię, budżet 50 tys. zł, jan@example.com")
    assert answer.score >= CONFIG.threshold
    [lead] = await world.outbox("lead.qualified")
    assert lead["email"] == "jan@example.com"
    assert lead["conversation_id"] == str(answer.conversation_id)
    assert lead["reasons"]


async def test_a_lead_is_told_once_however_often_it_qualifies(world: World) -> None:
    for _ in range(3):
        await world.say(f"{GOOD_LEAD}, jan@example.com")
    assert len(await world.outbox("lead.qualified")) == 1


async def test_many_tabs_of_one_session_make_one_conversation_and_one_lead(
    world: World, engine: AsyncEngine
) -> None:
    answers = await asyncio.gather(*(world.say(f"{GOOD_LEAD}, jan@example.com") for _ in range(20)))
    assert len({answer.conversation_id for answer in answers}) == 1
    assert len(await world.outbox("lead.qualified")) == 1
    async with engine.begin() as tx:
        conversations = await tx.scalar(
            sa.select(sa.func.count()).select_from(tables.chat_conversations)
        )
        said = await tx.scalar(sa.select(sa.func.count()).select_from(tables.chat_message))
    assert (conversations, said) == (1, 40)


async def test_facts_said_in_different_tabs_all_survive(world: World, engine: AsyncEngine) -> None:
    parts = ["80 m2", "250 tys. zł", "jan@example.com", "600 700 800", "od marca", "remont"]
    await asyncio.gather(*(world.say(part) for part in parts))
    async with engine.begin() as tx:
        state = await tx.scalar(sa.select(tables.chat_conversations.c.state))
    assert set(state["facts"]) == {
        "area", "budget", "currency", "email", "phone", "start", "wish",
    }  # fmt: skip


async def test_consent_is_recorded_once_with_the_wording_that_was_shown(world: World) -> None:
    asked = await world.say("remont 80 m2, 250 tys., od marca, jan@example.com")
    wording = CONFIG.texts["pl"]["consent_wording"]
    assert wording in asked.reply
    assert await world.outbox("grant.record") == []
    await world.say("Tak, zgadzam się")
    await world.say("tak")
    [grant] = await world.outbox("grant.record")
    assert grant["wording"] == wording
    assert grant["email"] == "jan@example.com"
    assert grant["ip_address"] == "203.0.113.7"


async def test_a_checkbox_that_a_page_repeats_is_one_consent(world: World) -> None:
    for message in ("dzień dobry", "jan@example.com", "remont kuchni"):
        await world.say(message, agreed="Zgadzam się na newsletter")
    [grant] = await world.outbox("grant.record")
    assert grant["wording"] == "Zgadzam się na newsletter"
    assert grant["email"] == "jan@example.com"


async def test_a_qualified_lead_with_an_address_is_enrolled(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    rows = await world.steps("jan@example.com")
    assert [row["followup_number"] for row in rows] == [1, 2]
    assert {row["status"] for row in rows} == {"scheduled"}


async def test_a_consent_with_an_address_enrols_a_lead_that_did_not_qualify(world: World) -> None:
    await world.say("dzień dobry", agreed="Zgadzam się", email="jan@example.com")
    assert await world.statuses("jan@example.com") == ["scheduled", "scheduled"]


async def test_a_lead_that_is_still_talking_is_not_chased_yet(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    first = (await world.steps())[0]["due_at"]
    await world.say("a ile to potrwa?")
    rows = await world.steps()
    assert rows[0]["due_at"] > first
    assert {row["status"] for row in rows} == {"scheduled"}


async def test_a_reply_after_a_step_went_out_stops_the_rest(
    world: World, engine: AsyncEngine
) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    first, _ = await world.steps()
    await world.pretend_sent(str(first["id"]))
    await world.say("dziękuję, proszę o telefon")
    assert await world.statuses() == ["sent", "cancelled"]
    assert (await world.steps())[1]["reason"] == "reply"


async def test_a_reply_of_a_lead_whom_staff_enrolled_stops_the_sequence(world: World) -> None:
    await world.say("dzień dobry, jan@example.com")
    await world.enrol("jan@example.com", seconds=3600)
    await world.say("już nieaktualne")
    assert await world.statuses() == ["cancelled", "cancelled"]


async def test_a_turn_hears_what_was_enrolled_while_it_waited_for_the_address(
    world: World, engine: AsyncEngine
) -> None:
    async with engine.begin() as tx:
        await steps.lock_address(tx, "jan@example.com")
        turn = asyncio.create_task(world.say("jan@example.com"))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await eventually(lambda: tx.scalar(sa.text(waits)), 20)
        there = await conversations.conversation_of_address(tx, "jan@example.com")
        due = [datetime.now(UTC) + timedelta(hours=1)]
        await steps.enrol(tx, there, "jan@example.com", "default", due, "api", None)
    await turn
    assert await world.statuses() == ["cancelled"]


async def test_an_address_is_kept_in_one_spelling(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, Jan.Kowalski@EXAMPLE.com")
    assert {row["email"] for row in await world.steps()} == {"jan.kowalski@example.com"}


async def test_the_lead_of_a_conversation_has_the_same_id_whoever_tells_it(world: World) -> None:
    answer = await world.say(f"{GOOD_LEAD}, jan@example.com")
    [lead] = await world.outbox("lead.qualified")
    assert uuid.UUID(lead["id"]) == messages.lead_id(answer.conversation_id)


async def test_a_reply_counts_in_whichever_conversation_it_comes(world: World) -> None:
    await world.enrol("jan@example.com", seconds=3600)
    await world.say("dzień dobry, jan@example.com, nadal nas to interesuje", "a new session")
    assert await world.statuses("jan@example.com") == ["cancelled", "cancelled"]
    assert {row["reason"] for row in await world.steps()} == {"reply"}


async def test_a_chase_of_last_year_does_not_end_the_one_of_today(world: World) -> None:
    [old] = await world.enrol("jan@example.com", steps=1)
    await world.pretend_sent(str(old["id"]))
    await world.say(f"{GOOD_LEAD}, jan@example.com", "today")
    await world.say("a ile to potrwa?", "today")
    assert await world.statuses() == ["sent", "scheduled", "scheduled"]
