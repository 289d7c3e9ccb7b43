"""The inbox: a consumer that must act once records the message in the same transaction."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.queries import Queries

KEEP = timedelta(days=7)
_run = Queries(__file__)
_PURGE_BATCH = 10_000


async def first_time(tx: AsyncConnection, consumer: str, message_id: str) -> bool:
    """Record the message; return False if it was recorded before.

    Waits for a concurrent duplicate: False if that commits, True if it rolls back.
    """
    return (await _run(tx, "record", consumer=consumer, message_id=message_id)).rowcount == 1


async def purge(engine: AsyncEngine, keep: timedelta = KEEP) -> int:
    """Delete, in batches, what is older than any message in flight can be.

    :returns: how many were deleted
    """
    purged = 0
    while True:
        result = await _run.alone(engine, "purge", seconds=keep.total_seconds(), batch=_PURGE_BATCH)
        purged += result.rowcount
        if result.rowcount < _PURGE_BATCH:
            return purged
