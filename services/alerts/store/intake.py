"""Accepted alerts → rows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.alert import Reason


@dataclass(frozen=True, slots=True)
class NewRow:
    """A delivery as intake makes it; `failed` when nobody knows where it should go."""

    alert_id: UUID
    target: str
    event_type: str
    severity: str
    source: str
    payload: dict[str, Any]
    dedup_key: str | None
    request_id: str | None
    accepted_at: datetime
    once_address: str | None = None
    once_purpose: str | None = None
    once_reference: str | None = None
    failed: Reason | None = None


# Rows are ordered, so that two batches with the same alerts wait for each other, not in a circle.
_ACCEPT = sa.text("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            alert_id uuid, target text, event_type text, severity text, source text,
            payload jsonb, dedup_key text, request_id text, accepted_at timestamptz,
            once_address text, once_purpose text, once_reference text, failed text)
    ), added AS (
        INSERT INTO delivery (
            alert_id, target, event_type, severity, source, payload, dedup_key, request_id,
            accepted_at, once_address, once_purpose, once_reference, state, reason, error,
            finished_at)
        SELECT
            alert_id, target, event_type, severity, source, payload, dedup_key, request_id,
            accepted_at, once_address, once_purpose, once_reference,
            CASE WHEN failed IS NULL THEN 'pending' ELSE 'failed' END, failed, failed,
            CASE WHEN failed IS NULL THEN NULL ELSE now() END
        FROM given ORDER BY alert_id, target
        ON CONFLICT DO NOTHING
        RETURNING alert_id, target, event_type, reason
    ), counted AS (
        INSERT INTO ledger_total AS total (target, accepted)
        SELECT target, count(*) FROM added GROUP BY target ORDER BY target
        ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
    ), escalated AS (
        INSERT INTO escalation (alert_id, target, event_type, reason)
        SELECT alert_id, target, event_type, reason FROM added WHERE reason IS NOT NULL
    )
    SELECT count(*) AS added FROM added
""").columns(added=sa.BigInteger)


async def accept(tx: AsyncConnection, rows: Sequence[NewRow]) -> int:
    """Write the rows that are not there yet and count them, in one statement.

    :returns: how many were new
    """
    document = json.dumps([asdict(row) for row in rows], default=str)
    return int((await tx.execute(_ACCEPT, {"rows": document})).scalar_one())
