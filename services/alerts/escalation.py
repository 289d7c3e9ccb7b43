"""Tells a person of what finally failed: one mail per target and window, never one per alert.

A digest is an alert like any other (event type `escalation`, routed to mail), written into the
ledger in the transaction that marks what it tells of. So it waits, is tried again and survives a
crash as they do; when it fails for good, what it told of is untold again, and the next window
tells it (`delivery.tell`).
"""

from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import logs
from services.alerts.consumers import Intake
from services.alerts.messages import ESCALATION, AlertAccepted
from services.alerts.store import escalations
from services.alerts.store.escalations import Untold

log = logs.get_logger(__name__)


class Escalation:
    def __init__(self, engine: AsyncEngine, intake: Intake, *, to: str, base_url: str) -> None:
        self._engine = engine
        self._intake = intake
        self._to = to
        self._base_url = base_url.rstrip("/")

    async def run(self) -> None:
        async with self._engine.connect() as tx:
            targets = await escalations.targets_untold(tx)
        for target in targets:
            await self._tell(target)

    async def _tell(self, target: str) -> None:
        digest = uuid4()
        async with self._engine.begin() as tx:
            untold = await escalations.tell_of(tx, target, digest)
            if untold is None:  # another replica was faster
                return
            accepted = AlertAccepted(
                id=digest,
                event_type=ESCALATION,
                payload={
                    "to": self._to,
                    "subject": f"Ostoja: {untold.count} for {target} did not arrive",
                    "text": text(target, untold, self._base_url),
                },
                severity="critical",
                source="alerts",
                accepted_at=datetime.now(UTC),
            )
            await self._intake.accept(tx, [accepted], None)
        log.warning("escalation.told", target=target, count=untold.count, digest=str(digest))


def text(target: str, untold: Untold, base_url: str) -> str:
    """Write the mail: what, since when, why, and the commands to act."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(untold.reasons.items()))
    admin = 'curl -H "X-ADMIN-API-KEY: $ADMIN_API_KEY"'
    post = f'{admin} -H "Content-Type: application/json"'
    return f"""\
{untold.count} for {target} did not arrive, or nobody can say whether they did.

why     {reasons}
first   {untold.first_at:%Y-%m-%d %H:%M:%S} UTC  {untold.first_error}
last    {untold.last_at:%Y-%m-%d %H:%M:%S} UTC  {untold.last_error}

See which (in doubt: sent, perhaps; only you can find out, then resolve it):
{admin} '{base_url}/api/dlq/failed?target={target}'
{admin} '{base_url}/api/dlq/in-doubt?target={target}'

When the cause is mended, hand them out again:
{post} -d '{{"target": "{target}", "status": "failed"}}' {base_url}/api/dlq/retry

Or give them up, with the reason on record:
{post} -d '{{"ids": ["…"], "reason": "…"}}' {base_url}/api/dlq/discard
"""
