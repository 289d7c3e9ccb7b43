"""Notifies operators by mail of what finally failed and of open incidents.

One mail per target and window, never one per alert. A digest is an alert like any other (event type
`escalation`, routed to mail), written into the ledger in the transaction that marks what it
reports. So it waits, is retried and survives a crash as they do. When it fails for good, all that
it reported is unsent again (`delivery.ending`), and due after a pause that grows with each failure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum, auto
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.process import logs
from services.alerts import metrics
from services.alerts.alert import Reason
from services.alerts.intake import Intake
from services.alerts.messages import ESCALATION, AlertAccepted
from services.alerts.store import cases, escalations, gaps, incidents, queries
from services.alerts.store.cases import CASES
from services.alerts.store.escalations import Unsent
from services.alerts.store.incidents import IncidentKind, OpenIncident, Pace
from services.alerts.upkeep.reconcile import Reconciler

log = logs.get_logger(__name__)

LISTED = 20
"""Cases that a mail lists."""
INTAKE = "intake"  # stands for the target of messages of which no row could be made
MISSING = "missing"  # and this for that of alerts that never came


class Part(StrEnum):
    """What a digest reports; a metric label."""

    FAILURES = auto()
    INCIDENTS = auto()


@dataclass(eq=False)
class Digests:
    """Run by one replica at a time; another would find nothing unsent.

    The second run ignores the pause after failed mails: an operator who corrects the address
    restarts the process. The first does not, or a process that keeps crashing would send a mail at
    each start.
    """

    engine: AsyncEngine
    intake: Intake
    reconciler: Reconciler
    rota_faults: Callable[[], Mapping[str, str]]  # by schedule
    to: str  # e-mail address
    base_url: str  # of the public API, for the commands in the mail
    pending: int  # deliveries of one target that may be pending without an incident
    pace: Pace
    _runs: int = field(default=0, init=False)

    async def run(self) -> None:
        """Send one mail for each target that has something due."""
        self._runs += 1
        pace = replace(self.pace, pause=0.0) if self._runs == 2 else self.pace
        numbers = await self._observe()
        async with self.engine.connect() as tx:
            targets = {
                *await escalations.targets_due(tx, pace.pause),
                *await incidents.targets_due(tx, pace),
            }
        for target in sorted(targets):
            await self._send(target, numbers.get(target, {}), pace)

    async def _observe(self) -> dict[str, dict[str, Any]]:
        unread = await self.reconciler.unread()
        async with self.engine.begin() as tx:
            numbers = await queries.stats(tx)
            pending = {
                name: each["pending"]
                for name, each in numbers.items()
                if each["pending"] > self.pending
            }
            in_doubt = {
                name: each["in_doubt"] for name, each in numbers.items() if each["in_doubt"]
            }
            unanswered, _ = await cases.unanswered(tx, 0)
            await incidents.observe(
                tx, IncidentKind.UNANSWERED, {CASES: unanswered} if unanswered else {}
            )
            await incidents.observe(tx, IncidentKind.ROTA, dict.fromkeys(self.rota_faults(), 1))
            await incidents.observe(tx, IncidentKind.PENDING, pending)
            await incidents.observe(tx, IncidentKind.IN_DOUBT, in_doubt)
            if unread is not None:  # while it is unknown, the last observation still holds
                missing = sum(each["count"] for each in await gaps.found(tx))
                lost = {INTAKE: unread, MISSING: missing}
                lost = {name: count for name, count in lost.items() if count}
                await incidents.observe(tx, IncidentKind.UNREAD, lost)
        return numbers

    async def _send(self, target: str, numbers: Mapping[str, Any], pace: Pace) -> None:
        digest = uuid4()
        async with self.engine.begin() as tx:
            unsent = await escalations.take(tx, target, digest)
            open_incidents = await incidents.take(tx, target, digest, pace)
            if unsent is None and not open_incidents:  # another replica was faster
                return
            now = Now(
                numbers.get("pending", 0),
                numbers.get("oldest_pending_seconds") or 0.0,
                numbers.get("failed", 0),
                numbers.get("in_doubt", 0),
                await incidents.last_error(tx, target) if open_incidents else None,
                self.rota_faults().get(target),
            )
            if target == CASES:
                now = Now(cases=await cases.unanswered(tx, LISTED))
            subject, text = compose(target, unsent, open_incidents, now, self.base_url)
            accepted = AlertAccepted(
                id=digest,
                event_type=ESCALATION,
                payload={"to": self.to, "subject": subject, "text": text},
                severity="critical",
                source="alerts",
                accepted_at=datetime.now(UTC),
            )
            await self.intake.accept(tx, [accepted], None)
        if unsent is not None:
            metrics.DIGESTS.labels(Part.FAILURES).inc()
        if open_incidents:
            metrics.DIGESTS.labels(Part.INCIDENTS).inc()
        log.warning(
            "digest.sent",
            target=target,
            failures=unsent.count if unsent else 0,
            incidents=[each.kind for each in open_incidents],
            digest=str(digest),
        )


@dataclass(frozen=True, slots=True)
class Now:
    """A target's numbers when the mail is written."""

    pending: int = 0
    oldest_seconds: float = 0.0
    failed: int = 0
    in_doubt: int = 0
    last_error: str | None = None
    rota_fault: str | None = None
    cases: tuple[int, Sequence[Any]] = (0, ())
    """How many no one has answered, and the oldest of them."""


