"""Open incidents of targets: since when, what was reported of them, and the way to a fallback."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.store.breakers import SHUT
from services.alerts.store.sql import sql
from services.alerts.store.tables import KEPT


class IncidentKind(StrEnum):
    BREAKER = auto()  # it opened, and nothing has been delivered since
    PENDING = auto()  # too many deliveries are pending
    IN_DOUBT = auto()  # an operator has to resolve some
    UNREAD = auto()  # accepted messages of which no row could be made
    ROTA = auto()  # the file of a schedule cannot be used as it is
    UNANSWERED = auto()  # cases whose chain is over


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """A target whose breaker opened, or that asked for a pause; nothing was delivered since."""

    shut: bool  # its breaker is not closed now, or it is paused
    refuses: bool  # it refuses us, and not one alert only


CERTAIN_SECONDS: Final = 10.0
"""From a refusal on, in which the next alert is tried: whether the target refuses that, too."""
_REFUSES: Final = f"""
    (kind = 'breaker' AND number > 0 AND since <= now() - interval '{CERTAIN_SECONDS} s')"""
_UNHEALTHY: Final = sql(f"""
    SELECT target, {_REFUSES} AS refuses,
        EXISTS (SELECT FROM breaker WHERE breaker.target = incident.target AND {SHUT}) AS shut
    FROM incident WHERE kind = 'breaker'
""")


async def unhealthy(tx: AsyncConnection) -> dict[str, Unhealthy]:
    """Return the unhealthy targets by name."""
    found = await tx.execute(_UNHEALTHY)
    return {row.target: Unhealthy(row.shut, row.refuses) for row in found}


# A step, and an alert where it asks. An update is never critical.
_ASKS: Final = """
    EXISTS (SELECT FROM case_place
        WHERE (case_place.alert_id, case_place.target) = (stuck.alert_id, stuck.target))
"""
# An alert that intake was late with has a while for its own target. A worker may wait for the
# database with an outcome, longer than its lease. What failed is not tried again, but what failed
# long ago, before this release perhaps, is a person's by now. Each part has an index.
_CRITICAL: Final = "severity = 'critical' AND target = :target AND once_address IS NULL"
_LATE: Final = f"""{_CRITICAL} AND NOT :shut AND (:refuses
    OR coalesce(requeued_at, least(accepted_at, created_at)) < now() - make_interval(secs => :after)
        AND created_at < now() - make_interval(secs => :after / 10))"""
_STUCK: Final = sql(f"""
    WITH stuck AS (
        SELECT * FROM delivery WHERE state = 'pending' AND {_LATE}
        UNION ALL SELECT * FROM delivery WHERE state = 'sending' AND {_LATE}
            AND lease_until < now() - make_interval(secs => :after / 10) AND NOT recalled
        UNION ALL SELECT * FROM delivery
        WHERE {KEPT} AND payload IS NOT NULL AND state = 'failed' AND {_CRITICAL}
            AND finished_at > now() - make_interval(secs => :after * 6)
    )
    SELECT alert_id FROM stuck
    WHERE {_ASKS} = :asks AND NOT EXISTS (
        SELECT FROM delivery AS other
        WHERE other.alert_id = stuck.alert_id AND other.target = :fallback
            AND other.state IN ('failed', 'discarded', 'in_doubt'))
    ORDER BY created_at LIMIT :batch
""")
# The new row is an accepted one like any other, but without a dedup key: whether it is a repeat was
# decided when the alert came. A recipient in the payload was meant for the first channel only.
_FALL_BACK: Final = sql("""
    WITH stuck AS (
        SELECT alert_id, target, event_type, severity, source, payload, request_id, accepted_at,
            subjects, resolved
        FROM delivery
        WHERE target = :target AND alert_id = ANY(CAST(:alert_ids AS uuid[]))
            AND (state IN ('pending', 'failed')
                OR state = 'sending' AND lease_until < now() AND NOT recalled)
        ORDER BY alert_id FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE delivery SET
            state = 'discarded', reason = 'fallback', finished_at = now(), lease_until = NULL,
            error = 'handed to ' || :fallback || ': ' || coalesce(delivery.error, 'never tried')
        FROM stuck
        WHERE delivery.alert_id = stuck.alert_id AND delivery.target = stuck.target
        RETURNING delivery.alert_id
    ), added AS (
        INSERT INTO delivery (
            alert_id, target, event_type, severity, source, payload, request_id, accepted_at,
            subjects, resolved, state)
        SELECT alert_id, :fallback, event_type, severity, source,
            CASE WHEN :same_channel THEN payload ELSE payload - 'to' END,
            request_id, accepted_at, subjects, resolved, 'pending'
        FROM stuck ORDER BY alert_id
        ON CONFLICT DO NOTHING
        RETURNING alert_id, request_id
    ), counted AS (
        INSERT INTO ledger_total AS total (target, accepted)
        SELECT :fallback, count(*) FROM added HAVING count(*) > 0
        ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
    )
    SELECT ended.alert_id, added.alert_id IS NOT NULL AS added, added.request_id,
        'critical' AS severity
    FROM ended LEFT JOIN added USING (alert_id)
""")
_PLACE: Final = sql("""
    INSERT INTO case_place (alert_id, target, case_id, want)
    SELECT alert_id, :fallback, case_id, want FROM case_place
    WHERE alert_id = ANY(CAST(:alert_ids AS uuid[])) AND target = :target
    ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class Way:
    """Where the critical rows of a target go, and when."""

    target: str
    fallback: str
    after: float  # seconds after an alert was accepted
    refuses: bool = False  # the target refuses us: at once
    shut: bool = False  # the fallback is: only what failed, the rest waits for the first to heal


