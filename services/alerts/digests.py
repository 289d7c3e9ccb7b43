"""Tells a person what needs one: what finally failed, and what stands in trouble.

One mail per target and window, never one per alert. A digest is an alert like any other (event
type `escalation`, routed to mail), written into the ledger in the transaction that marks what it
tells of. So it waits, is tried again and survives a crash as they do; when it fails for good, what
it told of is untold again (`delivery.tell`), and told after a pause that grows with each failure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum, auto
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import logs
from libs.common.broker import BrokerUnavailable
from services.alerts import metrics
from services.alerts.alert import Reason
from services.alerts.consumers import Intake
from services.alerts.messages import ESCALATION, AlertAccepted
from services.alerts.store import escalations, questions, troubles
from services.alerts.store.escalations import Untold
from services.alerts.store.troubles import Pace, Standing, Trouble
from services.alerts.sweep import Sweep

log = logs.get_logger(__name__)

INTAKE = "intake"  # stands for the target of what no row could be made of


class Part(StrEnum):
    """What a digest tells of; a metric's label."""

    FAILURES = auto()
    TROUBLE = auto()


class Digests:
    """Run by one replica at a time; a second would find that all is told.

    The first time without a pause: a person who corrects the address starts the process anew.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        intake: Intake,
        sweep: Sweep,
        *,
        to: str,
        base_url: str,
        pending: int,
        pace: Pace,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._sweep = sweep
        self._to = to
        self._base_url = base_url.rstrip("/")
        self._pending = pending
        self._later = pace
        self._pace = replace(pace, pause=0.0)

    async def run(self) -> None:
        numbers = await self._observe()
        async with self._engine.connect() as tx:
            targets = {
                *await escalations.targets_untold(tx, self._pace.pause),
                *await troubles.targets_due(tx, self._pace),
            }
        for target in sorted(targets):
            await self._tell(target, numbers.get(target, {}))
        self._pace = self._later

    async def _observe(self) -> dict[str, dict[str, Any]]:
        try:
            unread = await self._sweep.unread()
        except BrokerUnavailable:  # what was seen last still holds
            unread = None
        async with self._engine.begin() as tx:
            numbers = await questions.stats(tx)
            pending = {
                name: each["pending"]
                for name, each in numbers.items()
                if each["pending"] > self._pending
            }
            in_doubt = {
                name: each["in_doubt"] for name, each in numbers.items() if each["in_doubt"]
            }
            await troubles.observe(tx, Trouble.PENDING, pending)
            await troubles.observe(tx, Trouble.IN_DOUBT, in_doubt)
            if unread is not None:
                await troubles.observe(tx, Trouble.UNREAD, {INTAKE: unread} if unread else {})
        return numbers

    async def _tell(self, target: str, numbers: Mapping[str, Any]) -> None:
        digest = uuid4()
        async with self._engine.begin() as tx:
            untold = await escalations.tell_of(tx, target, digest)
            standing = await troubles.tell_of(tx, target, digest, self._pace)
            if untold is None and not standing:  # another replica was faster
                return
            now = Now(
                numbers.get("pending", 0),
                numbers.get("oldest_pending_seconds") or 0.0,
                numbers.get("failed", 0),
                numbers.get("in_doubt", 0),
                await troubles.last_error(tx, target) if standing else None,
            )
            subject, text = compose(target, untold, standing, now, self._base_url)
            accepted = AlertAccepted(
                id=digest,
                event_type=ESCALATION,
                payload={"to": self._to, "subject": subject, "text": text},
                severity="critical",
                source="alerts",
                accepted_at=datetime.now(UTC),
            )
            await self._intake.accept(tx, [accepted], None)
        if untold is not None:
            metrics.DIGESTS.labels(Part.FAILURES).inc()
        if standing:
            metrics.DIGESTS.labels(Part.TROUBLE).inc()
        log.warning(
            "digest.told",
            target=target,
            failures=untold.count if untold else 0,
            trouble=[each.kind for each in standing],
            digest=str(digest),
        )


@dataclass(frozen=True, slots=True)
class Now:
    """A target's numbers as the mail is written."""

    pending: int = 0
    oldest_seconds: float = 0.0
    failed: int = 0
    in_doubt: int = 0
    last_error: str | None = None


def compose(
    target: str, untold: Untold | None, standing: Iterable[Standing], now: Now, base_url: str
) -> tuple[str, str]:
    """Write the mail, for somebody who was asleep: what, since when, numbers, the commands.

    :returns: subject and text
    """
    parts = [_failures(target, untold, base_url)] if untold is not None else []
    parts += [_TROUBLES[each.kind](target, each, now, base_url) for each in standing]
    rest = f", and {len(parts) - 1} more" if len(parts) > 1 else ""
    return (
        f"Ostoja: {parts[0][0]}{rest}",
        "\n\n".join(f"{heading[0].upper()}{heading[1:]}.\n\n{body}" for heading, body in parts),
    )


