"""Open incidents of targets: since when, what was reported, and the move to a fallback."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.store.breakers import SHUT
from services.alerts.store.sql import statements
from services.alerts.store.tables import KEPT


class IncidentKind(StrEnum):
    BREAKER = auto()  # it opened, and nothing has been delivered since
    PENDING = auto()  # too many deliveries are pending
    IN_DOUBT = auto()  # an operator has to resolve some
    UNREAD = auto()  # accepted messages that could not become rows
    ROTA = auto()  # the file of a schedule cannot be used as it is
    UNANSWERED = auto()  # cases whose chain is over


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """A target whose breaker opened, or that asked for a pause; nothing was delivered since."""

    shut: bool  # its breaker is not closed now, or it is paused
    refuses: bool  # it refuses us, and not one alert only
    since: datetime


CERTAIN_SECONDS: Final = 10.0
"""After a refusal: in this time the next alert is tried, to see whether that is refused as well."""


async def unhealthy(tx: AsyncConnection) -> dict[str, Unhealthy]:
    """Return the unhealthy targets by name."""
    found = await tx.execute(SQL["unhealthy"])
    return {row.target: Unhealthy(row.shut, row.refuses, row.since) for row in found}


@dataclass(frozen=True, slots=True)
class Way:
    """Where the critical rows of a target go, and when."""

    target: str
    fallback: str
    after: float  # seconds after an alert was accepted
    refuses: bool = False  # the target refuses us: at once
    shut: bool = False  # the fallback is: move only what failed, the rest waits for a recovery


async def stuck(tx: AsyncConnection, way: Way, *, asks: bool, batch: int) -> list[UUID]:
    """Return critical alerts that are due at the fallback; nothing is locked.

    :param asks: only steps, and alerts that ask here; or only all others
    """
    return list(
        (await tx.execute(SQL["stuck"], asdict(way) | {"asks": asks, "batch": batch})).scalars()
    )


async def fall_back(
    tx: AsyncConnection, way: Way, ids: Sequence[UUID], *, same_channel: bool
) -> list[Any]:
    """End these rows, except those that a worker has taken, and add rows for the fallback.

    The case of a step, or of an alert that asks, is locked.

    :returns: the alerts; where `added` is true the new row's work message is to be published
    """
    values = {"target": way.target, "fallback": way.fallback, "alert_ids": list(ids)}
    moved = list(await tx.execute(SQL["fall_back"], values | {"same_channel": same_channel}))
    if moved:
        await tx.execute(SQL["place"], values | {"alert_ids": [row.alert_id for row in moved]})
    return moved


async def observe(tx: AsyncConnection, kind: IncidentKind, numbers: Mapping[str, int]) -> None:
    """Open incidents of this kind, or update their numbers; close those of 0 and of others."""
    await tx.execute(SQL["observe"], {"kind": kind, "numbers": json.dumps(dict(numbers))})


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

SQL: Final = statements(
    __file__, certain_seconds=CERTAIN_SECONDS, shut=SHUT, kept=KEPT, pause_over=PAUSE_OVER
)


@dataclass(frozen=True, slots=True)
class Pace:
    """When operators are notified; seconds."""

    after: float  # how long a breaker is open, or too many are pending, before the first mail
    repeat: float  # until an open incident is reported again
    pause: float  # after a mail that failed; doubled after each further one


async def targets_due(tx: AsyncConnection, pace: Pace) -> list[str]:
    """Return the targets with incidents that are due to be reported."""
    return list((await tx.execute(SQL["targets_due"], asdict(pace))).scalars())


async def take(tx: AsyncConnection, target: str, digest: UUID, pace: Pace) -> list[OpenIncident]:
    """Mark the due incidents of a target as reported by this digest; return them, oldest first."""
    found = await tx.execute(SQL["take"], {"target": target, "digest": digest, **asdict(pace)})
    rows = sorted(found, key=lambda row: row.since)
    return [OpenIncident(IncidentKind(row.kind), row.since, row.number) for row in rows]


async def last_error(tx: AsyncConnection, target: str) -> str | None:
    """Return the latest error of an alert that is still pending."""
    return (await tx.execute(SQL["last_error"], {"target": target})).scalar_one_or_none()


async def mark_unsent(tx: AsyncConnection, digest: UUID) -> None:
    """Make the incidents that this failed digest reported due again, after a pause."""
    await tx.execute(SQL["mark_unsent"], {"digest": digest})
