"""Jobs and event types that are missed when none comes in time, and the pings of jobs.

A row is locked before any case. Its lock orders a ping, a sign and the timer (protocol D).
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.messages import HeartbeatPing
from services.alerts.store.tables import heartbeat_watch, names

PINGS_KEPT: Final = 100
"""Of each heartbeat, at most."""

run = Queries(__file__, columns=names(heartbeat_watch), kept=PINGS_KEPT)


async def change(tx: AsyncConnection, heartbeat_id: UUID, values: Mapping[str, Any]) -> Any:
    """Return the changed row."""
    mine = heartbeat_watch.c.id == heartbeat_id
    changed = sa.update(heartbeat_watch).where(mine).values(values).returning(heartbeat_watch)
    return (await tx.execute(changed)).one()


async def log(tx: AsyncConnection, ping: HeartbeatPing) -> bool:
    """Keep a ping of a locked heartbeat, and as many before it; False: it is kept already."""
    values = ping.model_dump(exclude={"url_version"}) | {"kind": str(ping.kind)}
    if not (await run(tx, "log", **values)).rowcount:
        return False
    await run(tx, "forget_older", heartbeat=ping.heartbeat)
    return True


async def add(tx: AsyncConnection, values: Mapping[str, Any], most: int) -> Any | None:
    """Return the new row; None: there are `most` already. Two at once may be one more."""
    if (await run(tx, "count")).scalar_one() >= most:
        return None
    new = sa.insert(heartbeat_watch).values(values).returning(heartbeat_watch)
    return (await tx.execute(new)).one()
