"""What has had its time, and what the metrics ask."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

PERMITS_KEPT_DAYS: Final = 30
"""A request lives seconds in the broker and an alert three days: no tombstone is missed."""

_PURGE = (
    sa.text(f"""
    DELETE FROM permit WHERE (message, attempt) IN (
        SELECT message, attempt FROM permit
        WHERE coalesce(granted_at, returned_at) < now() - interval '{PERMITS_KEPT_DAYS} days'
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
    sa.text("""
    DELETE FROM suppression WHERE (address_hash, purpose) IN (
        SELECT address_hash, purpose FROM suppression WHERE keep_until < now()
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
    # Its hash of the address serves no purpose beyond the suppression's.
    sa.text("""
    DELETE FROM erasure WHERE id IN (
        SELECT id FROM erasure WHERE finished_at < now() - make_interval(days => :days)
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
    # Longer than the longest a link may be good for.
    sa.text("""
    DELETE FROM opt_in WHERE id IN (
        SELECT id FROM opt_in WHERE asked_at < now() - interval '31 days'
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
    sa.text("""
    DELETE FROM link_mail WHERE (address_hash, kind) IN (
        SELECT address_hash, kind FROM link_mail WHERE last_at < now() - interval '1 day'
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
)


async def purge(tx: AsyncConnection, erasures_kept_days: int, batch: int = 1_000) -> int:
    """Delete some of what has had its time; 0 when none is."""
    values = {"batch": batch, "days": erasures_kept_days}
    deleted = [await tx.execute(statement, values) for statement in _PURGE]
    return sum(result.rowcount for result in deleted)


async def outbox_length(tx: AsyncConnection) -> int:
    return int(await tx.scalar(sa.text("SELECT count(*) FROM outbox")) or 0)


async def idle(tx: AsyncConnection) -> None:
    """Ask nothing: the round trip that another answer to the same request would have taken."""
    await tx.execute(sa.text("SELECT 1"))
