"""What stands in the way of delivery, since when, and the way around it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.store.breakers import ALIVE

_timestamptz = sa.DateTime(timezone=True)


class Trouble(StrEnum):
    BREAKER = auto()  # it opened, and nothing has got through since
    PENDING = auto()  # too many wait
    IN_DOUBT = auto()  # a person has to find out about some
    UNREAD = auto()  # accepted, and no row could be made of them


@dataclass(frozen=True, slots=True)
class Sick:
    """A target whose breaker opened and which nothing has reached since."""

    seconds: float
    shut: bool  # some breaker of it is not closed now


_SICK: Final = sa.text(f"""
    SELECT target, CAST(extract(epoch FROM now() - since) AS float) AS seconds,
        EXISTS (SELECT FROM breaker
            WHERE breaker.target = trouble.target AND state <> 'closed' AND {ALIVE}) AS shut
    FROM trouble WHERE kind = 'breaker'
""").columns(target=sa.Text, seconds=sa.Float, shut=sa.Boolean)


async def sick(tx: AsyncConnection) -> dict[str, Sick]:
    return {row.target: Sick(row.seconds, row.shut) for row in await tx.execute(_SICK)}


# The new row is an accepted one like any other, but for the dedup key: what it repeats was decided
# when the alert came. Whatever the payload says of a recipient was meant for the first channel.
# Where the alert has a row for the fallback already, that one must not have ended badly.
_FALL_BACK: Final = (
    sa.text("""
    WITH stuck AS (
        SELECT alert_id, target, event_type, severity, source, payload, request_id, accepted_at
        FROM delivery
        WHERE state = 'pending' AND severity = 'critical' AND target = :target
            AND once_address IS NULL AND (:shut OR attempt > 0)
            AND NOT EXISTS (
                SELECT FROM delivery AS other
                WHERE other.alert_id = delivery.alert_id AND other.target = :fallback
                    AND other.state IN ('failed', 'discarded', 'in_doubt'))
        ORDER BY created_at LIMIT :batch FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE delivery SET
            state = 'discarded', reason = 'fallback', finished_at = now(),
            error = 'handed to ' || :fallback || ': ' || coalesce(delivery.error, 'never tried')
        FROM stuck
        WHERE delivery.alert_id = stuck.alert_id AND delivery.target = stuck.target
        RETURNING delivery.alert_id
    ), added AS (
        INSERT INTO delivery (
            alert_id, target, event_type, severity, source, payload, request_id, accepted_at, state)
        SELECT alert_id, :fallback, event_type, severity, source,
            CASE WHEN :same_channel THEN payload ELSE payload - 'to' END,
            request_id, accepted_at, 'pending'
        FROM stuck ORDER BY alert_id
        ON CONFLICT DO NOTHING
        RETURNING alert_id, request_id
    ), counted AS (
        INSERT INTO ledger_total AS total (target, accepted)
        SELECT :fallback, count(*) FROM added HAVING count(*) > 0
        ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
    )
    SELECT ended.alert_id, added.alert_id IS NOT NULL AS added, added.request_id
    FROM ended LEFT JOIN added USING (alert_id)
""")
    .bindparams(
        *(sa.bindparam(name, type_=sa.Text) for name in ("target", "fallback")),
        *(sa.bindparam(name, type_=sa.Boolean) for name in ("shut", "same_channel")),
        sa.bindparam("batch", type_=sa.Integer),
    )
    .columns(alert_id=sa.Uuid, added=sa.Boolean, request_id=sa.Text)
)


async def fall_back(
    tx: AsyncConnection, target: str, fallback: str, *, shut: bool, same_channel: bool, batch: int
) -> list[Any]:
    """End some critical rows of a sick target that nobody is at, each with one for the fallback.

    :param shut: also those that were never tried
    :returns: the alerts; `added` says which have a new row, whose work message is to be published
    """
    found = await tx.execute(
        _FALL_BACK,
        {
            "target": target,
            "fallback": fallback,
            "shut": shut,
            "same_channel": same_channel,
            "batch": batch,
        },
    )
    return list(found)


# A target that is not given is in no such trouble any more.
_OBSERVE: Final = sa.text("""
    WITH seen AS (
        SELECT key AS target, CAST(value AS bigint) AS number
        FROM jsonb_each_text(CAST(:numbers AS jsonb))
    ), over AS (
        DELETE FROM trouble WHERE kind = :kind AND target NOT IN (SELECT target FROM seen)
    )
    INSERT INTO trouble (kind, target, number) SELECT :kind, target, number FROM seen
    ON CONFLICT (kind, target) DO UPDATE SET number = excluded.number
