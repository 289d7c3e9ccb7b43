"""What the ledger holds on a person: told to consent when it asks, erased when it orders.

No column says whose an alert is: the address is looked for in everything that a caller may have
put it into. Answers of targets are redacted before they are stored; they go all the same.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.addresses import as_written
from services.alerts import delivery
from services.alerts.alert import Reason, State
from services.alerts.store import steps, tables

BATCH: Final = 5_000  # rows looked at in one statement, well within its time-out
# Of one answer, about: RabbitMQ takes no message beyond 16 MiB.
PAGE_BYTES: Final = 4 * 1024 * 1024
_ATTEMPT_BYTES: Final = 1_000
ERASED: Final = "erased"
BEGINNING: Final = (UUID(int=0), "")

Key = tuple[UUID, str]


@dataclass(frozen=True, slots=True)
class Looked:
    """One batch of the ledger."""

    rows: list[Any]
    after: Key | None
    """Where to go on; None at the end."""


# The domain alone first: it is cheap, and rules nearly every row out.
_LOOK = (
    sa.text(f"""
    WITH looked AS MATERIALIZED (
        SELECT alert_id, target, event_type, severity, state, reason, payload, accepted_at,
            finished_at, attempt, error, once_address, once_purpose, once_reference,
            once_address = :address OR (
                (strpos(lower(words), :domain) > 0 OR strpos(lower(words), :written) > 0)
                AND words ~* :pattern) AS theirs
        FROM delivery, LATERAL (
            SELECT concat_ws(' ', CAST(payload AS text), dedup_key)
        ) AS given (text), LATERAL (
            -- slow, and of no use to an address without marks on its letters
            SELECT CASE WHEN :written ~ '^[ -~]*$' AND :address ~ '^[ -~]*$' THEN text
                ELSE normalize(text, NFC) END
        ) AS said (words)
        WHERE (alert_id, target) > (:alert_id, :target)
        ORDER BY alert_id, target LIMIT :batch
    ), sized AS (
        SELECT *, coalesce(sum(
                {_ATTEMPT_BYTES} * (attempt + 1) + octet_length(coalesce(CAST(payload AS text), ''))
            ) FILTER (WHERE theirs) OVER (
                ORDER BY alert_id, target ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), 0) AS bytes_before
        FROM looked
    ), page AS (
        SELECT * FROM sized WHERE bytes_before < :most
    )
    SELECT * FROM page
    WHERE theirs OR (alert_id, target) = (
        SELECT alert_id, target FROM page ORDER BY alert_id DESC, target DESC LIMIT 1)
    ORDER BY alert_id, target
""")
    .bindparams(
        sa.bindparam("alert_id", type_=sa.Uuid),
        *(
            sa.bindparam(name, type_=sa.Text)
            for name in ("target", "address", "domain", "written", "pattern")
        ),
        *(sa.bindparam(name, type_=sa.Integer) for name in ("batch", "most")),
    )
    .columns(
        **{
            column.name: column.type
            for column in tables.delivery.c
            if column.name
            in {
                "alert_id", "target", "event_type", "severity", "state", "reason", "accepted_at",
                "finished_at", "attempt", "error", "once_address", "once_purpose",
                "once_reference",
            }
        },
        payload=JSONB,
        theirs=sa.Boolean,
    )
)  # fmt: skip


def pattern(address: str) -> str:
    """Match the address as a whole: ann@x.pl is not in joann@x.pl, but is in ?mail=ann%40x.pl."""
    local, _, domain = address.rpartition("@")
    domains = "|".join(map(re.escape, {domain, as_written(domain)}))
    return rf"(?<![\w.+-]){re.escape(local)}(@|%40)({domains})(?![\w-]|\.\w)"


async def look(tx: AsyncConnection, address: str, after: Key = BEGINNING) -> Looked:
    """Find a person's rows in the next part of the ledger.

    :param address: normalised
    """
    domain = address.rpartition("@")[2]
    found = await tx.execute(
        _LOOK,
        {
            "address": address,
            "domain": domain,
            "written": as_written(domain),
            "pattern": pattern(address),
            "alert_id": after[0],
            "target": after[1],
            "batch": BATCH,
            "most": PAGE_BYTES,
        },
    )
    rows = list(found)
    end = (rows[-1].alert_id, rows[-1].target) if rows else None
    return Looked([row for row in rows if row.theirs], end)


async def attempts(tx: AsyncConnection, rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Read what became of each attempt to deliver these rows, with the targets' answers."""
    found = await tx.execute(
        sa.select(tables.attempt)
        .where(
            sa.tuple_(tables.attempt.c.alert_id, tables.attempt.c.target).in_(
                [(row.alert_id, row.target) for row in rows]
            )
        )
        .order_by(tables.attempt.c.alert_id, tables.attempt.c.target, tables.attempt.c.number)
    )
    return [
        {
            **row,
            "alert_id": str(row["alert_id"]),
            "ended_at": row["ended_at"].isoformat(),
        }
        for row in found.mappings()
    ]


