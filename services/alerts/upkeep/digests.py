"""Notifies operators by mail of what finally failed and of open incidents.

One mail per target and window, never one per alert. A digest is an alert like any other (event type
`escalation`, routed to mail), written into the ledger in the transaction that marks what it
reports. So it waits, is retried and survives a crash as they do. When it fails for good, all that
it reported is unsent again (`delivery.ending`), and due after a pause that grows with each failure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jinja2
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import beside
from libs.common.process.logs import log
from libs.domain.acts import without_addresses
from services.alerts import metrics
from services.alerts.intake import Intake
from services.alerts.messages import ESCALATION, AlertAccepted, may_be_silenced
from services.alerts.store import incidents
from services.alerts.store.cases import cases
from services.alerts.store.cases.cases import CASES
from services.alerts.store.incidents import IncidentKind, Pace
from services.alerts.store.ledger import gaps, queries
from services.alerts.upkeep.reconcile import Reconciler

LISTED = 20
"""Cases that a mail lists."""
MOST_LINE = 90
INTAKE = "intake"  # stands for the target of messages that could not become rows
MISSING = "missing"  # and this for that of alerts that never came


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
            failing = await incidents.run(tx, "failures_due", pause=pace.pause)
            targets = await incidents.run(tx, "incidents_due", **asdict(pace))
        for target in sorted({*failing.scalars(), *targets.scalars()}):
            await self._send(target, numbers.get(target, {}), pace)

    async def run_at_once(self) -> None:
        """Send what does not wait for the next window: that a target refuses us."""
        async with self.engine.connect() as tx:
            targets = await incidents.run(tx, "incidents_due", **asdict(self.pace))
            numbers = await queries.stats(tx) if targets else {}
        for target in targets.scalars():
            await self._send(target, numbers.get(target, {}), self.pace)

    async def _observe(self) -> dict[str, dict[str, Any]]:
        unread = await self.reconciler.unread()
        async with self.engine.begin() as tx:
            numbers = await queries.stats(tx)
            pending = {name: each["pending"] for name, each in numbers.items()}
            seen = {
                IncidentKind.UNANSWERED: {CASES: (await cases.unanswered(tx, 0))[0]},
                IncidentKind.ROTA: dict.fromkeys(self.rota_faults(), 1),
                IncidentKind.PENDING: {k: n for k, n in pending.items() if n > self.pending},
                IncidentKind.IN_DOUBT: {name: each["in_doubt"] for name, each in numbers.items()},
            }
            if unread is not None:  # while it is unknown, the last observation still counts
                missing = sum(each["count"] for each in await gaps.found(tx))
                seen[IncidentKind.UNREAD] = {INTAKE: unread, MISSING: missing}
            for kind, found in seen.items():
                await incidents.run(tx, "observe", kind=kind, numbers=found)
        return numbers

    async def _send(self, target: str, numbers: Mapping[str, Any], pace: Pace) -> None:
        digest = uuid4()
        async with self.engine.begin() as tx:
            mine = {"target": target, "digest": digest}
            unsent = (await incidents.run(tx, "take_failures", **mine)).one()
            open_incidents = await incidents.run(tx, "take_incidents", **mine, **asdict(pace))
            if not unsent.count and not open_incidents:  # another replica was faster
                return
            error = await incidents.run(tx, "last_error", target=target)
            now = {
                **numbers,
                "last_error": error.scalar(),
                "rota_fault": self.rota_faults().get(target),
                "settings": self.reconciler.config.settings.get(target, ()),
            }
            if target == CASES:
                now["unanswered"], now["cases"] = await cases.unanswered(tx, LISTED)
            subject, text = compose(target, unsent, open_incidents, now, self.base_url)
            other = self._way(await incidents.run(tx, "unhealthy"))
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
        if unsent.count:
            metrics.DIGESTS.labels("failures").inc()
        if open_incidents:
            metrics.DIGESTS.labels("incidents").inc()
        log.warning(
            "digest.sent",
            target=target,
            failures=unsent.count,
            incidents=[each.kind for each in open_incidents],
            digest=str(digest),
        )

    def _way(self, unhealthy: Sequence[Any]) -> str | None:
        """Return the first target that is well; None: by mail, as `escalation` is routed.

        Mail is not well if all of its targets refuse us, or nothing has got through for as long as
        on-call is told of.
        """
        config, now = self.reconciler.config, datetime.now(UTC)
        mail = config.route(ESCALATION, None)
        after = timedelta(seconds=self.pace.after)
        broken = {
            each.target for each in unhealthy
            if each.refuses or (each.shut and now - each.since >= after)
        }  # fmt: skip
        shut = {each.target for each in unhealthy if each.shut}
        read = (name for name, each in config.targets.items() if each.read_by_people)
        for name in self.by or (*mail, *read):
            if name not in broken and (name in mail or name not in shut):
                return None if name in mail else name
        return None


def compose(
    target: str,
    unsent: Any,
    open_incidents: Iterable[Any],
    now: Mapping[str, Any],
    base_url: str,
) -> tuple[str, str]:
    """Write the mail for an operator who was asleep: what, since when, numbers, the commands.

    :param now: the target's numbers when it is written
    :returns: subject and text
    """
    about = {"target": target, "unsent": unsent, "now": now, "url": base_url}
    if target == CASES:  # its escalations and its incident say the same
        parts: list[tuple[str, Any]] = [(IncidentKind.UNANSWERED, None)]
    else:
        parts = [("failures", None)] if unsent.count else []
        parts += [(_name(target, each), each) for each in open_incidents]
    texts = [
        [
            _JINJA.get_template(f"{name}.{part}").render(about, incident=incident)
            for name, incident in parts
        ]
        for part in ("heading", "text")
    ]
    rest = f", and {len(parts) - 1} more" if len(parts) > 1 else ""
    return (
        f"Ostoja: {texts[0][0]}{rest}",
        "\n\n".join(
            f"{head[0].upper()}{head[1:]}.\n\n{body}" for head, body in zip(*texts, strict=True)
        ),
    )


def _name(target: str, incident: Any) -> str:
    if incident.kind == IncidentKind.BREAKER and incident.number:
        return "refuses"
    return target if target == MISSING else incident.kind


def _said(event_type: str, said: str | None) -> str:
    """Return an alert's first line, without contacts; of people and mails to them only the type."""
    first = "".join((said or "").strip().splitlines()[:1])
    if not first or not may_be_silenced(event_type):
        return event_type
    return f"{event_type}: {without_addresses(first)}"[:MOST_LINE]


_TEXTS = {
    f"{name}.{part}": text
    for name, parts in beside.toml(__file__).items()
    for part, text in parts.items()
}
_JINJA = jinja2.Environment(  # noqa: S701 - it makes no page
    loader=jinja2.DictLoader(_TEXTS), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)
_JINJA.filters |= {"said": _said, "utc": lambda at: f"{at:%Y-%m-%d %H:%M:%S} UTC"}
_ADMIN = 'curl -H "X-ADMIN-API-KEY: $ADMIN_API_KEY"'
_JINJA.globals |= {"admin": _ADMIN, "post": f'{_ADMIN} -H "Content-Type: application/json"'}
