"""Conversations are deleted after their retention period."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from services.followups import retention
from services.followups.store import tables
from tests.integration.followups.conftest import GOOD_LEAD, World

DAYS = 30


async def grown_old(engine: AsyncEngine, days: int) -> None:
    long = sa.func.make_interval(0, 0, 0, days)
    steps, talks = tables.followup_event, tables.chat_conversations
    async with engine.begin() as tx:
        await tx.execute(sa.update(talks).values(updated_at=talks.c.updated_at - long))
        lead = tables.lead
        await tx.execute(sa.update(lead).values(updated_at=lead.c.updated_at - long))
        await tx.execute(
            sa.update(steps).values(
                due_at=steps.c.due_at - long, handed_over_at=steps.c.handed_over_at - long
            )
        )


async def count(engine: AsyncEngine, table: sa.Table) -> int:
    async with engine.connect() as tx:
        return int((await tx.execute(sa.select(sa.func.count()).select_from(table))).scalar_one())


async def test_an_old_conversation_is_deleted_with_its_messages_and_steps(
    world: World, engine: AsyncEngine
) -> None:
    [old] = await world.enrol("old@example.com", steps=1)
    await world.pretend_sent(str(old["id"]))
    await world.say("dzień dobry", "old")
    await grown_old(engine, DAYS + 1)
    await world.say("dzień dobry", "young")
    assert await retention.forget(engine, DAYS) == 2
    assert await world.steps() == []
    assert await count(engine, tables.chat_conversations) == 1
    assert await count(engine, tables.chat_message) == 2
    assert await retention.forget(engine, DAYS) == 0


async def test_a_conversation_with_a_pending_step_is_kept(
    world: World, engine: AsyncEngine
) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com", "s")
    await world.enrol("ala@example.com", seconds=60)
    await grown_old(engine, 400)
    assert await retention.forget(engine, DAYS) == 0


async def test_an_old_talk_is_kept_with_the_lead_of_a_person_who_came_back(
    world: World, engine: AsyncEngine
) -> None:
    await world.say(f"{GOOD_LEAD}, 600 700 800", "spring")
    await grown_old(engine, 400)
    async with engine.begin() as tx:  # staff still work on it
        await tx.execute(sa.update(tables.lead).values(updated_at=sa.func.now()))
    await world.say("chcę jeszcze łazienkę 6 m2, 600 700 800", "autumn")
    assert await retention.forget(engine, DAYS) == 0
    assert await count(engine, tables.lead) == 1


async def test_an_old_talk_goes_with_its_lead_though_another_one_follows(
    world: World, engine: AsyncEngine
) -> None:
    await world.say(f"{GOOD_LEAD}, 600 700 800", "spring")
    await grown_old(engine, 400)
    await world.say("chcę jeszcze łazienkę 6 m2, 600 700 800", "autumn")
    assert await count(engine, tables.lead) == 2
    assert await retention.forget(engine, DAYS) == 1
    assert await count(engine, tables.lead) == 1


async def test_retention_counts_from_the_last_follow_up(world: World, engine: AsyncEngine) -> None:
    [step] = await world.enrol("jan@example.com", steps=1)
    await grown_old(engine, 400)
    await world.pretend_sent(str(step["id"]))  # today
    assert await retention.forget(engine, DAYS) == 0
    await grown_old(engine, DAYS + 1)
    assert await retention.forget(engine, DAYS) == 1


async def test_deletion_runs_in_batches_and_skips_a_locked_conversation(
    world: World, engine: AsyncEngine
) -> None:
    async with engine.begin() as tx:
        await tx.execute(
            sa.text(
                "INSERT INTO chat_conversations (id, session_id, updated_at) SELECT "
                "gen_random_uuid(), 's' || n, now() - interval '99 days' "
                "FROM generate_series(1, 1200) AS n"
            )
        )
    talks = tables.chat_conversations
    async with engine.begin() as tx:
        await tx.execute(sa.select(talks).where(talks.c.session_id == "s7").with_for_update())
        assert await retention.forget(engine, DAYS) == 1199
