"""The ledger check: accepted equals the sum of all ends, on request and for the metrics."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from services.alerts import metrics
from services.alerts.channels import monitor
from services.alerts.store import incidents
from services.alerts.store.cases import queries as case_queries
from services.alerts.store.ledger import gaps, queries
from services.alerts.targets.throttle import Throttle
from services.alerts.upkeep.reconcile import Reconciler

_ENDS: Final = ("delivered", "pending", "failed", "discarded", "in_doubt")
TERMS: Final = ("accepted", *_ENDS, "duplicates", "stranded", "unread", "missing")
WATCHED: Final = ("pending", "failed", "in_doubt")  # states that an operator may have to look at


@dataclass(eq=False)
class LedgerCheck:
    engine: AsyncEngine
    reconciler: Reconciler
    throttles: Mapping[str, Throttle]
    overdue: float  # seconds after its due time from which a row without a message is stranded
    ok: bool | None = field(default=None, init=False)  # as last found; None: unknown

    async def check(self) -> dict[str, Any]:
        """Count each term, and return whether they are `ok` together.

        `unread` messages lie in alerts.intake.dead: they have no row, so no other term counts them.
        `duplicates` have no row of their own either. `stranded` rows are overdue without a message;
        a target that is shut, or whose queues are not known to be empty, has none. `unread` is None
        while it is unknown, and then `ok` is None unless another term is wrong. `missing` alerts
        were confirmed to a gateway and never came; `gaps` has their numbers. `cases` is the same
        for cases, with an `ok` of its own. `escalation_unsent_seconds` is the age of the oldest
        failure that no mail has reported.
        """
        empty = await self.reconciler.targets_without_messages()
        unread = await self.reconciler.unread()
        throttles = ((name, self.throttles.get(name)) for name in empty)
        watched = [name for name, each in throttles if each and each.seconds_shut == 0]
        async with self.engine.begin() as tx:
            terms = await queries.check(tx, watched, self.overdue)
            cases = await case_queries.check(tx)
            unsent = await incidents.run(tx, "unsent_seconds")
            lost = await gaps.found(tx)
        missing = sum(each["count"] for each in lost)
        balanced = terms["accepted"] == sum(terms[name] for name in _ENDS)
        ok = balanced and terms["stranded"] == 0 and not unread and not missing
        known = None if ok and unread is None else ok
        found = {"ok": known, **terms, "unread": unread, "missing": missing, "gaps": lost}
        return found | {"cases": cases, "escalation_unsent_seconds": unsent.scalar_one()}

    async def tell(self, monitor_url: SecretStr) -> None:
        """Request the monitor's URL, if there is one, while all is ok."""
        if self.ok and monitor_url:
            await monitor.ping(monitor_url)

    async def watch(self, seconds: float) -> None:
        """Update the metrics forever: one replica counts, and all report what it found.

        :param seconds: between two updates
        """
        while True:
            with postgres.through_outages("ledger_check.database_unavailable") as outage:
                await self._measure(4 * seconds)
            if outage.error:
                self.ok = None
                metrics.LEDGER_OK.set(math.nan)
            await asyncio.sleep(seconds)

    async def _measure(self, max_age: float) -> None:
        async with self.engine.begin() as tx:
            found = await queries.last_check(tx, max_age)
        if found is None:
            found = await self.check()
            await queries.run.alone(self.engine, "keep", found=found)
        async with self.engine.connect() as tx:
            by_target = await queries.stats(tx)
            unsent = await incidents.run(tx, "unsent_seconds")
        metrics.ESCALATION_UNSENT.set(unsent.scalar_one())
        self.ok = found["ok"]
        metrics.LEDGER_OK.set(_number(self.ok))
        for term in TERMS:
            metrics.LEDGER_TERM.labels(term).set(_number(found.get(term)))
        if (cases := found.get("cases")) is not None:  # else counted by an older release
            metrics.CASES_OK.set(_number(cases["ok"]))
            for term in case_queries.TERMS:
                metrics.CASE_TERM.labels(term).set(cases[term])
        for target, counts in by_target.items():
            for state in WATCHED:
                metrics.LEDGER_ROWS.labels(target, state).set(counts[state])


def _number(known: float | None) -> float:
    return math.nan if known is None else known