""").bindparams(*(sa.bindparam(name, type_=sa.Text) for name in ("kind", "numbers")))


async def observe(tx: AsyncConnection, kind: Trouble, numbers: Mapping[str, int]) -> None:
    """Write down which targets are in such trouble; since when stays as it was first written."""
    await tx.execute(_OBSERVE, {"kind": kind, "numbers": json.dumps(dict(numbers))})


@dataclass(frozen=True, slots=True)
class Standing:
    """A trouble that a person is to be told of."""

    kind: Trouble
    since: datetime
    number: int


# The pause after a mail that failed is twice that before it: one that is refused for good must not
# leave a failed row and a dead letter in every window. Beyond 2^1023 it would be an error.
MOST_PAUSE_SECONDS: Final = 6 * 3600.0
RESTED: Final = f"""coalesce(untold_at + make_interval(
    secs => least(:pause * 2 ^ least(untold - 1, 30), {MOST_PAUSE_SECONDS})) <= now(), true)"""


# Told when it has stood long enough, and again after a while. What is left of a breaker's trouble
# when no breaker is open (the process was started anew, nothing was sent since) is no news.
_DUE: Final = f"""
    (told_at IS NULL AND {RESTED} OR told_at < now() - make_interval(secs => :again))
    AND since <= now() - CASE WHEN kind IN ('breaker', 'pending')
        THEN make_interval(secs => :after) ELSE interval '0' END
    AND (kind <> 'breaker' OR EXISTS (SELECT FROM breaker
        WHERE breaker.target = trouble.target AND breaker.state <> 'closed' AND {ALIVE}))
"""
_TIMES: Final = tuple(sa.bindparam(name, type_=sa.Float) for name in ("after", "again", "pause"))
_TARGETS_DUE: Final = (
    sa.text(f"SELECT DISTINCT target FROM trouble WHERE {_DUE}")
    .bindparams(*_TIMES)
    .columns(target=sa.Text)
)
_TELL: Final = (
    sa.text(f"""
    UPDATE trouble SET told_at = now(), digest = :digest,
        untold = CASE WHEN told_at IS NULL THEN untold ELSE 0 END
    WHERE target = :target AND {_DUE}
    RETURNING kind, since, number
""")
    .bindparams(
        *_TIMES,
        sa.bindparam("digest", type_=sa.Uuid),
        sa.bindparam("target", type_=sa.Text),
    )
    .columns(kind=sa.Text, since=_timestamptz, number=sa.BigInteger)
)


@dataclass(frozen=True, slots=True)
class Pace:
    """When a person is told; seconds."""

    after: float  # for which an open breaker, or too many pending, are not worth a mail
    again: float  # until what still stands is told again
    pause: float  # after a mail that failed; twice as long after each further one


async def targets_due(tx: AsyncConnection, pace: Pace) -> list[str]:
    """Return which targets' trouble a person is to be told of now."""
    return list((await tx.execute(_TARGETS_DUE, asdict(pace))).scalars())


async def tell_of(tx: AsyncConnection, target: str, digest: UUID, pace: Pace) -> list[Standing]:
    """Mark what is due to be told of this target as told by this digest, and return it."""
    found = await tx.execute(_TELL, {"target": target, "digest": digest, **asdict(pace)})
    rows = sorted(found, key=lambda row: row.since)
    return [Standing(Trouble(row.kind), row.since, row.number) for row in rows]


_LAST_ERROR: Final = (
    sa.text("""
    SELECT error FROM delivery
    WHERE target = :target AND state = 'pending' AND error IS NOT NULL
    ORDER BY last_attempt_at DESC NULLS LAST LIMIT 1
""")
    .bindparams(sa.bindparam("target", type_=sa.Text))
    .columns(error=sa.Text)
)


async def last_error(tx: AsyncConnection, target: str) -> str | None:
    """Return what the target said last to an alert that still waits."""
    return (await tx.execute(_LAST_ERROR, {"target": target})).scalar_one_or_none()


_UNTELL: Final = sa.text("""
    UPDATE trouble SET told_at = NULL, digest = NULL, untold_at = now(), untold = untold + 1
    WHERE digest = :digest
""").bindparams(sa.bindparam("digest", type_=sa.Uuid))


async def untell(tx: AsyncConnection, digest: UUID) -> None:
    await tx.execute(_UNTELL, {"digest": digest})
