"""An event type that does not come in time is asked about (docs/protocols.md, D, step 15)."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.queue_depths import Depths
from services.alerts.cases.heartbeats import Heartbeats
from services.alerts.rules.case import Rules
from services.alerts.rules.heartbeats import Schedule
from services.alerts.store.cases import heartbeats
from tests.integration.alerts.cases import POLICY, RULES, Cases, closed_for_two_days, dies_at
from tests.integration.alerts.conftest import StartAlerts, waits_for_a_row
from tests.integration.alerts.test_case_http import PEOPLE
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P9")

EIGHT_HOURS = timedelta(hours=8)
WATCHED = {"slack_alert": Schedule(EIGHT_HOURS.total_seconds())}
WATCHING = replace(RULES, policies={"heartbeat.missed": POLICY}, heartbeats=WATCHED)


@dataclass
class Watched(Cases):
    """Cases, with the timer of heartbeats."""

    waiting: int | None = 0
    """In each queue; None: unknown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.heartbeats = Heartbeats(
            self.engine, self.rules, self.intake, self._depths, in_flight=0
        )

    async def _depths(self, queues: Collection[str]) -> Depths:
        return dict.fromkeys(queues, self.waiting)

    async def comes(self, **fields: Any) -> UUID:
        return await self.accept(event_type="slack_alert", **fields)

    async def row(self) -> Any:
        (row,) = await self.rows("SELECT * FROM heartbeat_watch")
        return row

    async def miss(self) -> UUID:
        """Let the deadline be over, and the timer run."""
        await self.execute("UPDATE heartbeat_watch SET next_at = now() - interval '1 minute'")
        await self.heartbeats.run()
        case_id: UUID = (await self.row()).case_id
        return case_id


@pytest.fixture
async def subject(engine: AsyncEngine) -> Watched:
    made = Watched(engine, WATCHING)
    await made.heartbeats.run()
    return made


