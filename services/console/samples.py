"""Counts what each target has, once a minute, and makes charts of it.

The first sample of a minute is its row: replicas that overlap, or a job that is repeated, add
nothing. A minute in which the console or alerts is away has none; what was delivered in it counts
in the next one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncEngine

from services.console.gateway import Gateway
from services.console.rules import LANGUAGES, Role
from services.console.store.sessions import Visitor
from services.console.store.sql import run

SECONDS = 30.0
"""Twice a minute: a job that is a little late each time would leave one out."""
NUMBERS = ("pending", "delivered", "failed")
DAYS = 14
PERIODS = {"1": ("hour", 24), "14": ("day", DAYS)}
"""Days, as a page's address names them: the unit of time of each bar, and how many there are."""
CONSOLE = Visitor(
    UUID(int=0), "", "console", (Role.VIEWER,), LANGUAGES[0], b"", datetime.min.replace(tzinfo=UTC)
)
"""The caller when no person asks; it may see counts and nothing else."""


async def take(engine: AsyncEngine, gateway: Gateway) -> None:
    counted = await gateway.get(CONSOLE, "/api/dlq/stats")
    if counted.ok:
        async with engine.begin() as tx:
            for target, counts in counted.body["targets"].items():
                numbers = {name: counts[name] for name in NUMBERS}
                await run(tx, "add_sample", target=target, **numbers)
            await run(tx, "purge_samples", days=DAYS)


@dataclass(frozen=True, slots=True)
class Chart:
    kind: str
    values: list[int | None]
    """The oldest first; None: none was taken in that time."""

    @property
    def most(self) -> int:
        return max(filter(None, self.values), default=0)

    @property
    def number(self) -> int:
        """Return the total of the bars; of what waited, the largest."""
        return self.most if self.kind == "pending" else sum(filter(None, self.values))


def begins(unit: str, count: int, now: datetime, zone: ZoneInfo) -> list[datetime]:
    """Return when each of the last hours or days began; the last one is not over."""
    if unit == "hour":
        last = now.replace(minute=0, second=0, microsecond=0)
        return [last - timedelta(hours=ago) for ago in reversed(range(count))]
    today = now.astimezone(zone).date()
    return [
        datetime.combine(today - timedelta(days=ago), time(), zone)
        for ago in reversed(range(count))
    ]


def charts(rows: Iterable[Any], times: Sequence[datetime]) -> dict[str, list[Chart]]:
    """Return the charts of each target that has samples.

    :param rows: of `samples_by_time`
    """
    found: dict[str, dict[datetime, Any]] = {}
    for row in rows:
        found.setdefault(row.target, {})[row.begin] = row
    return {
        target: [
            Chart(kind, [getattr(by_time.get(at), kind, None) for at in times]) for kind in NUMBERS
        ]
        for target, by_time in found.items()
    }