def compose(
    target: str,
    unsent: Unsent | None,
    open_incidents: Iterable[OpenIncident],
    now: Now,
    base_url: str,
) -> tuple[str, str]:
    """Write the mail for an operator who was asleep: what, since when, numbers, the commands.

    :returns: subject and text
    """
    if target == CASES:  # its escalations and its incident say the same
        parts = [_unanswered(target, None, now, base_url)]
    else:
        parts = [_failures(target, unsent, base_url)] if unsent is not None else []
        parts += [_INCIDENTS[each.kind](target, each, now, base_url) for each in open_incidents]
    rest = f", and {len(parts) - 1} more" if len(parts) > 1 else ""
    return (
        f"Ostoja: {parts[0][0]}{rest}",
        "\n\n".join(f"{heading[0].upper()}{heading[1:]}.\n\n{body}" for heading, body in parts),
    )


_ADMIN = 'curl -H "X-ADMIN-API-KEY: $ADMIN_API_KEY"'
_POST = f'{_ADMIN} -H "Content-Type: application/json"'


_CANCELLED = """
no_permit: these mails were cancelled because the consent service did not reply for so long. They
are in neither list; the log of alerts names them (delivery.cancelled). Check that consent is
running.
"""


def _failures(target: str, unsent: Unsent, url: str) -> tuple[str, str]:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(unsent.reasons.items()))
    cancelled = _CANCELLED if Reason.NO_PERMIT in unsent.reasons else ""
    return (
        f"{unsent.count} for {target} did not arrive",
        f"""\
They finally failed, or their outcome is unknown.

why     {reasons}
first   {_utc(unsent.first_at)}  {unsent.first_error}
last    {_utc(unsent.last_at)}  {unsent.last_error}
{cancelled}
List them (in doubt: perhaps sent; only you can find out, then resolve it):
{_ADMIN} '{url}/api/dlq/failed?target={target}'
{_ADMIN} '{url}/api/dlq/in-doubt?target={target}'

After the cause is fixed, retry them:
{_POST} -d '{{"target": "{target}", "status": "failed"}}' {url}/api/dlq/retry

Or discard them, with a reason for the record:
{_POST} -d '{{"ids": ["…"], "reason": "…"}}' {url}/api/dlq/discard
""",
    )


def _breaker(target: str, incident: OpenIncident, now: Now, url: str) -> tuple[str, str]:
    return (
        f"nothing gets through to {target}",
        f"""\
Its breaker has opened, or it asked us to wait (Retry-After), and no alert has arrived since. None
is lost: an alert that waits longer than the target's max_age fails, and you are notified.

{_numbers(incident, now)}

Look at the breaker, and at the pending alerts:
{_ADMIN} {url}/api/breakers
{_ADMIN} '{url}/api/dlq/pending?target={target}'

Once {target} works again, the next trial closes the breaker. To close it at once:
{_POST} -X POST {url}/api/breakers/{target}/reset
""",
    )


