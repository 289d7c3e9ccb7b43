"""Conversations are deleted after their retention period."""

import sqlalchemy as sa

from services.followups import retention
from services.followups.store import tables
from tests.integration.followups.conftest import GOOD_LEAD, World

DAYS = 30


async def grown_old(world: World, days: int) -> None:
    for table, columns in (
        ("chat_conversations", ("updated_at",)),
        ("lead", ("updated_at",)),
        ("followup_event", ("due_at", "handed_over_at")),
    ):
        older = ", ".join(f"{name} = {name} - make_interval(days => {days})" for name in columns)
        await world.sql(f"UPDATE {table} SET {older}")


async def test_an_old_conversation_is_deleted_with_its_messages_and_steps(world: World) -> None:
    [old] = await world.enrol("old@example.com", steps=1)
    await world.pretend_sent(str(old["id"]))
    await world.say("dzień dobry", "old")
    await grown_old(world, DAYS + 1)
    await world.say("dzień dobry", "young")
    assert await retention.forget(world.engine, DAYS) == 2
    assert await world.steps() == []
    assert await world.conversations() == 1
    assert len(await world.said()) == 2
    assert await retention.forget(world.engine, DAYS) == 0


async def test_a_conversation_with_a_pending_step_is_kept(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com", "s")
    await world.enrol("ala@example.com", seconds=60)
    await grown_old(world, 400)
    assert await retention.forget(world.engine, DAYS) == 0


async def test_an_old_talk_is_kept_with_the_lead_of_a_person_who_came_back(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, 600 700 800", "spring")
    await grown_old(world, 400)
    await world.sql("UPDATE lead SET updated_at = now()")  # staff still work on it
    await world.say("chcę jeszcze łazienkę 6 m2, 600 700 800", "autumn")
    assert await retention.forget(world.engine, DAYS) == 0
    assert len(await world.leads()) == 1


async def test_an_old_talk_goes_with_its_lead_though_another_one_follows(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, 600 700 800", "spring")
    await grown_old(world, 400)
    await world.say("chcę jeszcze łazienkę 6 m2, 600 700 800", "autumn")
    assert len(await world.leads()) == 2
    assert await retention.forget(world.engine, DAYS) == 1
    assert len(await world.leads()) == 1


async def test_retention_counts_from_the_last_follow_up(world: World) -> None:
    [step] = await world.enrol("jan@example.com", steps=1)
    await grown_old(world, 400)
    await world.pretend_sent(str(step["id"]))  # today
    assert await retention.forget(world.engine, DAYS) == 0
    await grown_old(world, DAYS + 1)
    assert await retention.forget(world.engine, DAYS) == 1


async def test_deletion_runs_in_batches_and_skips_a_locked_conversation(world: World) -> None:
    await world.sql(
        "INSERT INTO chat_conversations (id, session_id, updated_at) SELECT "
        "gen_random_uuid(), 's' || n, now() - interval '99 days' FROM generate_series(1, 1200) AS n"
    )
    talks = tables.chat_conversations
    async with world.engine.begin() as tx:
        await tx.execute(sa.select(talks).where(talks.c.session_id == "s7").with_for_update())
        assert await retention.forget(world.engine, DAYS) == 1199