_END = sa.text("""
    SELECT alert_id, target FROM (
        SELECT alert_id, target FROM delivery WHERE (alert_id, target) > (:alert_id, :target)
        ORDER BY alert_id, target LIMIT :batch
    ) AS looked ORDER BY alert_id DESC, target DESC LIMIT 1
""").bindparams(sa.bindparam("alert_id", type_=sa.Uuid))
_ADDRESSES = sa.text(r"""
    SELECT DISTINCT address FROM delivery, LATERAL (
        SELECT once_address UNION
        SELECT lower(rtrim(found[1], '.')) FROM regexp_matches(
            replace(CAST(payload AS text), '%40', '@'),
            '[^\s"<>(),;\:\\/?&=]+@[^\s"<>(),;\:\\/?&=]+', 'g') AS found
    ) AS held (address)
    WHERE address IS NOT NULL AND (alert_id, target) > (:alert_id, :target)
        AND (alert_id, target) <= (:last_id, :last_target)
""").bindparams(sa.bindparam("alert_id", type_=sa.Uuid), sa.bindparam("last_id", type_=sa.Uuid))


async def addresses(tx: AsyncConnection, after: Key) -> tuple[list[str], Key | None]:
    """Find what looks like an address in the next part of the ledger.

    :returns: also where to go on; None at the end
    """
    start = {"alert_id": after[0], "target": after[1]}
    end = (await tx.execute(_END, start | {"batch": BATCH})).one_or_none()
    if end is None:
        return [], None
    part = start | {"last_id": end.alert_id, "last_target": end.target}
    return list((await tx.execute(_ADDRESSES, part)).scalars()), (end.alert_id, end.target)


_ERASE = (
    sa.text("""
    UPDATE delivery SET
        payload = NULL, dedup_key = NULL,
        once_address = CASE WHEN once_address IS NOT NULL THEN 'erased' END,
        error = CASE WHEN error IS NOT NULL THEN 'erased' END,
        reason = CASE WHEN state = 'pending' THEN 'erased' ELSE reason END,
        finished_at = coalesce(finished_at, now()),
        state = CASE WHEN state = 'pending' THEN 'discarded' ELSE state END
    WHERE alert_id = :alert_id AND target = :target AND state NOT IN ('claimed', 'sending')
    RETURNING 1 AS matched
""")
    .bindparams(sa.bindparam("alert_id", type_=sa.Uuid), sa.bindparam("target", type_=sa.Text))
    .columns(matched=sa.Integer)
)
_LOCK = (
    sa.text("SELECT state FROM delivery WHERE alert_id = :alert_id AND target = :target FOR UPDATE")
    .bindparams(sa.bindparam("alert_id", type_=sa.Uuid), sa.bindparam("target", type_=sa.Text))
    .columns(state=sa.Text)
)


async def erase(tx: AsyncConnection, row: Any) -> bool:
    """Forget what a row says; one that was still to be sent is discarded, its copies acked unseen.

    The row stays, for it is counted.

    :returns: False when it is being sent at this moment: come again when that is over
    """
    key = {"alert_id": row.alert_id, "target": row.target}
    before = (await tx.execute(_LOCK, key)).scalar_one_or_none()
    if before is None:  # purged meanwhile
        return True
    if (await tx.execute(_ERASE, key)).one_or_none() is None:
        return False
    where = (("alert_id", row.alert_id), ("target", row.target))
    for table, values in (
        (tables.attempt, {"excerpt": ""}),
        (tables.escalation, {"error": None}),
    ):
        await tx.execute(
            sa.update(table)
            .where(*(table.c[name] == value for name, value in where))
            .values(values)
        )
    if before == State.PENDING:
        await delivery.tell(tx, steps.ended(row), State.DISCARDED, Reason.ERASED)
    return True
