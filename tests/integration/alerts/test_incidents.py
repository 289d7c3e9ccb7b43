"""Open incidents in the database: since when, when reported, when over."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.messages import ESCALATION
from services.alerts.rules.delivery import Reason
from services.alerts.store import breakers, incidents
from services.alerts.store.incidents import IncidentKind, Pace
from services.alerts.store.ledger import intake
from tests.integration.alerts.conftest import a_row, execute

HERE, THERE = uuid4(), uuid4()
NOTHING: dict[str, Any] = {
    "target": "slack",
    "healthy": False,
    "failures": 0,
    "trial": None,
    "wants_trial": False,
    "refused": None,
    "paused": 0.0,
    "fail_max": 5,
    "reset_timeout": 60.0,
}
FAILED = NOTHING | {"failures": 5}
REFUSED = NOTHING | {"failures": 1, "refused": "401"}
HEALED = NOTHING | {"healthy": True}
NEVER = 1e6
NOW = datetime.now(UTC)


async def report(engine: AsyncEngine, observed: dict[str, Any], process: UUID = HERE) -> None:
    await breakers.run.alone(engine, "join", targets=["slack"])
    await breakers.run.alone(engine, "report", process=process, reports=[observed])


async def age(engine: AsyncEngine, what: str, seconds: int) -> None:
    await execute(engine, f"UPDATE {what} - interval '{seconds} seconds'")


async def take(
    engine: AsyncEngine,
    target: str = "slack",
    *,
    repeat: float = NEVER,
    pause: float = 0,
    digest: UUID | None = None,
) -> list[Any]:
    pace = Pace(after=60, repeat=repeat, pause=pause)
    async with engine.begin() as tx:
        due = await incidents.run(tx, "incidents_due", **asdict(pace))
        mine = {"target": target, "digest": digest or uuid4(), **asdict(pace)}
        taken = await incidents.run(tx, "take_incidents", **mine)
    assert (target in due.scalars()) == bool(taken)
    return taken


async def unhealthy(engine: AsyncEngine) -> dict[str, tuple[int, bool]]:
    since = text("SELECT target, CAST(extract(epoch FROM now() - since) AS float) FROM incident")
    async with engine.connect() as tx:
        found = await incidents.run(tx, "unhealthy")
        seconds = {row[0]: row[1] for row in await tx.execute(since)}
    return {
        name: (round(seconds[name] / 100) * 100, each.shut)
        for each in found
        for name in [each.target]
    }


async def test_a_target_is_unhealthy_from_opening_until_any_process_delivers(
    engine: AsyncEngine,
) -> None:
    await report(engine, NOTHING)
    assert await unhealthy(engine) == {}
    await report(engine, FAILED)
    await age(engine, "incident SET since = since", 500)
    await report(engine, FAILED, THERE)
    assert await unhealthy(engine) == {"slack": (500, True)}
    await report(engine, HEALED, THERE)
    assert await unhealthy(engine) == {}


async def test_a_success_before_the_failures_that_open_it_hides_no_incident(
    engine: AsyncEngine,
) -> None:
    await report(engine, FAILED | {"healthy": True})
    assert await unhealthy(engine) == {"slack": (0, True)}


async def test_a_target_that_asked_for_a_long_pause_is_unhealthy_and_reported(
    engine: AsyncEngine,
) -> None:
    await report(engine, NOTHING | {"paused": 900.0})
    await age(engine, "incident SET since = since", 500)
    assert await unhealthy(engine) == {"slack": (500, True)}
    (incident,) = await take(engine)
    assert incident.kind == IncidentKind.BREAKER
    await age(engine, "breaker SET paused_until = paused_until", 901)
    assert await unhealthy(engine) == {"slack": (500, False)}


async def test_a_breaker_incident_is_reported_when_old_and_repeated_while_open(
    engine: AsyncEngine,
) -> None:
    await report(engine, FAILED)
    assert await take(engine) == []
    await age(engine, "incident SET since = since", 61)
    (incident,) = await take(engine)
    assert incident.kind == IncidentKind.BREAKER
    assert await take(engine) == []
    await age(engine, "incident SET notified_at = notified_at", 100)
    assert await take(engine, repeat=200) == []
    (again,) = await take(engine, repeat=99)
    assert again.since == incident.since


async def test_a_target_that_refuses_us_is_reported_as_soon_as_it_is_certain(
    engine: AsyncEngine,
) -> None:
    async def refuses() -> list[bool]:
        return [each.refuses for each in await incidents.run.alone(engine, "unhealthy")]

    await report(engine, FAILED)
    await age(engine, "incident SET since = since", 500)
    assert await take(engine)  # nothing gets through
    await report(engine, REFUSED)
    assert await take(engine) == []
    assert await refuses() == [False]
    await age(engine, "incident SET since = since", 11)
    assert await refuses() == [True]
    (incident,) = await take(engine)  # though it was reported before, as another trouble
    assert incident.number == 1
    await report(engine, REFUSED)
    await report(engine, FAILED)
    assert await take(engine) == []
    assert await unhealthy(engine) == {"slack": (0, True)}


async def test_a_refusal_that_the_next_alert_disproves_is_not_reported(engine: AsyncEngine) -> None:
    await report(engine, REFUSED)
    await report(engine, NOTHING | {"wants_trial": True})
    await report(engine, HEALED | {"trial": True})
    assert await unhealthy(engine) == {}


async def test_an_incident_keeps_its_start_while_observed_and_then_closes(
    engine: AsyncEngine,
) -> None:
    async def observe(kind: IncidentKind, **numbers: int) -> None:
        await incidents.run.alone(engine, "observe", kind=kind, numbers=numbers)

    await observe(IncidentKind.PENDING, slack=101, email=200)
    await observe(IncidentKind.IN_DOUBT, email=1)
    assert [each.kind for each in await take(engine, "email")] == [IncidentKind.IN_DOUBT]
    await age(engine, "incident SET since = since", 61)
    await observe(IncidentKind.PENDING, slack=150)
    (incident,) = await take(engine)
    assert (incident.kind, incident.number) == (IncidentKind.PENDING, 150)
    assert await take(engine, "email") == []
    await observe(IncidentKind.PENDING)
    await observe(IncidentKind.PENDING, slack=101)
    assert await take(engine) == []  # it began again


async def test_the_next_mail_reports_what_a_failed_mail_did(engine: AsyncEngine) -> None:
    await incidents.run.alone(engine, "observe", kind=IncidentKind.UNREAD, numbers={"intake": 1})
    assert await take_and_fail(engine)
    assert [each.kind for each in await take(engine, "intake")] == [IncidentKind.UNREAD]


async def take_and_fail(engine: AsyncEngine, **pace: float) -> list[Any]:
    """Report the unread messages by a mail that fails."""
    digest = uuid4()
    taken = await take(engine, "intake", digest=digest, **pace)
    assert await take(engine, "intake", repeat=pace.get("repeat", NEVER)) == []
    await incidents.run.alone(engine, "mark_unsent", digest=digest)
    return taken


# For a mail every 300 s that is refused for good: 5, 10, 20, … min, at most 6 h.
PAUSES = (300, 600, 1200, 2400, 4800, 9600, 19200, 21600, 21600)


async def test_each_failed_mail_doubles_the_pause_of_an_incident(engine: AsyncEngine) -> None:
    await incidents.run.alone(engine, "observe", kind=IncidentKind.UNREAD, numbers={"intake": 1})
    assert await take_and_fail(engine, pause=300)
    for pause in PAUSES:
        await age(engine, "incident SET send_failed_at = send_failed_at", pause - 60)
        assert await take(engine, "intake", pause=300) == []
        await age(engine, "incident SET send_failed_at = send_failed_at", 61)
        assert await take_and_fail(engine, pause=300)
    assert await take(engine, "intake")  # without a pause; this mail is sent
    await age(engine, "incident SET notified_at = notified_at", 1000)
    assert await take_and_fail(engine, pause=300, repeat=999)  # the first pause is short again
    await age(engine, "incident SET send_failed_at = send_failed_at", 301)
    assert await take(engine, "intake", pause=300)


async def test_each_failed_mail_doubles_the_pause_of_failures_of_that_target_only(
    engine: AsyncEngine,
) -> None:
    async def due(pause: float) -> set[str]:
        return set((await incidents.run.alone(engine, "failures_due", pause=pause)).scalars())

    async def lose() -> None:
        digest = uuid4()
        async with engine.begin() as tx:
            await incidents.run(tx, "take_failures", target="slack", digest=digest)
            await incidents.run(tx, "mark_unsent", digest=digest)

    await fails(engine, "slack")
    assert await due(300) == {"slack"}
    await lose()
    for pause in PAUSES:
        await age(engine, "escalation SET send_failed_at = send_failed_at", pause - 60)
        await fails(engine, "slack")
        assert await due(300) == set()
        assert await due(0) == {"slack"}
        await age(engine, "escalation SET send_failed_at = send_failed_at", 61)
        assert await due(300) == {"slack"}
        await lose()
    await execute(engine, "UPDATE escalation SET send_failures = 5000")  # after years
    await fails(engine, "sms")
    assert await due(300) == {"sms"}


async def fails(engine: AsyncEngine, target: str) -> None:
    given = {"alert_id": uuid4(), "event_type": "slack_alert", "error": "gone 404"}
    await incidents.run.alone(engine, "escalate", **given, target=target, reason=Reason.GONE)


async def unsent(engine: AsyncEngine) -> float:
    return float(round((await incidents.run.alone(engine, "unsent_seconds")).scalar_one(), -2))


async def test_a_failure_is_unsent_until_its_mail_is_sent(engine: AsyncEngine) -> None:
    assert await unsent(engine) == 0
    await fails(engine, "slack")
    await age(engine, "escalation SET created_at = created_at", 900)
    await fails(engine, "sms")
    assert await unsent(engine) == 900
    row = a_row(target="email", event_type=ESCALATION, severity="critical")
    async with engine.begin() as tx:
        await intake.accept(tx, [row], 0)
        await incidents.run(tx, "take_failures", target="slack", digest=row.alert_id)
    assert await unsent(engine) == 900
    await execute(
        engine, "UPDATE delivery SET state = 'discarded', reason = 'x', finished_at = now()"
    )
    assert await unsent(engine) == 0  # only that of sms, a moment ago
    await incidents.run.alone(engine, "mark_unsent", digest=row.alert_id)
    assert await unsent(engine) == 900
