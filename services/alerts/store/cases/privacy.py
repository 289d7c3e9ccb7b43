"""Finds, empties and purges cases; purged ones stay counted in case_total."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.rules.case import Cancelled, State
from services.alerts.rules.subjects import Hash
from services.alerts.store.cases import cases
from services.alerts.store.tables import alert_case, case_answer, names

run = Queries(__file__, columns=names(alert_case))

PAGE: Final = 16
KEPT_SECONDS: Final = 365 * 86400.0
"""How long a case is kept after its end."""


async def page(tx: AsyncConnection, hashes: Sequence[Hash] | None, after: int) -> list[Any]:
    """Return cases that name one of these; None: that name anyone. The last page is shorter.

    :param after: how many came before
    """
    given = {"begin_at": after, "batch": PAGE}
    if hashes is None:
        return await run(tx, "any", **given)
    return await run(tx, "theirs", **given, hashes=list(hashes))


async def answers(tx: AsyncConnection, case_ids: Sequence[UUID]) -> list[Any]:
    found = await tx.execute(
        sa.select(case_answer).where(case_answer.c.case_id.in_(case_ids)).order_by(case_answer.c.id)
    )
    return list(found)


async def erase(tx: AsyncConnection, case_id: UUID) -> bool:
    """Empty a case, end it, and update its places; the row stays, because it is counted.

    :returns: False while a message that can be overwritten still says what was: try again later
    """
    row = await cases.lock(tx, case_id)
    if row is None:
        return True
    if row.state in {State.OPEN, State.UNANSWERED}:
        await cases.cancel(tx, row, Cancelled.ERASED)
    elif row.payload is not None:
        await cases.run(tx, "recall", case_id=case_id)  # the reminder of its owner
        await cases.tell_erased(tx, case_id)
    await run(tx, "empty", case_id=case_id)
    if await _overwriting(tx, case_id):
        return False
    await run(tx, "unname_all", case_id=case_id)
    return True


async def strike(
    tx: AsyncConnection, case_id: UUID, gone: Collection[Hash], without: Callable[[Any], Any]
) -> bool:
    """Strike a mention out of a case and its messages, keeping the rest; returns as `erase`."""
    row = await cases.lock(tx, case_id)
    if row is None:
        return True
    mine = sa.update(alert_case).where(alert_case.c.alert_id == case_id)
    if (payload := without(row.payload)) != row.payload:
        await tx.execute(mine.values(payload=payload))
        await cases.tell_erased(tx, case_id)
    for said in await answers(tx, [case_id]):
        one = sa.update(case_answer).where(case_answer.c.id == said.id)
        await tx.execute(one.values(reason=without(said.reason)))
    if await _overwriting(tx, case_id):
        return False
    await run(tx, "unname", case_id=case_id, hashes=list(gone))
    return True


async def _overwriting(tx: AsyncConnection, case_id: UUID) -> bool:
    """Return whether an update of a message that can be changed is due or on its way."""
    return bool((await run(tx, "overwriting", case_id=case_id)).scalar_one())
