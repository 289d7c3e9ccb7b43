"""The inbox: a consumer that must act once records the message in the same transaction."""

from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.statement import Statement

KEEP = timedelta(days=7)
_RECORD = Statement(
    "INSERT INTO inbox (consumer, message_id) VALUES (:consumer, :message_id) "
    "ON CONFLICT DO NOTHING"
)
_PURGE_BATCH = 10_000

_SQL = """
CREATE TABLE inbox (
    consumer text NOT NULL,
    message_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id)
);
CREATE INDEX inbox_received_at ON inbox (received_at);
"""


def upgrade(op: Any) -> None:
    """Create the table, in a migration."""
    op.execute(_SQL)


async def first_time(tx: AsyncConnection, consumer: str, message_id: str) -> bool:
    """Record the message; return False if it was recorded before.

    Waits for a concurrent duplicate: False if that commits, True if it rolls back.
    """
    given = {"consumer": consumer, "message_id": message_id}
    return (await _RECORD.execute(tx, given)).rowcount == 1


async def purge(engine: AsyncEngine, keep: timedelta = KEEP) -> int:
    """Delete, in batches, what is older than any message in flight can be.

    :returns: how many were deleted
    """
    purged = 0
    while True:
        async with engine.begin() as tx:
            result = await tx.execute(
                text(
                    "DELETE FROM inbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM inbox "
                    "WHERE received_at < now() - make_interval(secs => :seconds) LIMIT :batch))"
                ),
                {"seconds": keep.total_seconds(), "batch": _PURGE_BATCH},
            )
        purged += result.rowcount
        if result.rowcount < _PURGE_BATCH:
            return purged
