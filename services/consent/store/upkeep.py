"""Deletes rows past their retention; counts for the metrics."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.statement import Statement
from services.consent.store.sql import sql

PERMITS_KEPT_DAYS: Final = 30
"""A request lives seconds in the broker and an alert three days: no tombstone is missed."""


def _delete(table: str, key: str, condition: str) -> Statement:
    return sql(f"""
        DELETE FROM {table} WHERE ({key}) IN (
            SELECT {key} FROM {table} WHERE {condition} LIMIT :batch FOR UPDATE SKIP LOCKED
        )
    """)


def _older(column: str, days: str) -> str:
    return f"{column} < now() - make_interval(days => {days})"


_PURGE = (
    _delete(
        "permit",
        "message, attempt",
        _older("coalesce(granted_at, returned_at)", str(PERMITS_KEPT_DAYS)),
    ),
    _delete("suppression", "suppression_hash, purpose", "keep_until < now()"),
    # Its hash of the address has no use beyond the suppression's.
    _delete("erasure", "id", _older("finished_at", ":days")),
    # It was never confirmed, and its link expired long ago.
    _delete(
        "erasure",
        "id",
        "status = 'awaiting_confirmation' AND " + _older("requested_at", ":unconfirmed_days"),
    ),
    # Longer than the longest validity of a link.
    _delete("opt_in", "id", _older("asked_at", "31")),
    _delete("link_mail", "suppression_hash, kind", _older("last_at", "1")),
    # The trail keeps their hashes and still verifies. The role may not update, so it cannot lock.
    sql(f"""
        DELETE FROM trail_origin WHERE hash IN (
            SELECT hash FROM trail_origin WHERE {_older("written_at", ":origin_days")} LIMIT :batch
        )
    """),
)


@dataclass(frozen=True, slots=True)
class Retention:
    """In days; see settings.py for the reasons."""

    suppressions: int
    unconfirmed_erasures: int
    proofs: int
    withdrawals: int
    origins: int


async def purge(tx: AsyncConnection, retention: Retention, batch: int = 1_000) -> int:
    """Delete a batch of rows past their retention; return 0 if there are none."""
    values = {
        "batch": batch,
        "days": retention.suppressions,
        "unconfirmed_days": retention.unconfirmed_erasures,
        "origin_days": retention.origins,
    }
    deleted = 0
    for statement in _PURGE:
        deleted += (await statement.execute(tx, values)).rowcount
    return deleted + await _forget_expired(tx, retention, batch)


# A state with a second version was granted once; otherwise it is only a withdrawal, or nothing.
_EXPIRED = """
    erased_at IS NULL AND created_at < now() - make_interval(days => least(
        CAST(:proofs AS integer), CAST(:withdrawals AS integer)))
    AND NOT EXISTS (SELECT FROM consent_state
        WHERE subject_id = data_subject.id AND state = 'granted')
    AND NOT EXISTS (SELECT FROM permit WHERE subject_id = data_subject.id)
    AND NOT EXISTS (SELECT FROM opt_in WHERE subject_id = data_subject.id)
    AND NOT EXISTS (SELECT FROM erasure WHERE subject_id = data_subject.id)
    AND NOT EXISTS (SELECT FROM restriction WHERE subject_id = data_subject.id)
    AND coalesce((SELECT max("timestamp") FROM consent_audit_log
            WHERE subject_id = data_subject.id), created_at)
        < now() - make_interval(days => CASE WHEN EXISTS (SELECT FROM consent_state
            WHERE subject_id = data_subject.id AND version > 1) THEN CAST(:proofs AS integer)
            ELSE CAST(:withdrawals AS integer) END)
"""
_LOCK_EXPIRED = sql(
    f"SELECT id FROM data_subject WHERE {_EXPIRED} LIMIT :batch FOR UPDATE SKIP LOCKED", id=sa.Uuid
)
_FORGET_EXPIRED = sql(f"""
    UPDATE data_subject
    SET lookup_hash = NULL, master_key_id = NULL, wrapped_key = NULL, erased_at = now()
    WHERE id = ANY(CAST(:ids AS uuid[])) AND {_EXPIRED}
""")


async def _forget_expired(tx: AsyncConnection, retention: Retention, batch: int) -> int:
    """Destroy the keys of subjects about whom no proof is needed; the trail still verifies."""
    days = {"proofs": retention.proofs, "withdrawals": retention.withdrawals}
    expired = (await _LOCK_EXPIRED.execute(tx, days | {"batch": batch})).scalars()
    if not expired:
        return 0
    # The condition is tested again under the lock, so that a concurrent agreement is seen.
    ids = [str(subject_id) for subject_id in expired]
    return (await _FORGET_EXPIRED.execute(tx, days | {"ids": ids})).rowcount


async def outbox_length(tx: AsyncConnection) -> int:
    return int(await tx.scalar(sa.text("SELECT count(*) FROM outbox")) or 0)


async def idle(tx: AsyncConnection) -> None:
    """Take one round trip, so that timing does not reveal which answer it is."""
    await tx.execute(sa.text("SELECT 1"))