def _pending(target: str, incident: OpenIncident, now: Now, url: str) -> tuple[str, str]:
    return (
        f"{incident.number} pending for {target}",
        f"""\
That is more than usual, for a while now. Delivery is still being tried.

{_numbers(incident, now)}

Look at the numbers, the breaker (open, or paused by the target), and the pending alerts:
{_ADMIN} {url}/api/dlq/stats
{_ADMIN} {url}/api/breakers
{_ADMIN} '{url}/api/dlq/pending?target={target}'
""",
    )


def _in_doubt(target: str, incident: OpenIncident, _: Now, url: str) -> tuple[str, str]:
    return (
        f"{incident.number} for {target} in doubt",
        f"""\
Perhaps sent: the process or the connection died at the last byte. They are never sent again
automatically. Only you can find out, from the mail server's log or from the recipient.

since   {_utc(incident.since)}

List them:
{_ADMIN} '{url}/api/dlq/in-doubt?target={target}'

Resolve each (delivered, resend or discarded):
{_POST} -d '{{"id": "…", "outcome": "delivered", "reason": "…"}}' {url}/api/dlq/resolve
""",
    )


def _unread(target: str, incident: OpenIncident, _: Now, url: str) -> tuple[str, str]:
    if target == MISSING:
        return (
            f"{incident.number} accepted alerts never came",
            f"""\
A gateway got RabbitMQ's confirmation for them, and their queue alerts.intake is empty: RabbitMQ
has lost it, say with a disk. They were answered 202 up to half an hour before, and are nowhere.

since   {_utc(incident.since)}

`gaps` says which numbers of which gateway process. Ask whoever sent alerts then to send them again:
{_ADMIN} {url}/api/ledger/check
""",
        )
    return (
        f"{incident.number} accepted messages could not be read",
        f"""\
They are in the queue alerts.intake.dead and have no row in the ledger.

since   {_utc(incident.since)}

To see why, open RabbitMQ's management UI, Queues, alerts.intake.dead, and get messages with
"requeue true": the header x-reason says it. Move them to alerts.intake once they can be read. Do
not purge the queue: these alerts were accepted and exist nowhere else. Where x-reason is "no row",
PostgreSQL has lost the alert: ask its sender to send it again, then remove that message.

Until they are gone, this check fails:
{_ADMIN} {url}/api/ledger/check
""",
    )


def _unanswered(_: str, __: OpenIncident | None, now: Now, url: str) -> tuple[str, str]:
    count, oldest = now.cases
    rows = "\n".join(
        f"{_utc(row.opened_at)}  {row.event_type}"
        f"{' (nobody is asked: case.timer_failed in the log of alerts)' * (row.failures > 1)}"
        f"\n    ostoja take {row.alert_id} --as NAME"
        for row in oldest
    )
    return (
        f"{count} {'alert' if count == 1 else 'alerts'} no one has answered",
        f"""\
Everyone whom the chain names was asked, and no one took it. The oldest first:

{rows}

List them all; the details of one show every step, and which failed:
{_ADMIN} '{url}/api/cases?state=unanswered'
""",
    )


def _rota(schedule: str, incident: OpenIncident, now: Now, url: str) -> tuple[str, str]:
    return (
        f"the rota {schedule} is not as its file says",
        f"""\
{now.rota_fault or "It can be read again by now."}

since   {_utc(incident.since)}

The last shifts that could be read still count; where there are none, the schedule's `otherwise` is
on call. Correct the file, it is read again within seconds. Who is on call now:
{_ADMIN} {url}/api/oncall
""",
    )


_INCIDENTS = {
    IncidentKind.BREAKER: _breaker,
    IncidentKind.PENDING: _pending,
    IncidentKind.IN_DOUBT: _in_doubt,
    IncidentKind.UNREAD: _unread,
    IncidentKind.UNANSWERED: _unanswered,
    IncidentKind.ROTA: _rota,
}


def _numbers(incident: OpenIncident, now: Now) -> str:
    minutes = f"{now.oldest_seconds / 60:.0f} min"
    return f"""\
since   {_utc(incident.since)}
now     {now.pending} pending, the oldest {minutes}; {now.failed} failed, {now.in_doubt} in doubt
error   {now.last_error or "none yet"}"""


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
