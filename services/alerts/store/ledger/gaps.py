"""Which running numbers of each gateway process came to intake, and which never did."""

import json
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.messages import AlertAccepted

run = Queries(__file__)

GAP_SECONDS: Final = 600.0
"""Longer than a message stays outside any queue: in a process, or on the gateway's other route."""


async def note(tx: AsyncConnection, alerts: Iterable[AlertAccepted]) -> None:
    """Note what came; locks the rows of its senders, last of all."""
    rows = [
        {"sender": given.sender, "first": first, "last": last, "at": alert.accepted_at}
        for alert in alerts
        if (given := alert.numbered) is not None
        for first, last in [(given.number, given.number), *given.unused]
    ]
    if rows:
        await run(tx, "note", rows=json.dumps(rows, default=str))


async def judge(tx: AsyncConnection, seconds: float = GAP_SECONDS) -> None:
    """Count older gaps as missing; call it while intake's queues are empty."""
    await run(tx, "judge", seconds=seconds)
    await run(tx, "forget")


async def found(tx: AsyncConnection) -> list[dict[str, Any]]:
    """Return what is missing from each sender: the first ranges of numbers, and how many in all."""
    return [
        {
            "sender": row.sender,
            "numbers": row.found,
            "count": int(row.lost),
            "since": row.missed_at.isoformat(),
        }
        for row in await run(tx, "gaps")
    ]