def ago(**time: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


async def test_it_is_watched_from_the_start_and_each_event_moves_its_deadline(
    subject: Watched,
) -> None:
    first = await subject.row()
    assert (first.name, first.case_id) == ("slack_alert", None)
    at = datetime.now(UTC)
    assert first.next_at <= at + EIGHT_HOURS
    await subject.execute("UPDATE heartbeat_watch SET next_at = now() + interval '1 hour'")
    came = ago(minutes=10)
    await subject.comes(accepted_at=came)
    assert (await subject.row()).next_at == came + EIGHT_HOURS
    await subject.accept(event_type="sms")
    assert (await subject.row()).next_at == came + EIGHT_HOURS


async def test_a_deadline_never_moves_back_and_no_clock_moves_it_too_far(subject: Watched) -> None:
    await subject.comes(accepted_at=datetime.now(UTC) + timedelta(days=300))
    moved = (await subject.row()).next_at
    assert moved <= datetime.now(UTC) + EIGHT_HOURS
    await subject.comes(accepted_at=ago(hours=2))
    assert (await subject.row()).next_at == moved


async def test_one_that_does_not_come_is_asked_about_once(subject: Watched) -> None:
    case_id = await subject.miss()
    row = await subject.sees(case_id, state="open", event_type="heartbeat.missed")
    assert row.payload["heartbeat"] == "slack_alert"
    assert "slack_alert in 8 h" in row.payload["text"]
    own = await subject.rows("SELECT target, state FROM delivery WHERE alert_id = :i", i=case_id)
    assert own == [("slack", "pending")]
    work = await subject.rows("SELECT body FROM outbox WHERE routing_key = 'alerts.slack'")
    assert [each.body["alert_id"] for each in work] == [str(case_id)]
    for _ in range(2):
        await subject.heartbeats.run()
    assert (await subject.row()).case_id == case_id
    assert len(await subject.rows("SELECT 1 FROM alert_case")) == 1
    assert await subject.balanced()


async def test_the_next_one_resolves_the_case_and_recalls_its_steps(subject: Watched) -> None:
    case_id = await subject.miss()
    await subject.tick()
    await subject.comes()
    row = await subject.sees(case_id, state="cancelled", reason="resolved")
    assert [step.state for step in await subject.steps(case_id)] == ["discarded"]
    row = await subject.row()
    assert row.case_id is None
    assert row.next_at > datetime.now(UTC)
    second = await subject.miss()
    assert second != case_id
    assert (await subject.case(second)).state == "open"


async def test_one_that_was_cancelled_or_purged_is_not_asked_about_until_the_next_comes(
    subject: Watched,
) -> None:
    ended = "state = 'cancelled', reason = 'manual', next_at = NULL, ended_at = now()"
    for end in (f"UPDATE alert_case SET {ended}", "DELETE FROM alert_case"):
        case_id = await subject.miss()
        await subject.execute(end)
        await subject.heartbeats.run()
        assert (await subject.row()).case_id == case_id
        await subject.comes(accepted_at=datetime.now(UTC))
        assert (await subject.row()).case_id is None


async def test_a_copy_of_an_event_from_before_resolves_nothing(subject: Watched) -> None:
    """Redelivered after the deadline it set was missed: it changes nothing."""
    came = ago(hours=9)
    await subject.execute("UPDATE heartbeat_watch SET next_at = now() - interval '2 hours'")
    alert = await subject.comes(accepted_at=came)
    case_id = await subject.miss()
    await subject.comes(id=alert, accepted_at=came)
    row = await subject.row()
    assert row.case_id == case_id
    assert (await subject.case(case_id)).state == "open"


async def test_an_event_that_waited_in_the_queue_for_too_long_resolves_nothing(
    subject: Watched,
) -> None:
    """Newer than the one before, but the next is overdue as well."""
    case_id = await subject.miss()
    await subject.execute("UPDATE heartbeat_watch SET next_at = now() - interval '2 days'")
    await subject.comes(accepted_at=ago(hours=9))
    assert (await subject.row()).case_id == case_id
    await subject.comes(accepted_at=ago(hours=7))
    assert (await subject.row()).case_id is None
    assert (await subject.case(case_id)).reason == "resolved"


async def test_the_row_s_lock_lets_a_sign_that_came_first_prevent_the_alert(
    subject: Watched,
) -> None:
    await subject.execute("UPDATE heartbeat_watch SET next_at = now() - interval '1 minute'")
    async with subject.engine.begin() as held:
        at = datetime.now(UTC) + EIGHT_HOURS
        (row,) = await heartbeats.run(held, "lock_events", event_types=["slack_alert"])
        await heartbeats.change(held, row.id, {"next_at": at})
        await subject.heartbeats.run()  # skips what others hold
    await subject.heartbeats.run()
    assert await subject.rows("SELECT 1 FROM alert_case") == []


async def test_a_sign_that_waits_for_the_timer_resolves_what_it_raised(subject: Watched) -> None:
    await subject.execute("UPDATE heartbeat_watch SET next_at = now() - interval '1 minute'")
    async with subject.engine.begin() as held:
        await subject.heartbeats._raise(held, datetime.now(UTC))
        (missed,) = await held.execute(sa.text("SELECT case_id FROM heartbeat_watch"))
        coming = asyncio.create_task(subject.comes())
        await eventually(lambda: waits_for_a_row(subject.engine))
    await coming
    await subject.sees(missed.case_id, state="cancelled", reason="resolved")


async def test_intake_that_dies_before_its_commit_has_seen_no_sign(
    subject: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await subject.row()

    with dies_at(monkeypatch, "intake.intake.accept"):
        await subject.comes()
    assert await subject.row() == before
    await subject.comes()
    assert (await subject.row()).next_at > before.next_at


async def test_found_outside_the_hours_it_is_asked_about_at_the_opening(
    engine: AsyncEngine,
) -> None:
    today, closed = datetime.now(UTC).date(), closed_for_two_days()
    watched = {"slack_alert": Schedule(4 * 3600.0, hours=closed)}
    subject = Watched(engine, replace(WATCHING, heartbeats=watched))
    await subject.heartbeats.run()
    opening = datetime.combine(today + timedelta(days=2), datetime.min.time(), UTC)
    assert (await subject.row()).next_at == opening.replace(hour=13)
    assert await subject.miss() is None
    assert (await subject.row()).next_at == opening.replace(hour=9)


async def test_what_left_the_configuration_is_forgotten_and_its_case_stays(
    subject: Watched,
) -> None:
    case_id = await subject.miss()
    await Watched(subject.engine, Rules()).heartbeats.run()
    assert await subject.rows("SELECT 1 FROM heartbeat_watch") == []
    await subject.comes()
    assert (await subject.case(case_id)).state == "open"
    again = Watched(subject.engine, WATCHING)
    await again.heartbeats.run()
    assert (await again.row()).case_id is None


async def test_a_restart_keeps_the_deadline(subject: Watched) -> None:
    await subject.execute("UPDATE heartbeat_watch SET next_at = now() + interval '5 minutes'")
    before = await subject.row()
    await Watched(subject.engine, WATCHING).heartbeats.run()
    assert await subject.row() == before


async def test_a_deadline_that_no_timer_sees_is_a_fault_of_the_check(subject: Watched) -> None:
    await subject.execute("UPDATE heartbeat_watch SET next_at = now() - interval '2 minutes'")
    assert (await subject.check())["stranded"] == 1
    await subject.heartbeats.run()
    assert (await subject.check())["ok"]


async def test_a_form_that_is_silent_is_asked_about_until_it_sends_again(
    alerts: StartAlerts,
) -> None:
    ask = {"to": "sms", "person": "anna", "wait": "1h"}
    policy = {"asks": ["slack"], "within": "1s", "chain": [ask]}
    sections = {
        "answers": {"heartbeat.missed": policy},
        "people": PEOPLE,
        "heartbeats": {"webhook": {"within": "3s"}},
    }
    subject = await alerts(sections=sections, routes={"heartbeat.missed": ["slack"]})
    (sms,) = await eventually(lambda: subject.sandbox.received("sms"), 60)
    assert "heartbeat.missed (webhook)" in str(sms["body"])
    cases = Cases(subject.engine)
    (case,) = await cases.rows("SELECT alert_id FROM alert_case")
    await subject.accept("webhook", alert_id=str(uuid4()))
    await eventually(
        lambda: cases.case(case.alert_id),
        20,
        so=lambda row: (row.state, row.reason) == ("cancelled", "resolved"),
    )