async def stuck(tx: AsyncConnection, way: Way, *, asks: bool, batch: int) -> list[UUID]:
    """Return critical alerts that are due at the fallback; nothing is locked.

    :param asks: only steps, and alerts that ask here; or only all others
    """
    return list((await tx.execute(_STUCK, asdict(way) | {"asks": asks, "batch": batch})).scalars())


async def fall_back(
    tx: AsyncConnection, way: Way, ids: Sequence[UUID], *, same_channel: bool
) -> list[Any]:
    """End these rows, unless a worker has one by now, and add rows for the fallback.

    The case of a step, or of an alert that asks, is locked.

    :returns: the alerts; where `added` is true the new row's work message is to be published
    """
    values = {"target": way.target, "fallback": way.fallback, "alert_ids": list(ids)}
    moved = list(await tx.execute(_FALL_BACK, values | {"same_channel": same_channel}))
    if moved:
        await tx.execute(_PLACE, values | {"alert_ids": [row.alert_id for row in moved]})
    return moved


_OBSERVE: Final = sql("""
    WITH seen AS (
        SELECT key AS target, CAST(value AS bigint) AS number
        FROM jsonb_each_text(CAST(:numbers AS jsonb)) WHERE value <> '0'
    ), over AS (
        DELETE FROM incident WHERE kind = :kind AND target NOT IN (SELECT target FROM seen)
    )
    INSERT INTO incident (kind, target, number) SELECT :kind, target, number FROM seen
    ON CONFLICT (kind, target) DO UPDATE SET number = excluded.number
""")


async def observe(tx: AsyncConnection, kind: IncidentKind, numbers: Mapping[str, int]) -> None:
    """Open incidents of this kind, or update their numbers; close those of 0 and of others."""
    await tx.execute(_OBSERVE, {"kind": kind, "numbers": json.dumps(dict(numbers))})


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """An incident that is due to be reported."""

    kind: IncidentKind
    since: datetime
    number: int


# The pause doubles with each failed mail: one that is refused for good must not leave a failed row
# and a dead letter in every window. An exponent above 1023 would be an error.
MAX_PAUSE_SECONDS: Final = 6 * 3600.0
PAUSE_OVER: Final = f"""coalesce(
    send_failed_at + make_interval(secs =>
        least(:pause * 2 ^ least(send_failures - 1, 30), {MAX_PAUSE_SECONDS})) <= now(), true)"""


# Reported when it has lasted long enough, and repeated after a while. A breaker's incident whose
# breaker is closed by now (the process restarted, and nothing was sent since) is not reported.
# That a target refuses us is reported as soon as it is certain.
_DUE: Final = f"""
    (notified_at IS NULL AND {PAUSE_OVER}
        OR notified_at < now() - make_interval(secs => :repeat))
    AND ({_REFUSES} OR since <= now() - CASE WHEN kind IN ('breaker', 'pending')
        THEN make_interval(secs => :after) ELSE interval '0' END)
    AND (kind <> 'breaker' OR EXISTS (SELECT FROM breaker
        WHERE breaker.target = incident.target AND {SHUT}))
"""
_TARGETS_DUE: Final = sql(f"SELECT DISTINCT target FROM incident WHERE {_DUE}")
_TAKE: Final = sql(f"""
    UPDATE incident SET notified_at = now(), digest = :digest,
        send_failures = CASE WHEN notified_at IS NULL THEN send_failures ELSE 0 END
    WHERE target = :target AND {_DUE}
    RETURNING kind, since, number
""")


@dataclass(frozen=True, slots=True)
class Pace:
    """When operators are notified; seconds."""

    after: float  # how long a breaker is open, or too many are pending, before the first mail
    repeat: float  # until an open incident is reported again
    pause: float  # after a mail that failed; doubled after each further one


async def targets_due(tx: AsyncConnection, pace: Pace) -> list[str]:
    """Return the targets with incidents that are due to be reported."""
    return list((await tx.execute(_TARGETS_DUE, asdict(pace))).scalars())


async def take(tx: AsyncConnection, target: str, digest: UUID, pace: Pace) -> list[OpenIncident]:
    """Mark the due incidents of a target as reported by this digest; return them, oldest first."""
    found = await tx.execute(_TAKE, {"target": target, "digest": digest, **asdict(pace)})
    rows = sorted(found, key=lambda row: row.since)
    return [OpenIncident(IncidentKind(row.kind), row.since, row.number) for row in rows]


_LAST_ERROR: Final = sql("""
    SELECT error FROM delivery
    WHERE target = :target AND state = 'pending' AND error IS NOT NULL
    ORDER BY last_attempt_at DESC NULLS LAST LIMIT 1
""")


async def last_error(tx: AsyncConnection, target: str) -> str | None:
    """Return the latest error of an alert that is still pending."""
    return (await tx.execute(_LAST_ERROR, {"target": target})).scalar_one_or_none()


_MARK_UNSENT: Final = sql("""
    UPDATE incident SET
        notified_at = NULL, digest = NULL,
        send_failed_at = now(), send_failures = send_failures + 1
    WHERE digest = :digest
""")


async def mark_unsent(tx: AsyncConnection, digest: UUID) -> None:
    """Make the incidents that this failed digest reported due again, after a pause."""
    await tx.execute(_MARK_UNSENT, {"digest": digest})
