"""What stands in trouble, as the database keeps it: since when, told when, over when."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db
from services.alerts.alert import BreakerState, Reason
from services.alerts.messages import ESCALATION
from services.alerts.store import breakers, escalations, intake, troubles
from services.alerts.store.breakers import Stand
from services.alerts.store.intake import NewRow
from services.alerts.store.steps import Ended
from services.alerts.store.troubles import Pace, Standing, Trouble
from tests.conftest import NewDatabase

HERE, THERE = uuid4(), uuid4()
CLOSED = Stand("slack", BreakerState.CLOSED, 0, 0.0, paused=False, healed=False)
OPEN = replace(CLOSED, state=BreakerState.OPEN, failures=5, seconds_to_trial=60.0, paused=True)
HEALED = replace(CLOSED, healed=True)
NEVER = 1e6
NOW = datetime.now(UTC)


@pytest.fixture(params=["aiopg", "asyncpg"])
async def engine(
    database: NewDatabase, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncEngine]:
    url = (await database("alerts")).replace("aiopg", request.param)
    async with db.connect(url, application_name="test") as opened:
        yield opened


async def say(engine: AsyncEngine, stand: Stand, process: UUID = HERE) -> int:
    async with engine.begin() as tx:
        return await breakers.say(tx, process, [stand])


async def age(engine: AsyncEngine, what: str, seconds: int) -> None:
    async with engine.begin() as tx:
        await tx.execute(text(f"UPDATE {what} - interval '{seconds} seconds'"))


async def tell(
    engine: AsyncEngine,
    target: str = "slack",
    *,
    again: float = NEVER,
    pause: float = 0,
    digest: UUID | None = None,
) -> list[Standing]:
    pace = Pace(after=60, again=again, pause=pause)
    async with engine.begin() as tx:
        due = await troubles.targets_due(tx, pace)
        told = await troubles.tell_of(tx, target, digest or uuid4(), pace)
    assert (target in due) == bool(told)
    return told


async def sick(engine: AsyncEngine) -> dict[str, tuple[int, bool]]:
    async with engine.connect() as tx:
        found = await troubles.sick(tx)
    return {name: (round(each.seconds / 100) * 100, each.shut) for name, each in found.items()}


async def test_a_target_is_sick_from_the_first_opening_until_any_process_gets_through(
    engine: AsyncEngine,
) -> None:
    await say(engine, CLOSED)
    assert await sick(engine) == {}
    await say(engine, OPEN)
    await age(engine, "trouble SET since = since", 500)
    await say(engine, replace(OPEN, state=BreakerState.HALF_OPEN))
    await say(engine, OPEN, THERE)
    assert await sick(engine) == {"slack": (500, True)}
    await say(engine, CLOSED)  # a new process begins like that: nothing has got through
    async with engine.begin() as tx:
        await breakers.leave(tx, THERE)
    assert await sick(engine) == {"slack": (500, False)}
    await say(engine, HEALED, THERE)
    assert await sick(engine) == {}


async def test_a_process_that_is_silent_is_dead_and_shows_nothing(engine: AsyncEngine) -> None:
    assert await say(engine, OPEN) == 1
    assert await say(engine, CLOSED, THERE) == 2
    async with engine.connect() as tx:
        (other,) = await breakers.of_others(tx, THERE)
    assert (other.state, other.failures, other.paused) == (BreakerState.OPEN, 5, True)
    assert 50 < other.seconds_to_trial <= 60
    async with engine.begin() as tx:
        await tx.execute(
            text("UPDATE breaker SET seen_at = now() - interval '16 s' WHERE process = :process"),
            {"process": HERE},
        )
    assert await say(engine, CLOSED, THERE) == 1
    async with engine.connect() as tx:
        assert await breakers.of_others(tx, THERE) == []
    assert await sick(engine) == {"slack": (0, False)}


async def test_a_reset_reaches_every_process_once_and_ends_the_trouble(engine: AsyncEngine) -> None:
    for process in (HERE, THERE):
        await say(engine, OPEN, process)
    async with engine.begin() as tx:
        assert await breakers.resets(tx, HERE) == {}
        await breakers.reset(tx, "slack", "ala")
    async with engine.connect() as tx:
        first = await breakers.resets(tx, HERE)
        assert first == await breakers.resets(tx, THERE)
        assert first.keys() == {"slack"}
        assert await breakers.troubled_since(tx) == {}
    async with engine.begin() as tx:
        await breakers.reset(tx, "slack", None)
    async with engine.connect() as tx:
        assert (await breakers.resets(tx, HERE))["slack"] > first["slack"]


async def test_a_breakers_trouble_is_told_once_it_is_old_and_while_one_is_open(
    engine: AsyncEngine,
) -> None:
    await say(engine, OPEN)
    assert await tell(engine) == []
    await age(engine, "trouble SET since = since", 61)
    await say(engine, CLOSED)
    assert await tell(engine) == []
    await say(engine, OPEN)
    (told,) = await tell(engine)
    assert told.kind is Trouble.BREAKER
    assert await tell(engine) == []
    await age(engine, "trouble SET told_at = told_at", 100)
    assert await tell(engine, again=200) == []
    (again,) = await tell(engine, again=99)
    assert again.since == told.since


async def test_what_is_seen_again_keeps_its_beginning_and_what_is_not_is_over(
    engine: AsyncEngine,
) -> None:
    async def observe(kind: Trouble, **numbers: int) -> None:
        async with engine.begin() as tx:
            await troubles.observe(tx, kind, numbers)

    await observe(Trouble.PENDING, slack=101, email=200)
    await observe(Trouble.IN_DOUBT, email=1)
    assert [each.kind for each in await tell(engine, "email")] == [Trouble.IN_DOUBT]
    await age(engine, "trouble SET since = since", 61)
    await observe(Trouble.PENDING, slack=150)
    (told,) = await tell(engine)
    assert (told.kind, told.number) == (Trouble.PENDING, 150)
    assert await tell(engine, "email") == []
    await observe(Trouble.PENDING)
    await observe(Trouble.PENDING, slack=101)
    assert await tell(engine) == []  # begun anew


async def test_what_a_lost_mail_told_is_told_by_the_next(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await troubles.observe(tx, Trouble.UNREAD, {"intake": 1})
    assert await tell_in_vain(engine)
    assert [each.kind for each in await tell(engine, "intake")] == [Trouble.UNREAD]


async def tell_in_vain(engine: AsyncEngine, **pace: float) -> list[Standing]:
    """Tell of what could not be read, by a mail that fails."""
    digest = uuid4()
    told = await tell(engine, "intake", digest=digest, **pace)
    assert await tell(engine, "intake", again=pace.get("again", NEVER)) == []
    async with engine.begin() as tx:
        await escalations.untell(tx, digest)
    return told


# Of a mail every 300 s that is refused for good: 5, 10, 20, … min, and no more than 6 h.
PAUSES = (300, 600, 1200, 2400, 4800, 9600, 19200, 21600, 21600)


async def test_after_each_lost_mail_a_trouble_waits_twice_as_long_until_one_has_left(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as tx:
        await troubles.observe(tx, Trouble.UNREAD, {"intake": 1})
    assert await tell_in_vain(engine, pause=300)
    for pause in PAUSES:
        await age(engine, "trouble SET untold_at = untold_at", pause - 60)
        assert await tell(engine, "intake", pause=300) == []
        await age(engine, "trouble SET untold_at = untold_at", 61)
        assert await tell_in_vain(engine, pause=300)
    assert await tell(engine, "intake")  # a first look, without a pause; this one leaves
    await age(engine, "trouble SET told_at = told_at", 1000)
    assert await tell_in_vain(engine, pause=300, again=999)  # begins with a short one again
    await age(engine, "trouble SET untold_at = untold_at", 301)
    assert await tell(engine, "intake", pause=300)


async def test_after_each_lost_mail_failures_wait_twice_as_long_and_another_targets_do_not(
    engine: AsyncEngine,
) -> None:
    async def due(pause: float) -> set[str]:
        async with engine.connect() as tx:
            return set(await escalations.targets_untold(tx, pause))

    async def lose() -> None:
        digest = uuid4()
        async with engine.begin() as tx:
            assert await escalations.tell_of(tx, "slack", digest)
            await escalations.untell(tx, digest)

    await fails(engine, "slack")
    assert await due(300) == {"slack"}
    await lose()
    for pause in PAUSES:
        await age(engine, "escalation SET untold_at = untold_at", pause - 60)
        await fails(engine, "slack")
        assert await due(300) == set()
        assert await due(0) == {"slack"}
        await age(engine, "escalation SET untold_at = untold_at", 61)
        assert await due(300) == {"slack"}
        await lose()
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE escalation SET untold = 5000"))  # after years
    await fails(engine, "sms")
    assert await due(300) == {"sms"}


async def fails(engine: AsyncEngine, target: str) -> None:
    ended = Ended(uuid4(), target, 1, "slack_alert", "gone 404", None)
    async with engine.begin() as tx:
        await escalations.escalate(tx, ended, Reason.GONE)


async def untold(engine: AsyncEngine) -> int:
    async with engine.connect() as tx:
        return round(await escalations.untold_seconds(tx), -2)


async def test_a_failure_is_untold_until_the_mail_that_tells_of_it_has_left(
    engine: AsyncEngine,
) -> None:
    assert await untold(engine) == 0
    await fails(engine, "slack")
    await age(engine, "escalation SET created_at = created_at", 900)
    await fails(engine, "sms")
    assert await untold(engine) == 900
    row = NewRow(uuid4(), "email", ESCALATION, "critical", "alerts", {}, None, None, NOW)
    async with engine.begin() as tx:
        await intake.accept(tx, [row], 0)
        assert await escalations.tell_of(tx, "slack", row.alert_id)
    assert await untold(engine) == 900
    async with engine.begin() as tx:
        await tx.execute(
            text("UPDATE delivery SET state = 'discarded', reason = 'x', finished_at = now()")
        )
    assert await untold(engine) == 0  # of sms, a moment ago
    async with engine.begin() as tx:
        await escalations.untell(tx, row.alert_id)
    assert await untold(engine) == 900
