"""Changes rows that no worker has claimed: requeues, ends and purges them."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from libs.common.messaging import inbox, outbox
from services.alerts import topology
from services.alerts.rules.delivery import Reason, State
from services.alerts.store.tables import BARE, KEPT, OPEN

run = Queries(
    __file__, bare=BARE, kept=KEPT, open=OPEN,
    once_kept_seconds=inbox.KEEP.total_seconds(),
)  # fmt: skip

RESET: Final[dict[str, Any]] = {
    "how": "reset",
    "operator": None,
    "error": None,
    "keep_error": True,
}
"""How a manual retry requeues rows; without `keep_error` they get this `error`."""


async def requeue(
    tx: AsyncConnection,
    rows: Sequence[Any],
    *,
    later: float = 0.0,
    how: str = "requeue",
    **given: Any,
) -> None:
    """Publish the work of these locked rows again, through the outbox, in the next generation.

    A higher generation makes every older message a duplicate, which is acknowledged unsent. The
    rows are due when their messages leave the outbox, so none counts as lost before that.

    :param later: seconds for which the messages stay in the outbox, so that others can pass
    :param how: the statement, which has further parameters
    """
    if rows:
        again = await run(tx, how, **_keys(rows), later=later, **given)
        works = [topology.work(row, row.target, row.generation) for row in again]
        await outbox.add_all(tx, works, later=later)


async def end(
    tx: AsyncConnection,
    rows: Sequence[Any],
    state: State,
    reason: Reason,
    error: str | None,
    operator: str | None = None,
    *,
    keep_error: bool = False,
) -> None:
    """End these locked rows without an attempt.

    :param keep_error: a row that has an error already keeps it
    """
    said = {"error": error, "keep_error": keep_error, "operator": operator}
    await run(tx, "end", **_keys(rows), state=state, reason=reason, **said)


def _keys(rows: Sequence[Any]) -> dict[str, list[Any]]:
    return {
        "alert_ids": [row.alert_id for row in rows],
        "targets": [row.target for row in rows],
    }
