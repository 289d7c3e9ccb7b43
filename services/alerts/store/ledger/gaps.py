"""Which running numbers of each gateway process came to intake, and which never did."""

import json
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.statement import Statement
from services.alerts.messages import AlertAccepted
from services.alerts.store.sql import sql

GAP_SECONDS: Final = 600.0
"""Longer than a message needs that is in no queue: in a process, on the gateway's other way."""
_KEPT: Final = "interval '7 days'"

# A release that notes no numbers took some of them while it ran, and has a row for an hour after.
_NOTE: Final = Statement(f"""
    INSERT INTO intake_sender AS known (sender, seen)
    SELECT sender, range_agg(int8range(
        CASE WHEN EXISTS (SELECT FROM replica WHERE NOT numbers) THEN 1 ELSE first END, last, '[]'))
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        sender text, first bigint, last bigint, at timestamptz)
    WHERE first <= last AND r.at > now() - {_KEPT} GROUP BY sender ORDER BY sender
    ON CONFLICT (sender) DO UPDATE SET at = now(),
        seen = known.seen + excluded.seen, missing = known.missing - excluded.seen
""")
_JUDGE: Final = sql(f"""
    WITH due AS (
        SELECT sender, int8multirange(int8range(1, edge)) - seen AS late FROM intake_sender
        WHERE edge_at < now() - make_interval(secs => :seconds) ORDER BY sender FOR UPDATE
    )
    UPDATE intake_sender AS known SET seen = seen + late, edge = upper(seen), edge_at = now(),
        missing = CASE WHEN isempty(late) AND missed_at < now() - {_KEPT} THEN '{{}}'
            ELSE missing + late END,
        missed_at = CASE WHEN isempty(late) THEN missed_at ELSE now() END
    FROM due WHERE due.sender = known.sender
""")
_FORGET: Final = sql(f"DELETE FROM intake_sender WHERE at < now() - 2 * {_KEPT}")
_GAPS: Final = sql("""
    SELECT sender, missed_at, (SELECT sum(upper(r) - lower(r)) FROM unnest(missing) AS r) AS lost,
        (SELECT jsonb_agg(jsonb_build_array(lower(r), upper(r) - 1))
            FROM (SELECT r FROM unnest(missing) AS r LIMIT 20) AS first) AS found
    FROM intake_sender WHERE NOT isempty(missing) ORDER BY missed_at
""")


async def note(tx: AsyncConnection, alerts: Iterable[AlertAccepted]) -> None:
    """Note what came; locks the rows of its senders, last of all."""
    rows = [
        {"sender": given.sender, "first": first, "last": last, "at": alert.accepted_at}
        for alert in alerts
        if (given := alert.numbered) is not None
        for first, last in [(given.number, given.number), *given.unused]
    ]
    if rows:
        await _NOTE.execute(tx, {"rows": json.dumps(rows, default=str)})


async def judge(tx: AsyncConnection, seconds: float = GAP_SECONDS) -> None:
    """Count the gaps that are older as missing; call it while intake's queues are empty."""
    await tx.execute(_JUDGE, {"seconds": seconds})
    await tx.execute(_FORGET)


async def found(tx: AsyncConnection) -> list[dict[str, Any]]:
    """Return what is missing of each sender; the first ranges of numbers, and how many in all."""
    return [
        {
            "sender": row.sender,
            "numbers": row.found,
            "count": int(row.lost),
            "since": row.missed_at.isoformat(),
        }
        for row in await tx.execute(_GAPS)
    ]
