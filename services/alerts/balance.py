"""P1's equation: for whoever asks, and for the metrics."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, logs
from libs.common.broker import BrokerUnavailable
from services.alerts import metrics
from services.alerts.store import escalations, questions
from services.alerts.sweep import Sweep
from services.alerts.valve import Valve

log = logs.get_logger(__name__)

_ENDS: Final = ("delivered", "pending", "failed", "discarded", "in_doubt")
TERMS: Final = ("accepted", *_ENDS, "duplicates", "stranded", "unread")
WATCHED: Final = ("pending", "failed", "in_doubt")  # what a person may have to look at


class Balance:
    def __init__(
        self, engine: AsyncEngine, sweep: Sweep, valves: Mapping[str, Valve], *, overdue: float
    ) -> None:
        """Take what knows where the copies of rows are.

        :param overdue: seconds after its time from which a row without a copy is stranded
        """
        self._engine = engine
        self._sweep = sweep
        self._valves = valves
        self._overdue = overdue

    async def check(self, *, full: bool = False) -> dict[str, Any]:
        """Count each term. A target whose breaker is open or whose queue is long strands nothing.

        `unread` lie in alerts.intake.dead: no row could be made of them, so no term counts them;
        nor does any count `duplicates`, for which no row was made: their first's was.

        :param full: count every row, also what was delivered long ago
        """
        try:
            empty = await self._sweep.without_copies()
            unread = await self._sweep.unread()
        except BrokerUnavailable:  # nobody can say which rows have lost their copies
            empty, unread = [], 0
        watched = [name for name in empty if self._valves[name].seconds_shut == 0]
        async with self._engine.begin() as tx:
            terms = await questions.check(tx, watched, self._overdue, full=full)
        balanced = terms["accepted"] == sum(terms[name] for name in _ENDS)
        ok = balanced and terms["stranded"] == 0 and unread == 0
        return {"ok": ok, **terms, "unread": unread, "full": full}

    async def watch(self, seconds: float) -> None:
        """Keep the metrics true; every replica tells the same, and rules take any one's word.

        :param seconds: between two looks
        """
        while True:
            try:
                await self._measure()
            except Exception as error:
                if not db.may_pass(error):
                    raise
                metrics.LEDGER_OK.set(math.nan)
                log.warning("balance.database_unavailable")
            await asyncio.sleep(seconds)

    async def _measure(self) -> None:
        found = await self.check()
        async with self._engine.connect() as tx:
            by_target = await questions.stats(tx)
            untold = await escalations.untold_seconds(tx)
        metrics.ESCALATION_UNTOLD.set(untold)
        metrics.LEDGER_OK.set(found["ok"])
        for term in TERMS:
            metrics.LEDGER_TERM.labels(term).set(found[term])
        for target, counts in by_target.items():
            for state in WATCHED:
                metrics.LEDGER_ROWS.labels(target, state).set(counts[state])
