"""Events that do not come in time are asked about, and jobs that ping (protocols.md, D, 15)."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.queue_depths import Depths
from libs.domain.signed_links import Tokens
from services.alerts.cases.heartbeats import Heartbeats
from services.alerts.messages import HeartbeatPing
from services.alerts.rules.case import Rules
from services.alerts.rules.heartbeats import Kind, Schedule
from services.alerts.store.cases import heartbeats
from services.alerts.upkeep import retention
from tests.integration.alerts.cases import POLICY, RULES, Cases, closed_for_two_days
from tests.integration.alerts.conftest import PING_KEYS, Alerts, StartAlerts, waits_for_a_row
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


HOUR = timedelta(hours=1)
JOB = {"name": "nightly backup", "every": "1h", "grace": "10m", "severity": "critical"}


class Jobs(Watched):
    """Cases, with one job that is to ping each hour."""

    id: UUID

    async def begin(self) -> None:
        values = {"name": "backup", "every": 3600, "grace": 600, "severity": "critical"}
        async with self.engine.begin() as tx:
            row = await heartbeats.add(tx, {**values, "next_at": datetime.now(UTC) + HOUR}, 2)
        assert row is not None
        self.id = row.id

    async def ping(self, kind: Kind = Kind.SUCCESS, **given: Any) -> HeartbeatPing:
        given = {"id": uuid4(), "at": datetime.now(UTC), "url_version": 0} | given
        ping = HeartbeatPing(heartbeat=self.id, kind=kind, **given)
        await self.heartbeats.take(ping, "request-1")
        return ping

    async def own_row(self) -> Any:
        (row,) = await self.rows("SELECT * FROM heartbeat_watch WHERE id = :id", id=self.id)
        return row

    async def alerts(self) -> list[tuple[str, bool, str]]:
        found = await self.rows(
            "SELECT payload, resolved, severity FROM delivery ORDER BY created_at"
        )
        return [(each.payload["text"], each.resolved, each.severity) for each in found]

    async def silent(self, since: str = "1 minute") -> None:
        await self.execute(
            f"UPDATE heartbeat_watch SET next_at = now() - interval '{since}' WHERE id = :id",
            id=self.id,
        )
        await self.heartbeats.run()


@pytest.fixture
async def job(engine: AsyncEngine) -> Jobs:
    made = Jobs(engine, WATCHING)
    await made.heartbeats.run()
    await made.begin()
    return made


async def test_one_that_is_silent_is_told_with_its_case_and_its_return_too(job: Jobs) -> None:
    await job.ping(at=ago(hours=2))
    await job.silent()
    row = await job.own_row()
    await job.sees(row.case_id, state="open", severity="critical")
    ((text, resolved, severity),) = await job.alerts()
    assert text.startswith("backup has not been heard of since")
    assert (resolved, severity) == (False, "critical")
    await job.ping()
    assert (await job.own_row()).case_id is None
    await job.sees(row.case_id, state="cancelled", reason="resolved")
    assert (await job.alerts())[1:] == [("backup is back", True, "critical")]
    work = await job.rows("SELECT body FROM outbox WHERE routing_key = 'alerts.slack'")
    assert len(work) == 2
    assert await job.balanced()


async def test_a_failure_is_told_at_once_with_the_end_of_its_log(job: Jobs) -> None:
    await job.ping(Kind.FAIL, code=3, log="x" * 5_000 + "disk full")
    case_id = (await job.own_row()).case_id
    payload = (await job.case(case_id)).payload
    assert payload["text"] == "backup failed with exit code 3"
    assert payload["log"].endswith("disk full")
    assert len(payload["log"]) == 1_000
    await job.ping(Kind.FAIL)
    assert len(await job.alerts()) == 1


async def test_a_start_that_does_not_end_is_told(job: Jobs) -> None:
    await job.ping(Kind.START, at=ago(minutes=10, seconds=3))
    await job.ping(Kind.START, at=ago(minutes=5))
    await job.heartbeats.run()
    assert (await job.alerts()) == []  # the gateway may still pass on its end
    await job.silent()
    ((text, *_),) = await job.alerts()
    assert "has not ended" in text


async def test_a_ping_that_comes_again_changes_nothing(job: Jobs) -> None:
    failed = await job.ping(Kind.FAIL, at=ago(minutes=2))
    await job.ping()
    await job.ping(Kind.FAIL, id=failed.id, at=failed.at)
    await job.ping(Kind.FAIL, at=ago(minutes=1))  # overtaken
    assert (await job.own_row()).case_id is None
    assert [text for text, *_ in await job.alerts()] == ["backup failed", "backup is back"]


async def test_an_older_url_and_a_deleted_heartbeat_count_no_more(job: Jobs) -> None:
    await job.execute("UPDATE heartbeat_watch SET version = 1")
    await job.ping(Kind.FAIL)
    await job.ping(Kind.FAIL, url_version=2)
    assert await job.alerts() == []
    await job.execute("DELETE FROM heartbeat_watch")
    await job.ping(Kind.FAIL, url_version=1)
    assert await job.alerts() == []
    assert await job.rows("SELECT 1 FROM heartbeat_ping") == []


async def test_after_an_hour_away_no_job_is_called_silent_that_pinged(job: Jobs) -> None:
    """The service was away, and its queue has the pings of that time."""
    job.waiting = 3
    await job.silent("50 minutes")
    job.waiting = None
    await job.silent("50 minutes")
    assert await job.alerts() == []
    for minutes in (70, 10):
        await job.ping(at=ago(minutes=minutes))
    job.waiting = 0
    await job.heartbeats.run()
    assert await job.alerts() == []
    assert (await job.own_row()).next_at > datetime.now(UTC) + timedelta(minutes=50)


async def test_after_an_hour_away_a_job_that_was_silent_is_told(job: Jobs) -> None:
    job.waiting = 1
    await job.silent("50 minutes")
    await job.ping(at=ago(hours=2))  # all that waited
    job.waiting = 0
    await job.heartbeats.run()
    assert len(await job.alerts()) == 1


async def test_what_left_the_queue_has_time_to_be_applied(job: Jobs) -> None:
    job.heartbeats.in_flight = 5
    await job.silent()
    await job.heartbeats.run()
    assert await job.alerts() == []
    assert job.heartbeats._empty_at is not None
    job.heartbeats._empty_at -= timedelta(seconds=6)
    await job.heartbeats.run()
    assert len(await job.alerts()) == 1


async def test_many_at_once_are_told_once_and_recover_once(job: Jobs) -> None:
    await asyncio.gather(*(job.ping(Kind.FAIL, at=ago(seconds=each)) for each in range(9, 0, -1)))
    assert len([text for text, *_ in await job.alerts() if text == "backup failed"]) == 1
    await asyncio.gather(*(job.ping() for _ in range(5)))
    assert [text for text, *_ in await job.alerts()] == ["backup failed", "backup is back"]
    assert await job.balanced()


async def test_pings_are_kept_for_their_time_and_a_hundred_of_each(job: Jobs) -> None:
    for number in range(103):
        await job.ping(at=ago(days=1, minutes=200 - number))
    kept = await job.rows("SELECT min(at) AS first, count(*) AS count FROM heartbeat_ping")
    assert kept[0].count == heartbeats.PINGS_KEPT
    await job.execute(
        "UPDATE heartbeat_ping SET at = at - interval '30 days' WHERE at < :at",
        at=ago(days=1, minutes=150),
    )
    await retention.run(job.engine, delivered=86400.0, payloads=30 * 86400.0)
    rest = await job.rows("SELECT count(*) AS count FROM heartbeat_ping")
    assert 0 < rest[0].count < heartbeats.PINGS_KEPT


SECTIONS = {
    "answers": {
        "heartbeat.missed": {
            "asks": ["slack"],
            "within": "1h",
            "chain": [{"to": "sms", "person": "anna", "wait": "1h"}],
        }
    },
    "people": PEOPLE,
}


@pytest.fixture
async def service(alerts: StartAlerts) -> Alerts:
    return await alerts(sections=SECTIONS, routes={"heartbeat.missed": ["slack"]})


async def test_a_heartbeat_is_made_changed_rotated_and_deleted(service: Alerts) -> None:
    status, made = await service.http("POST", "/api/heartbeats", JOB)
    assert (status, made["state"], made["every"], made["grace"]) == (201, "new", "1h", "10m")
    claims = Tokens(PING_KEYS).verify(
        urlsplit(made["url"]).path.removeprefix("/ping/"), "ping", datetime.now(UTC)
    )
    assert (claims.subject, claims.purpose) == (made["id"], "0")
    path = f"/api/heartbeats/{made['id']}"
    _, listed = await service.http("GET", "/api/heartbeats")
    assert listed == {"items": [made], "next_cursor": None}
    _, paused = await service.http("PATCH", path, {"paused": True, "grace": "90s"})
    assert (paused["state"], paused["grace"], paused["next_at"]) == ("paused", "90s", None)
    _, changed = await service.http("PATCH", path, {"paused": False, "every": "2h"})
    assert (changed["state"], changed["every"], changed["url"]) == ("new", "2h", made["url"])
    due = changed["next_at"]
    _, renamed = await service.http("PATCH", path, {"name": "backup", "severity": "info"})
    assert (renamed["name"], renamed["next_at"]) == ("backup", due)
    _, rotated = await service.http("POST", f"{path}/rotate")
    assert rotated["url"] != made["url"]
    assert (await service.http("DELETE", path))[0] == 200
    assert [(await service.http(method, path, {}))[0] for method in ("GET", "PATCH", "DELETE")] == [
        404
    ] * 3


async def test_one_that_is_made_paused_waits_for_nothing_until_it_goes_on(service: Alerts) -> None:
    status, made = await service.http("POST", "/api/heartbeats", JOB | {"paused": True})
    assert (status, made["state"], made["next_at"], made["due_at"]) == (201, "paused", None, None)
    path = f"/api/heartbeats/{made['id']}"
    _, goes_on = await service.http("PATCH", path, {"paused": False})
    assert goes_on["state"] == "new"
    assert datetime.fromisoformat(goes_on["next_at"]) > datetime.now(UTC)
