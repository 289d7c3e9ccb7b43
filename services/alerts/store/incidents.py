"""Open incidents of targets: since when, what was reported of them, and the way to a fallback."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.store.breakers import SHUT
from services.alerts.store.sql import sql


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

    seconds: float
    shut: bool  # its breaker is not closed now, or it is paused


_UNHEALTHY: Final = sql(f"""
    SELECT target, CAST(extract(epoch FROM now() - since) AS float) AS seconds,
        EXISTS (SELECT FROM breaker WHERE breaker.target = incident.target AND {SHUT}) AS shut
    FROM incident WHERE kind = 'breaker'
""")


async def unhealthy(tx: AsyncConnection) -> dict[str, Unhealthy]:
    """Return the unhealthy targets by name."""
    found = await tx.execute(_UNHEALTHY)
    return {row.target: Unhealthy(row.seconds, row.shut) for row in found}


# The new row is an accepted one like any other, but without a dedup key: whether it is a repeat was
# decided when the alert came. A recipient in the payload was meant for the first channel only.
# Where the alert already has a row for the fallback, that row must not have ended badly.
_FALL_BACK: Final = """
    WITH stuck AS (
        SELECT alert_id, target, event_type, severity, source, payload, request_id, accepted_at,
            subjects, resolved
        FROM delivery
        WHERE state = 'pending' AND severity = 'critical' AND target = :target
            AND once_address IS NULL AND (:shut OR attempt > 0) AND {which}
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
"""
# A step, and an alert where it asks. An update is never critical.
_ASKS: Final = """
    EXISTS (SELECT FROM case_place
        WHERE (case_place.alert_id, case_place.target) = (delivery.alert_id, delivery.target))
"""
_FALL_BACK_MANY: Final = sql(_FALL_BACK.format(which=f"NOT {_ASKS}"))
_FALL_BACK_ONE: Final = sql(_FALL_BACK.format(which="alert_id = :alert_id"))
_STUCK_PLACES: Final = sql(f"""
    SELECT alert_id FROM delivery
    WHERE state = 'pending' AND severity = 'critical' AND target = :target
        AND {_ASKS} AND (:shut OR attempt > 0)
    ORDER BY created_at LIMIT :batch
""")
_PLACE: Final = sql("""
    INSERT INTO case_place (alert_id, target, case_id, want)
    SELECT alert_id, :fallback, case_id, want FROM case_place
    WHERE alert_id = :alert_id AND target = :target
    ON CONFLICT DO NOTHING
""")


async def fall_back(
    tx: AsyncConnection,
    target: str,
    fallback: str,
    *,
    shut: bool,
    same_channel: bool,
    batch: int,
    place: UUID | None = None,
) -> list[Any]:
    """End some unclaimed critical rows of an unhealthy target, and add rows for its fallback.

    :param shut: include rows that were never tried
    :param place: only this step, or alert that asks, whose case is locked; None: all others
    :returns: the alerts; where `added` is true the new row's work message is to be published
    """
    values = {
        "target": target,
        "fallback": fallback,
        "shut": shut,
        "same_channel": same_channel,
        "batch": batch,
    }
    if place is None:
        return list(await tx.execute(_FALL_BACK_MANY, values))
    moved = list(await tx.execute(_FALL_BACK_ONE, {**values, "alert_id": place}))
    if moved:
        await tx.execute(_PLACE, {"alert_id": place, "target": target, "fallback": fallback})
    return moved


async def stuck_places(tx: AsyncConnection, target: str, *, shut: bool, batch: int) -> list[UUID]:
    """Return steps, and alerts that ask here, that may fall back; nothing is locked."""
    found = await tx.execute(_STUCK_PLACES, {"target": target, "shut": shut, "batch": batch})
    return [row.alert_id for row in found]


_OBSERVE: Final = sql("""
    WITH seen AS (
        SELECT key AS target, CAST(value AS bigint) AS number
        FROM jsonb_each_text(CAST(:numbers AS jsonb))
    ), over AS (
        DELETE FROM incident WHERE kind = :kind AND target NOT IN (SELECT target FROM seen)
    )
    INSERT INTO incident (kind, target, number) SELECT :kind, target, number FROM seen
    ON CONFLICT (kind, target) DO UPDATE SET number = excluded.number
""")


async def observe(tx: AsyncConnection, kind: IncidentKind, numbers: Mapping[str, int]) -> None:
    """Open incidents of this kind, or update their numbers; close those of all other targets."""
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
_DUE: Final = f"""
    (notified_at IS NULL AND {PAUSE_OVER}
        OR notified_at < now() - make_interval(secs => :repeat))
    AND since <= now() - CASE WHEN kind IN ('breaker', 'pending')
        THEN make_interval(secs => :after) ELSE interval '0' END
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
