"""Queries for people and operators: cases, one case, the equation of cases."""

from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.store.cases.places import DUE
from services.alerts.store.tables import alert_case, names

run = Queries(__file__, due=DUE, columns=names(alert_case))

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
    row = (await run(tx, "check")).one()
    terms = {name: int(getattr(row, name)) for name in TERMS}
    balanced = terms["opened"] == sum(terms[name] for name in STATES)
    return {"ok": balanced and not any(terms[name] for name in FAULTS), **terms}
