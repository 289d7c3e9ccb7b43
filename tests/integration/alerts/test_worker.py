"""What a worker that was overtaken answers to RabbitMQ; the ledger is real, the target is ours."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.consume import Ack, Delivery, Retry
from services.alerts import messages
from services.alerts.alert import Claimed, Kind, Outcome, Policy, Reason, decide
from services.alerts.breaker import Breaker
from services.alerts.config import SlackTarget
from services.alerts.delivery import Worker
from services.alerts.store import steps
from services.alerts.store.steps import Tried
from services.alerts.valve import Valve
from tests.integration.alerts.test_store import new_row
from tests.support.eventually import eventually

TAKEN = Outcome(Kind.DELIVERED, Reason.OK, 200)
POLICY = Policy(retry_delays=(300,), wait_tiers=(), max_age=3600)


class Slow:
    """A target that answers when the lease is over and another worker has the alert."""

    def __init__(self, engine: AsyncEngine, *, ends: bool) -> None:
        self._engine = engine
        self._ends = ends

    async def send(self, job: Claimed) -> Outcome:
        newer = await eventually(lambda: self._taken_over(job))
        if self._ends:
            decision = decide(TAKEN, spent=2, age=0, policy=POLICY)
            async with self._engine.begin() as tx:
                assert await steps.settle(tx, [Tried(newer, TAKEN, decision, 0.1)]) == [True]
        return TAKEN

    async def _taken_over(self, job: Claimed) -> Any:
        async with self._engine.begin() as tx:
            (newer,) = await steps.claim(
                tx, "slack", [(job.alert_id, job.turn)], lease=60, retries=5, take_over=True
            )
        return newer

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("ends", "verdict"), [(False, Retry("fenced")), (True, Ack())])
async def test_a_worker_that_was_overtaken_gives_its_copy_up_only_where_the_alert_has_ended(
    engine: AsyncEngine, *, ends: bool, verdict: Ack | Retry
) -> None:
    nothing: Any = None
    breaker = Breaker("slack", fail_max=5, reset_timeout=60)
    target = SlackTarget.model_construct(timeout=0.005, margin=0.005, retry_delays=(300,))
    worker = Worker(
        "slack",
        target,
        Slow(engine, ends=ends),
        breaker,
        Valve(breaker),
        engine=engine,
        broker=nothing,
        permits=nothing,
    )
    message = messages.work(await new_row(engine, target="slack"), "slack", 0, None)
    assert await worker.handle(message, Delivery(redelivered=False, death_count=0)) == verdict
