"""Accepted alerts → rows, and repeats of one → a count on its row."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import db
from services.alerts.alert import Reason

Key = tuple[UUID, str]
"""Of a delivery: alert and target."""


class NewRow(NamedTuple):
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

    @property
    def key(self) -> Key:
        return self.alert_id, self.target

    @property
    def said(self) -> tuple[str, str, str, str]:
        """What two rows must share for the later to be a repeat of the earlier."""
        return self.target, self.source, self.event_type, self.dedup_key or ""


@dataclass(frozen=True, slots=True)
class Taken:
    added: int
    repeats: Mapping[Key, UUID]
    """Those that are counted on another alert's row, and have none of their own."""


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


_LOCK = sa.text("""
    SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key
""").bindparams(sa.bindparam("keys", type_=ARRAY(sa.BigInteger)))
_GIVEN = """
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            alert_id uuid, target text, source text, event_type text, dedup_key text,
            accepted_at timestamptz, first_id uuid, request_id text)
    )
"""
_SEEN = sa.text(f"""
    {_GIVEN}
    SELECT given.alert_id, given.target, duplicate.first_id
    FROM given
        LEFT JOIN delivery USING (alert_id, target)
        LEFT JOIN duplicate ON (duplicate.alert_id, duplicate.target)
            = (given.alert_id, given.target)
    WHERE delivery.alert_id IS NOT NULL OR duplicate.alert_id IS NOT NULL
""").columns(alert_id=sa.Uuid, target=sa.Text, first_id=sa.Uuid)
# One that failed takes no more repeats: its person was told, and the next may well arrive. Those
# that do stay as they are until the count is committed, so that an end that comes later tells of
# all. Locked in the order in which deliveries lock them.
_FIRSTS = (
    sa.text(f"""
    {_GIVEN}
    SELECT alert_id, target, source, event_type, dedup_key, accepted_at FROM delivery
    WHERE state NOT IN ('failed', 'discarded') AND EXISTS (
        SELECT FROM given
        WHERE given.dedup_key = delivery.dedup_key AND given.target = delivery.target
            AND given.source = delivery.source AND given.event_type = delivery.event_type
            AND delivery.accepted_at BETWEEN given.accepted_at - make_interval(secs => :window)
                AND given.accepted_at + make_interval(secs => :window))
    ORDER BY alert_id, target
    FOR NO KEY UPDATE
""")
    .bindparams(sa.bindparam("window", type_=sa.Float))
    .columns(
        alert_id=sa.Uuid,
        target=sa.Text,
        source=sa.Text,
        event_type=sa.Text,
        dedup_key=sa.Text,
        accepted_at=sa.DateTime(timezone=True),
    )
)
# The totals after the rows and in order, as everywhere.
_TOTALS = sa.text("""
    SELECT FROM ledger_total WHERE target = ANY(CAST(:targets AS text[]))
    ORDER BY target FOR NO KEY UPDATE
""").bindparams(sa.bindparam("targets", type_=ARRAY(sa.Text)))
_COUNT = sa.text(f"""
    {_GIVEN}, noted AS (
        INSERT INTO duplicate (alert_id, target, first_id, request_id, accepted_at)
        SELECT alert_id, target, first_id, request_id, accepted_at FROM given
        ON CONFLICT DO NOTHING
        RETURNING first_id, target
    ), counted AS (
        UPDATE delivery SET duplicates = duplicates + repeats
        FROM (SELECT first_id, target, count(*) AS repeats FROM noted GROUP BY first_id, target) n
        WHERE (delivery.alert_id, delivery.target) = (n.first_id, n.target)
    )
    UPDATE ledger_total SET duplicates = duplicates + repeats
    FROM (SELECT target, count(*) AS repeats FROM noted GROUP BY target) AS n
    WHERE ledger_total.target = n.target
""")


async def accept(tx: AsyncConnection, rows: Sequence[NewRow], window: float) -> Taken:
    """Write the rows that are not there yet and count them; a repeat is counted on its first.

    :param window: seconds between two alerts that say the same, at most, for one to be a repeat
    """
    repeats = await _repeats(tx, [row for row in rows if row.dedup_key is not None], window)
    given = [row for row in rows if row.key not in repeats]
    added = 0
    if repeats:
        await tx.execute(_TOTALS, {"targets": sorted({row.target for row in rows})})
    if given:
        added = int((await tx.execute(_ACCEPT, {"rows": _document(given)})).scalar_one())
    if repeats:
        document = [
            row._asdict() | {"first_id": repeats[row.key]} for row in rows if row.key in repeats
        ]
        await tx.execute(_COUNT, {"rows": json.dumps(document, default=str)})
    return Taken(added, repeats)


async def _repeats(tx: AsyncConnection, rows: Sequence[NewRow], window: float) -> dict[Key, UUID]:
    """Find the rows whose like was accepted before them, or stands before them here.

    Exact whatever runs beside it: who says the same waits until the other has committed. A message
    that comes again has the answer that it had.
    """
    rows = [row for row in rows if row.failed is None and row.once_address is None]
    if not rows or not window:
        return {}
    said = {"\n".join(("alerts dedup", *row.said)) for row in rows}
    await tx.execute(_LOCK, {"keys": sorted(map(db.advisory_key, said))})
    document = _document(rows)
    seen = {
        (found.alert_id, found.target): found.first_id
        for found in await tx.execute(_SEEN, {"rows": document})
    }
    firsts: defaultdict[tuple[str, str, str, str], list[tuple[datetime, UUID]]] = defaultdict(list)
    for found in await tx.execute(_FIRSTS, {"rows": document, "window": window}):
        firsts[found.target, found.source, found.event_type, found.dedup_key].append(
            (found.accepted_at, found.alert_id)
        )
    repeats = {key: first for key, first in seen.items() if first is not None}
    for row in sorted(rows, key=lambda row: (row.accepted_at, row.alert_id)):
        if row.key in seen:
            continue
        near = [
            (at, first)
            for at, first in firsts[row.said]
            if abs(row.accepted_at - at) < timedelta(seconds=window) and first != row.alert_id
        ]
        if near:
            repeats[row.key] = min(near)[1]
        else:
            firsts[row.said].append((row.accepted_at, row.alert_id))
    return repeats


def _document(rows: Sequence[NewRow]) -> str:
    return json.dumps([row._asdict() for row in rows], default=str)
