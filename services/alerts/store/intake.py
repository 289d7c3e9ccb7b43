"""Writes accepted alerts as rows, and counts repeats of an alert on its row."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database import postgres
from services.alerts.alert import Reason
from services.alerts.store import privacy
from services.alerts.store.sql import sql
from services.alerts.subjects import Hash

Key = tuple[UUID, str]
"""Of a delivery: alert id and target."""


class NewRow(NamedTuple):
    """A delivery as intake writes it."""

    alert_id: UUID
    target: str
    event_type: str
    severity: str
    source: str
    payload: dict[str, Any] | None
    dedup_key: str | None
    request_id: str | None
    accepted_at: datetime
    once_address: str | None = None
    once_purpose: str | None = None
    once_reference: str | None = None
    once_not_after: datetime | None = None
    failed: Reason | None = None
    """It ends at once: it has no route, names a data subject that was erased since, or is
    silenced."""
    silence: int | None = None
    subjects: tuple[Hash, ...] = ()
    resolved: bool = False

    @property
    def key(self) -> Key:
        return self.alert_id, self.target

    def emptied(self) -> Self:
        once_address = self.once_address and str(Reason.ERASED)
        return self._replace(
            payload=None,
            dedup_key=None,
            once_address=once_address,
            failed=Reason.ERASED,
            subjects=(),
        )

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What two rows must have in common for the later to be a repeat of the earlier."""
        return self.target, self.source, self.event_type, self.dedup_key or ""


@dataclass(frozen=True, slots=True)
class Taken:
    added: int
    repeats: Mapping[Key, UUID]
    """The first alert of each repeat; a repeat has no row of its own."""


# Rows are ordered, so that two batches with the same alerts wait for each other, never deadlock.
_ACCEPT = sql("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            alert_id uuid, target text, event_type text, severity text, source text,
            payload jsonb, dedup_key text, request_id text, accepted_at timestamptz,
            once_address text, once_purpose text, once_reference text,
            once_not_after timestamptz, subjects bytea[], failed text, silence bigint)
    ), added AS (
        INSERT INTO delivery (
            alert_id, target, event_type, severity, source, payload, dedup_key, request_id,
            accepted_at, once_address, once_purpose, once_reference, once_not_after, subjects,
            state, reason, error, finished_at)
        SELECT
            alert_id, target, event_type, severity, source, payload, dedup_key, request_id,
            accepted_at, once_address, once_purpose, once_reference, once_not_after, subjects,
            CASE WHEN failed IS NULL THEN 'pending'
                WHEN failed IN ('erased', 'silenced') THEN 'discarded' ELSE 'failed' END, failed,
            CASE WHEN failed = 'silenced' THEN 'silence ' || silence ELSE failed END,
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
        SELECT alert_id, target, event_type, reason FROM added
        WHERE reason NOT IN ('erased', 'silenced')
    )
    SELECT count(*) AS added FROM added
""")


_LOCK = sql("""
    SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key
""")
_GIVEN = """
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            alert_id uuid, target text, source text, event_type text, dedup_key text,
            accepted_at timestamptz, first_id uuid, request_id text)
    )
"""
_SEEN = sql(f"""
    {_GIVEN}
    SELECT given.alert_id, given.target, duplicate.first_id
    FROM given
        LEFT JOIN delivery USING (alert_id, target)
        LEFT JOIN duplicate ON (duplicate.alert_id, duplicate.target)
            = (given.alert_id, given.target)
    WHERE delivery.alert_id IS NOT NULL OR duplicate.alert_id IS NOT NULL
""")
# A failed alert takes no more repeats: operators were notified, and the next may well be delivered.
# The others are locked until the count is committed, so that a later end includes all repeats; and
# in the order in which deliveries lock them.
_FIRSTS = sql(f"""
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
# Totals are locked after the rows and in order, as everywhere.
_TOTALS = sql("""
    SELECT FROM ledger_total WHERE target = ANY(CAST(:targets AS text[]))
    ORDER BY target FOR NO KEY UPDATE
""")
_COUNT = sql(f"""
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
    """Write the rows that do not exist yet and count them; count a repeat on the first alert.

    :param window: seconds between two alerts, at most, for the later to be a repeat
    """
    rows = await _without_erased(tx, rows)
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


async def _without_erased(tx: AsyncConnection, rows: Sequence[NewRow]) -> Sequence[NewRow]:
    """Empty the rows of subjects that were erased after the acceptance (protocol C, step 6)."""
    named = {each for row in rows for each in row.subjects}
    if not named or not (erased := await privacy.erased_since(tx, named)):
        return rows
    return [
        row.emptied()
        if any(erased.get(each, row.accepted_at) > row.accepted_at for each in row.subjects)
        else row
        for row in rows
    ]


async def _repeats(tx: AsyncConnection, rows: Sequence[NewRow], window: float) -> dict[Key, UUID]:
    """Find the rows that repeat an earlier one, in the ledger or in this batch.

    Exact under concurrency: intakes of the same alert take an advisory lock, and the second waits
    until the first has committed. A redelivered message gets the answer it had before.
    """
    rows = [row for row in rows if row.failed is None and row.once_address is None]
    if not rows or not window:
        return {}
    names = {"\n".join(("alerts dedup", *row.identity)) for row in rows}
    await tx.execute(_LOCK, {"keys": sorted(map(postgres.advisory_key, names))})
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
            for at, first in firsts[row.identity]
            if abs(row.accepted_at - at) < timedelta(seconds=window) and first != row.alert_id
        ]
        if near:
            repeats[row.key] = min(near)[1]
        else:
            firsts[row.identity].append((row.accepted_at, row.alert_id))
    return repeats


def _document(rows: Sequence[NewRow]) -> str:
    return json.dumps([row._asdict() for row in rows], default=str)