_ADMIN = 'curl -H "X-ADMIN-API-KEY: $ADMIN_API_KEY"'
_POST = f'{_ADMIN} -H "Content-Type: application/json"'


_CANCELLED = """
no_permit: the service consent did not answer for so long that these mails were cancelled. They are
in neither list; the log of alerts names them (delivery.cancelled). See that consent runs.
"""


def _failures(target: str, untold: Untold, url: str) -> tuple[str, str]:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(untold.reasons.items()))
    cancelled = _CANCELLED if Reason.NO_PERMIT in untold.reasons else ""
    return (
        f"{untold.count} for {target} did not arrive",
        f"""\
They failed for good, or nobody can say whether they arrived.

why     {reasons}
first   {_utc(untold.first_at)}  {untold.first_error}
last    {_utc(untold.last_at)}  {untold.last_error}
{cancelled}
See which (in doubt: sent, perhaps; only you can find out, then resolve it):
{_ADMIN} '{url}/api/dlq/failed?target={target}'
{_ADMIN} '{url}/api/dlq/in-doubt?target={target}'

When the cause is mended, hand them out again:
{_POST} -d '{{"target": "{target}", "status": "failed"}}' {url}/api/dlq/retry

Or give them up, with the reason on record:
{_POST} -d '{{"ids": ["…"], "reason": "…"}}' {url}/api/dlq/discard
""",
    )


def _breaker(target: str, standing: Standing, now: Now, url: str) -> tuple[str, str]:
    return (
        f"nothing gets through to {target}",
        f"""\
Its breaker has opened, and no alert has arrived since. They wait, and none is lost: what waits
longer than the target's max_age fails, and you are told.

{_numbers(standing, now)}

Look at the state, and at what waits:
{_ADMIN} {url}/api/breakers
{_ADMIN} '{url}/api/dlq/pending?target={target}'

Once {target} is mended, the next trial finds out by itself. To have it at once:
{_POST} -X POST {url}/api/breakers/{target}/reset
""",
    )


def _pending(target: str, standing: Standing, now: Now, url: str) -> tuple[str, str]:
    return (
        f"{standing.number} wait for {target}",
        f"""\
That is more than usual, and has been for long. They go on being tried.

{_numbers(standing, now)}

Look at the numbers, the breaker (open, or paused by the target's own answer), and what waits:
{_ADMIN} {url}/api/dlq/stats
{_ADMIN} {url}/api/breakers
{_ADMIN} '{url}/api/dlq/pending?target={target}'
""",
    )


def _in_doubt(target: str, standing: Standing, _: Now, url: str) -> tuple[str, str]:
    return (
        f"{standing.number} for {target} in doubt",
        f"""\
Sent, perhaps: the process or the connection died at the last byte. They are never sent again by
themselves. Only you can find out, from the log of the mail server or from the person.

since   {_utc(standing.since)}

See which:
{_ADMIN} '{url}/api/dlq/in-doubt?target={target}'

Say what became of each (delivered, resend or discarded):
{_POST} -d '{{"id": "…", "outcome": "delivered", "reason": "…"}}' {url}/api/dlq/resolve
""",
    )


def _unread(_: str, standing: Standing, __: Now, url: str) -> tuple[str, str]:
    return (
        f"accepted, but not to be read: {standing.number}",
        f"""\
They lie in the queue alerts.intake.dead, and no row of the ledger counts them.

since   {_utc(standing.since)}

See why: RabbitMQ's management UI, Queues, alerts.intake.dead, Get messages with "requeue true"; the
header x-reason tells. Move them to alerts.intake once they can be read, or purge the queue.

As long as they lie there, this check is not ok:
{_ADMIN} {url}/api/ledger/check
""",
    )


_TROUBLES = {
    Trouble.BREAKER: _breaker,
    Trouble.PENDING: _pending,
    Trouble.IN_DOUBT: _in_doubt,
    Trouble.UNREAD: _unread,
}


def _numbers(standing: Standing, now: Now) -> str:
    minutes = f"{now.oldest_seconds / 60:.0f} min"
    return f"""\
since   {_utc(standing.since)}
now     {now.pending} wait, the oldest for {minutes}; {now.failed} failed, {now.in_doubt} in doubt
error   {now.last_error or "none yet"}"""


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
