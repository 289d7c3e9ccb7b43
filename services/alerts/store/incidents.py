"""What operators must be told: failures, open incidents of targets, and moves to a fallback."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum, auto
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.messages import ESCALATION
from services.alerts.store.breakers import SHUT
from services.alerts.store.tables import KEPT, OPEN


class IncidentKind(StrEnum):
    BREAKER = auto()  # it opened, and nothing has been delivered since
    PENDING = auto()  # too many deliveries are pending
    IN_DOUBT = auto()  # an operator has to resolve some
    UNREAD = auto()  # accepted messages that could not become rows
    ROTA = auto()  # the file of a schedule cannot be used as it is
    UNANSWERED = auto()  # cases whose chain is over


CERTAIN_SECONDS: Final = 10.0
"""After a refusal: in this time the next alert is tried, to see whether that is refused as well."""
# The pause doubles with each failed mail: one that is refused for good must not leave a failed row
# and a dead letter in every window. An exponent above 1023 would be an error.
MAX_PAUSE_SECONDS: Final = 6 * 3600.0
PAUSE_OVER: Final = f"""coalesce(
    send_failed_at + make_interval(secs =>
        least(:pause * 2 ^ least(send_failures - 1, 30), {MAX_PAUSE_SECONDS})) <= now(), true)"""

run = Queries(
    __file__, json=["numbers"], certain_seconds=CERTAIN_SECONDS,
    shut=SHUT, kept=KEPT, open=OPEN, pause_over=PAUSE_OVER, escalation=ESCALATION,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pace:
    """When operators are notified; seconds."""

    after: float  # how long a breaker is open, or too many are pending, before the first mail
    repeat: float  # until an open incident is reported again
    pause: float  # after a mail that failed; doubled after each further one


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
    return (await run(tx, "stuck", **asdict(way), asks=asks, batch=batch)).scalars()


async def fall_back(
    tx: AsyncConnection, way: Way, ids: Sequence[UUID], *, same_channel: bool
) -> list[Any]:
    """End these rows, except those that a worker has taken, and add rows for the fallback.

    The case of a step, or of an alert that asks, is locked.

    :returns: the alerts; where `added` is true the new row's work message is to be published
    """
    values = {"target": way.target, "fallback": way.fallback, "alert_ids": list(ids)}
    moved = await run(tx, "fall_back", **values, same_channel=same_channel)
    if moved:
        await run(tx, "place", **values | {"alert_ids": [row.alert_id for row in moved]})
    return moved
