"""What was acted on already, recorded in the transaction that acts."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

KEEP_DAYS = 30
_BATCH = 10_000

_metadata = sa.MetaData()


def table(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "inbox",
        metadata,
        sa.Column("consumer", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
        sa.Index("inbox_received_at", "received_at"),
    )


_inbox = table(_metadata)


def upgrade(op: Any) -> None:
    """Create the table; for a service's first migration."""
    op.execute("""
        CREATE TABLE inbox (
            consumer text NOT NULL,
            message_id text NOT NULL,
            received_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (consumer, message_id)
        )
    """)
    op.execute("CREATE INDEX inbox_received_at ON inbox (received_at)")


async def first_time(tx: AsyncConnection, consumer: str, message_id: str) -> bool:
    """Record the message; False means that it was acted on already.

    A twin under way in another transaction is waited for: it commits, and this is the second
    time; or it rolls back, and this is the first.
    """
    statement = (
        insert(_inbox)
        .values(consumer=consumer, message_id=message_id)
        .on_conflict_do_nothing()
        .returning(_inbox.c.message_id)
    )
    return (await tx.execute(statement)).first() is not None


async def purge(engine: AsyncEngine) -> None:
    """Forget, in batches, what is older than any copy still under way could be."""
    old = (
        sa.select(_inbox.c.consumer, _inbox.c.message_id)
        .where(_inbox.c.received_at < sa.func.now() - sa.text(f"interval '{KEEP_DAYS} days'"))
        .limit(_BATCH)
    )
    statement = sa.delete(_inbox).where(sa.tuple_(_inbox.c.consumer, _inbox.c.message_id).in_(old))
    while True:
        async with engine.begin() as tx:
            if (await tx.execute(statement)).rowcount < _BATCH:
                return
