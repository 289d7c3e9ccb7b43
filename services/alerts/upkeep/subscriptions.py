"""What subscriptions need over time: retries, replays, warnings to their owners."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import beside
from libs.common.process.logs import log
from services.alerts.delivery.events import order, row_of
from services.alerts.intake import Intake
from services.alerts.messages import ESCALATION, STAFF_MAIL, AlertAccepted
from services.alerts.store import subscriptions
from services.alerts.store.ledger import upkeep
from services.alerts.store.subscriptions import BATCH, run, target_of

REPLAYED: Final = 100
"""Events of one step: so many a new event waits for at most."""
PAUSED: Final = 5
_TEXTS: Final = beside.toml(__file__)


@dataclass(eq=False)
class SubscriptionUpkeep:
    engine: AsyncEngine
    intake: Intake
    known: Collection[str]
    """The targets of this process."""
    on_call: str  # e-mail address

    async def send_on(self) -> None:
        """Give what is due a message; then a step of each replay, if nothing is due."""
        names = [name for name in self.known if subscriptions.is_one(name)]
        released = BATCH
        while released == BATCH:
            async with self.engine.begin() as tx:
                due = await run(tx, "due", targets=names, limit=BATCH)
                await upkeep.requeue(tx, due, how="try_again")
            released = len(due)
        async with self.engine.begin() as tx:
            for row in await run(tx, "replays"):
                await _replay(tx, row)

    async def look_after(self) -> None:
        """Pause what has failed for too long, and tell the owners."""
        async with self.engine.begin() as tx:
            await run(tx, "fail")
            for row in await run(tx, "to_tell"):
                await self.intake.accept(tx, list(_told(row, self.on_call)), None)
                log.warning("subscription.told", id=str(row.id), days=row.told, paused=row.paused)


async def _replay(tx: AsyncConnection, row: Any) -> None:
    """Order the next events of a replay, under their own ids."""
    target, asked = target_of(row.id), row.replay
    times = {name: datetime.fromisoformat(asked[name]) for name in ("since", "until")}
    found = await run(tx, "to_replay", target=target, **{**asked, **times}, limit=REPLAYED)
    new = [each for each in found if each.state is None]
    rows = [
        row_of(row, each.id, each.type, each.data, each.at, each.named, replayed=True)
        for each in new
    ]
    await order(tx, rows)
    old = [each.id for each in found if each.state is not None]
    again = await run(tx, "again", ids=old, target=target)
    await upkeep.requeue(tx, again, **upkeep.RESET | {"keep_error": False})
    left = {**asked, "after": found[-1].number} if len(found) == REPLAYED else None
    await run(tx, "order_replay", id=row.id, replay=left)


def _told(row: Any, on_call: str) -> list[AlertAccepted]:
    """Make the mails to the owner and to on-call."""
    about = {"id": row.id, "url": row.url, "days": row.told, "name": row.description or row.url}
    text = _TEXTS["paused" if row.told == PAUSED else "failing"]
    about["why"] = _TEXTS["why"].get(row.paused, "")
    said = {name: text[name].strip().format_map(about) for name in ("subject", "text")}
    return [
        AlertAccepted(
            id=uuid4(),
            event_type=event_type,
            payload={"to": to, **said},
            severity="warning",
            source="alerts",
            accepted_at=datetime.now(UTC),
        )
        for event_type, to in ((STAFF_MAIL, row.owner_email), (ESCALATION, on_call))
    ]
