"""Queries for people and operators: cases, one case, the equation of cases."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.rules.case import FOLLOWUPS, State
from services.alerts.store.cases.places import DUE
from services.alerts.store.sql import statements
from services.alerts.store.tables import alert_case

SQL: Final = statements(__file__, due=DUE)


async def page(
    tx: AsyncConnection, limit: int, *, state: str | None, owner: str | None, after: UUID | None,
    leads: bool | None, closed: bool | None,
) -> list[Any]:  # fmt: skip
    """Return some cases, the oldest first.

    :param after: the last case of the page before
    :param leads: only those about leads, or only others
    :param closed: only those with an outcome or cancelled, or only others
    """
    column = alert_case.c
    order = (column.opened_at, column.alert_id)
    statement = sa.select(alert_case).order_by(*order).limit(limit)
    if state is not None:
        statement = statement.where(column.state == state)
    if owner is not None:
        statement = statement.where(column.owner == owner)
    if leads is not None:
        statement = statement.where((column.source == FOLLOWUPS) == leads)
    if closed is not None:
        over = column.outcome.is_not(None) | (column.state == State.CANCELLED)
        statement = statement.where(over == closed)
    if after is not None:
        last = sa.select(*order).where(column.alert_id == after).scalar_subquery()
        statement = statement.where(sa.tuple_(*order) > last)
    return list(await tx.execute(statement))


@dataclass(frozen=True, slots=True)
class CaseDetails:
    case: Any
    steps: list[Any]  # each with the state, reason and error of its delivery
    answers: list[Any]
    places: list[Any]


async def find(tx: AsyncConnection, case_id: UUID) -> CaseDetails | None:
    async def rows(name: str) -> list[Any]:
        return list(await tx.execute(SQL[name], {"case_id": case_id}))

    if not (case := await rows("case")):
        return None
    return CaseDetails(case[0], await rows("steps"), await rows("answers"), await rows("places"))


STATES: Final = ("open", "answered", "unanswered", "cancelled")
FAULTS: Final = ("stranded", "missing", "unlisted", "ownerless", "updates_overdue")
TERMS: Final = ("opened", *STATES, *FAULTS, "undelivered")


async def check(tx: AsyncConnection) -> dict[str, Any]:
    """Count each term, and return whether they are `ok` together.

    Every case that was ever opened is in one state, and nothing waits forever: `stranded` is
    due and no timer moves it, `missing` ended before its chain was over, `unlisted` is unanswered
    and in no digest, `ownerless` has no answer of its owner, `updates_overdue` counts places that
    no update corrects. `undelivered` are unanswered cases with a failed step; operators were
    notified.
    """
    row = (await tx.execute(SQL["check"])).one()
    terms = {name: int(getattr(row, name)) for name in TERMS}
    balanced = terms["opened"] == sum(terms[name] for name in STATES)
    return {"ok": balanced and not any(terms[name] for name in FAULTS), **terms}
