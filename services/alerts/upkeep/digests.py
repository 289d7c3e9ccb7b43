"""Notifies operators by mail of what finally failed and of open incidents.

One mail per target and window, never one per alert. A digest is an alert like any other (event type
`escalation`, routed to mail), written into the ledger in the transaction that marks what it
reports. So it waits, is retried and survives a crash as they do. When it fails for good, all that
it reported is unsent again (`delivery.ending`), and due after a pause that grows with each failure.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from importlib.resources import files
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.process import logs
from libs.domain.acts import without_addresses
from services.alerts import metrics
from services.alerts.intake import Intake
from services.alerts.messages import ESCALATION, AlertAccepted, may_be_silenced
from services.alerts.rules.delivery import Reason
from services.alerts.store import incidents
from services.alerts.store.cases import cases
from services.alerts.store.cases.cases import CASES
from services.alerts.store.incidents import IncidentKind, OpenIncident, Pace, Unhealthy
from services.alerts.store.ledger import escalations, gaps, queries
from services.alerts.store.ledger.escalations import Unsent
from services.alerts.upkeep.reconcile import Reconciler

log = logs.get_logger(__name__)

LISTED = 20
"""Cases that a mail lists."""
MOST_LINE = 90
INTAKE = "intake"  # stands for the target of messages that could not become rows
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
    by: Sequence[str]  # targets; empty: mail, then others that people read
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

    async def run_at_once(self) -> None:
        """Send what does not wait for the next window: that a target refuses us."""
        async with self.engine.connect() as tx:
            targets = await incidents.targets_due(tx, self.pace)
            numbers = await queries.stats(tx) if targets else {}
        for target in targets:
            await self._send(target, numbers.get(target, {}), self.pace)

    async def _observe(self) -> dict[str, dict[str, Any]]:
        unread = await self.reconciler.unread()
        async with self.engine.begin() as tx:
            numbers = await queries.stats(tx)
            pending = {
                name: each["pending"]
                for name, each in numbers.items()
                if each["pending"] > self.pending
            }
            in_doubt = {name: each["in_doubt"] for name, each in numbers.items()}
            unanswered, _ = await cases.unanswered(tx, 0)
            await incidents.observe(tx, IncidentKind.UNANSWERED, {CASES: unanswered})
            await incidents.observe(tx, IncidentKind.ROTA, dict.fromkeys(self.rota_faults(), 1))
            await incidents.observe(tx, IncidentKind.PENDING, pending)
            await incidents.observe(tx, IncidentKind.IN_DOUBT, in_doubt)
            if unread is not None:  # while it is unknown, the last observation still counts
                missing = sum(each["count"] for each in await gaps.found(tx))
                lost = {INTAKE: unread, MISSING: missing}
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
                settings=self.reconciler.config.settings.get(target, ()),
            )
            if target == CASES:
                now = Now(cases=await cases.unanswered(tx, LISTED))
            subject, text = compose(target, unsent, open_incidents, now, self.base_url)
            other = self._way(await incidents.unhealthy(tx))
            if other is not None and self.reconciler.config.targets[other].channel == "sms":
                text = subject
            accepted = AlertAccepted(
                id=digest,
                event_type=ESCALATION,
                target=other,
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

    def _way(self, unhealthy: Mapping[str, Unhealthy]) -> str | None:
        """Return the first target that is well; None: by mail, as `escalation` is routed.

        Mail is not well if all of its targets refuse us, or nothing has got through for as long as
        on-call is told of.
        """
        config, now = self.reconciler.config, datetime.now(UTC)
        mail = config.route(ESCALATION, None)
        after = timedelta(seconds=self.pace.after)
        broken = {
            name for name, each in unhealthy.items()
            if each.refuses or (each.shut and now - each.since >= after)
        }  # fmt: skip
        shut = {name for name, each in unhealthy.items() if each.shut}
        read = (name for name, each in config.targets.items() if each.read_by_people)
        for name in self.by or (*mail, *read):
            if name not in broken and (name in mail or name not in shut):
                return None if name in mail else name
        return None


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
    """How many are unanswered, and the oldest of them."""
    settings: Sequence[str] = ()
    """The target's options that it may object to."""


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
    known = {"target": target, "url": base_url, "admin": _ADMIN, "post": _POST}
    if target == CASES:  # its escalations and its incident say the same
        parts = [_part(IncidentKind.UNANSWERED, **known, **_cases(*now.cases))]
    else:
        parts = [_part("failures", **known, **_failures(unsent))] if unsent is not None else []
        parts += [
            _part(_name(target, each), **known, **(_cases(*now.cases) | _numbers(each, now)))
            for each in open_incidents
        ]
    rest = f", and {len(parts) - 1} more" if len(parts) > 1 else ""
    return (
        f"Ostoja: {parts[0][0]}{rest}",
        "\n\n".join(f"{heading[0].upper()}{heading[1:]}.\n\n{body}" for heading, body in parts),
    )


_ADMIN = 'curl -H "X-ADMIN-API-KEY: $ADMIN_API_KEY"'
_POST = f'{_ADMIN} -H "Content-Type: application/json"'
_TEXTS = tomllib.loads(files(__package__).joinpath("digests.toml").read_text(encoding="utf-8"))


def _part(name: str, **values: Any) -> tuple[str, str]:
    return _TEXTS[name]["heading"].format(**values), _TEXTS[name]["text"].format(**values)


def _name(target: str, incident: OpenIncident) -> str:
    if incident.kind is IncidentKind.BREAKER and incident.number:
        return "refuses"
    return target if target == MISSING else incident.kind


def _failures(unsent: Unsent) -> dict[str, Any]:
    return {
        "n": unsent.count,
        "reasons": ", ".join(f"{reason} {n}" for reason, n in sorted(unsent.reasons.items())),
        "first": f"{_utc(unsent.first_at)}  {unsent.first_error}",
        "last": f"{_utc(unsent.last_at)}  {unsent.last_error}",
        "alerts": "\n".join(
            f"        {row['id']}  {_said(row['event_type'], row['said'])}" for row in unsent.alerts
        ),
        "cancelled": _TEXTS["cancelled"] if Reason.NO_PERMIT in unsent.reasons else "",
    }


def _said(event_type: str, said: str | None) -> str:
    """Return an alert's first line, without contacts; of people and mails to them only the type."""
    first = "".join((said or "").strip().splitlines()[:1])
    if not first or not may_be_silenced(event_type):
        return event_type
    return f"{event_type}: {without_addresses(first)}"[:MOST_LINE]


def _cases(count: int, oldest: Sequence[Any]) -> dict[str, Any]:
    rows = (
        f"{_utc(row.opened_at)}  {_said(row.event_type, row.said)}"
        f"{' (nobody is asked: case.timer_failed in the log of alerts)' * (row.failures > 1)}"
        f"\n    ostoja take {row.alert_id} --as NAME"
        for row in oldest
    )
    return {"n": count, "alerts": "alert" if count == 1 else "alerts", "oldest": "\n".join(rows)}


def _numbers(incident: OpenIncident, now: Now) -> dict[str, Any]:
    since, minutes = _utc(incident.since), f"{now.oldest_seconds / 60:.0f} min"
    return {
        "n": incident.number,
        "since": since,
        "numbers": f"""\
since   {since}
now     {now.pending} pending, the oldest {minutes}; {now.failed} failed, {now.in_doubt} in doubt
error   {now.last_error or "none yet"}""",
        "settings": ", ".join(now.settings) or "its settings",
        "fault": now.rota_fault or "It can be read again by now.",
    }


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
