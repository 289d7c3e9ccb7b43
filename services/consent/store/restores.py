"""Restored databases: how a restore is detected, and when the database is trusted again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.position import Position
from services.consent.store.sql import sql

_HAS = ":rows = 0 OR EXISTS (SELECT FROM consent_audit_log WHERE id = :rows AND hash = :hash)"


_LOOK = sql(f"""
    SELECT {_HAS} AS is_there, EXISTS (SELECT FROM restore
        WHERE rows = :rows AND hash = :hash AND replayed_at IS NULL) AS noticed
""")
_BACK = sql("DELETE FROM restore WHERE rows = :rows AND hash = :hash AND replayed_at IS NULL")


async def has(tx: AsyncConnection, position: Position) -> bool:
    """Return whether the trail has this position; clear the record of it if it is back."""
    found = (await _LOOK.execute(tx, position._asdict())).one()
    if found.is_there and found.noticed:
        await _BACK.execute(tx, position._asdict())
    return bool(found.is_there)


_IS_CURRENT = sql(f"SELECT ({_HAS}) AND NOT EXISTS (SELECT FROM restore WHERE replayed_at IS NULL)")


async def is_current(tx: AsyncConnection, position: Position) -> bool:
    """Return whether the trail has this position and no other host misses one of its own."""
    return bool((await _IS_CURRENT.execute(tx, position._asdict())).scalar())


_RECORD_MISSING = sql("""
    INSERT INTO restore AS mine (rows, hash) VALUES (:rows, :hash)
    ON CONFLICT (rows, hash) DO UPDATE SET rows = excluded.rows
    RETURNING replayed_at IS NOT NULL AS replayed
""")


async def record_missing(tx: AsyncConnection, position: Position) -> bool:
    """Record that this position is missing.

    :returns: whether withdrawals and erasures were replayed since
    """
    return bool((await _RECORD_MISSING.execute(tx, position._asdict())).scalar_one())


async def record_replayed(tx: AsyncConnection) -> None:
    """Trust the database again, once each host has applied its file."""
    await tx.execute(sa.text("UPDATE restore SET replayed_at = now() WHERE replayed_at IS NULL"))


# An erasure is not linked to the subject whom it erased, but both have the time of the transaction.
# If two share it, each is recorded with both hashes: both were erased.
_WITHDRAWN = sql(
    """
    SELECT log.id, encode(log.hash, 'hex') AS hash, log.action, log.subject_id, log.email,
        log.evidence, master_key_id, wrapped_key, erased_at,
        encode(lookup_hash, 'hex') AS lookup_hash, erased.id AS erasure_id,
        encode(erased.suppression_hash, 'hex') AS suppression_hash,
        (SELECT jsonb_object_agg(purpose, withdrawn_at) FROM consent_state
         WHERE consent_state.subject_id = log.subject_id AND withdrawn_at IS NOT NULL) AS withdrawn
    FROM consent_audit_log AS log JOIN data_subject ON data_subject.id = log.subject_id
    LEFT JOIN (SELECT id, suppression_hash, confirmed_at FROM erasure) AS erased
        ON action = 'erased' AND confirmed_at = erased_at
    WHERE log.id > :after AND log.id <= :until
        AND action IN ('unsubscribe', 'revoke-consent', 'erasure-requested', 'erased')
    ORDER BY log.id LIMIT :batch
""",
    id=sa.BigInteger,
    hash=sa.Text,
    action=sa.Text,
    subject_id=sa.Uuid,
    email=sa.LargeBinary,
    evidence=sa.LargeBinary,
    master_key_id=sa.Text,
    wrapped_key=sa.LargeBinary,
    erased_at=sa.DateTime(timezone=True),
    lookup_hash=sa.Text,
    erasure_id=sa.Uuid,
    suppression_hash=sa.Text,
    withdrawn=sa.JSON,
)


async def withdrawn_after(tx: AsyncConnection, after: int, until: int, batch: int) -> list[Any]:
    """Read withdrawals and erasures, in the order of the trail."""
    return await _WITHDRAWN.execute(tx, {"after": after, "until": until, "batch": batch})


# The number, and not the columns, is returned: the driver's times may differ from the file's.
_WITHOUT = sql(
    """
    SELECT number FROM unnest(CAST(:ids AS uuid[]), CAST(:purposes AS text[]),
        CAST(CAST(:times AS text[]) AS timestamptz[])) WITH ORDINALITY
        AS given (subject_id, purpose, at, number)
    WHERE NOT EXISTS (SELECT FROM consent_state WHERE withdrawn_at >= given.at
        AND consent_state.subject_id = given.subject_id AND consent_state.purpose = given.purpose)
    ORDER BY number
""",
    number=sa.BigInteger,
)


async def without(
    tx: AsyncConnection, withdrawals: Sequence[tuple[UUID, str, datetime]]
) -> list[tuple[UUID, str, datetime]]:
    """Return those withdrawals (subject, purpose, time) that the database lacks."""
    values = {
        "ids": [str(subject_id) for subject_id, _, _ in withdrawals],
        "purposes": [purpose for _, purpose, _ in withdrawals],
        "times": [at.isoformat() for _, _, at in withdrawals],
    }
    lacking = (await _WITHOUT.execute(tx, values)).scalars()
    return [withdrawals[number - 1] for number in lacking]
