"""What looks after rows that nobody else does: lost copies, dead workers, a new broker, old age."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import logs, outbox
from libs.common.broker import Broker, BrokerUnavailable
from libs.common.topology import Queue, dead_name, delay_name, retry_name
from services.alerts import delivery, messages, metrics, topology
from services.alerts.alert import Reason, State
from services.alerts.config import Config
from services.alerts.store import steps, tables, troubles, upkeep
from services.alerts.store.questions import Cursor

log = logs.get_logger(__name__)

BATCH = 500
# A replica with a newer file, and a target more, may be at work beside this one.
UNROUTED_SECONDS = 3600.0
NEVER_TRIED = "never tried: the target was not available"


class Sweep:
    def __init__(
        self,
        config: Config,
        engine: AsyncEngine,
        broker: Broker,
        *,
        overdue: float,
        fallback_after: float,
    ) -> None:
        self._config = config
        self._engine = engine
        self._broker = broker
        self._overdue = overdue
        self._fallback_after = fallback_after

    async def run(self) -> None:
        """Safe to run too early, or twice: it only makes twins, which the claim absorbs."""
        async with self._engine.connect() as tx:
            abandoned = await upkeep.abandoned(tx)
        for alert_id, target in abandoned:
            await delivery.doubt(self._engine, alert_id, target)
        for target, options in self._config.targets.items():
            old = partial(upkeep.too_old, target=target, seconds=options.max_age, batch=BATCH)
            await self._end(old, Reason.EXPIRED, NEVER_TRIED)
        left = partial(
            upkeep.of_no_target,
            targets=list(self._config.targets),
            seconds=UNROUTED_SECONDS,
            batch=BATCH,
        )
        await self._end(left, Reason.UNROUTED, "its target is not configured any more")
        await self._fall_back()
        if not self._broker.connected:
            return
        try:
            if await self._broker_is_new():
                await self._publish_all()
                await self._mark()
            else:
                await self._publish_overdue(await self.without_copies())
        except BrokerUnavailable:
            log.warning("sweep.broker_lost")

    async def _end(
        self, locked: Callable[[AsyncConnection], Awaitable[list[Any]]], reason: Reason, why: str
    ) -> None:
        """End what would wait for ever: for a breaker that never closes, or for no target."""
        while True:
            async with self._engine.begin() as tx:
                rows = await locked(tx)
                if not rows:
                    return
                error = sa.func.coalesce(tables.delivery.c.error, why)
                await upkeep.end(tx, rows, State.FAILED, reason, error)
                for row in rows:
                    ended = replace(steps.ended(row), error=row.error or why)
                    if ended.once is not None and row.state == State.CLAIMED:
                        await delivery.return_permit(tx, ended.alert_id, ended.attempt, ended.once)
                    await delivery.tell(tx, ended, State.FAILED, reason)
            for target, count in Counter(row.target for row in rows).items():
                log.warning("sweep.ended", target=target, reason=reason, rows=count)

    async def _fall_back(self) -> None:
        """Hand what is critical to the fallback of a target that nothing has reached for long."""
        async with self._engine.connect() as tx:
            sick = await troubles.sick(tx)
        for target, trouble in sick.items():
            fallback = self._config.fallback(target)
            if fallback is None or trouble.seconds < self._fallback_after:
                continue
            if fallback in sick and sick[fallback].shut:  # no way around: the first to heal has it
                continue
            await self._move(target, fallback, shut=trouble.shut)

    async def _move(self, target: str, fallback: str, *, shut: bool) -> None:
        targets = self._config.targets
        same_channel = targets[target].channel == targets[fallback].channel
        while True:
            async with self._engine.begin() as tx:
                moved = await troubles.fall_back(
                    tx, target, fallback, shut=shut, same_channel=same_channel, batch=BATCH
                )
                await outbox.add_all(
                    tx,
                    [
                        (
                            topology.ALERTS.name,
                            topology.work_name(fallback),
                            messages.work(row.alert_id, fallback, 0, row.request_id),
                        )
                        for row in moved
                        if row.added
                    ],
                )
            if not moved:
                return
            metrics.FELL_BACK.labels(target).inc(len(moved))
            log.warning("sweep.fell_back", target=target, fallback=fallback, rows=len(moved))

    async def without_copies(self) -> list[str]:
        """Return the targets none of whose queues holds a message, nor the outbox for them."""
        async with self._engine.connect() as tx:
            leaving = await upkeep.leaving(tx)
        return [
            name
            for name in self._config.targets
            if topology.work_name(name) not in leaving and await self._is_empty(name)
        ]

    async def _is_empty(self, target: str) -> bool:
        for queue in self._queues(target):
            if await self._broker.depth(queue):
                return False
        return True

    async def depths(self) -> dict[str, int]:
        """Return how many messages are ready in each work queue and in intake."""
        names = [topology.INTAKE_QUEUE, *map(topology.work_name, self._config.targets)]
        return {name: await self._broker.depth(name) or 0 for name in names}

    async def unread(self) -> int:
        """Return how many accepted messages no ledger row could be made of."""
        return await self._broker.depth(dead_name(topology.INTAKE_QUEUE)) or 0

    def _queues(self, target: str) -> list[str]:
        name = topology.work_name(target)
        options = self._config.targets[target]
        delays = set(options.policy.tiers) - {options.retry_delays[0]}
        return [name, retry_name(name), *(delay_name(name, int(delay)) for delay in delays)]

    async def _publish_overdue(self, targets: Sequence[str]) -> None:
        start = monotonic()
        while targets:
            # What this run has handed out is not overdue, however long the run may be.
            seconds = self._overdue + monotonic() - start
            async with self._engine.begin() as tx:
                rows = await upkeep.overdue(tx, targets, seconds, BATCH)
                await upkeep.hand_out(tx, rows)
            _log_published(rows)
            if len(rows) < BATCH:
                return

    async def _publish_all(self) -> None:
        after: Cursor | None = None
        while True:
            async with self._engine.begin() as tx:
                rows = await upkeep.open_after(tx, list(self._config.targets), after, BATCH)
                await upkeep.hand_out(tx, rows)
            _log_published(rows)
            if len(rows) < BATCH:
                return
            after = (rows[-1].created_at, rows[-1].alert_id, rows[-1].target)

    async def _broker_is_new(self) -> bool:
        """Say whether the marker queue of the ledger's epoch is gone: the broker lost its disk."""
        async with self._engine.connect() as tx:
            epoch = await upkeep.epoch_of(tx)
        return epoch is None or await self._broker.depth(f"alerts.epoch.{epoch}") is None

    async def _mark(self) -> None:
        """Begin an epoch, the queue last: a crash in between only sweeps again."""
        epoch = uuid4()
        async with self._engine.begin() as tx:
            await upkeep.begin_epoch(tx, epoch)
        marker = Queue(f"alerts.epoch.{epoch}", {"x-queue-type": "quorum"})
        await self._broker.declare_once(marker)


def _log_published(rows: Sequence[Any]) -> None:
    for target, count in Counter(row.target for row in rows).items():
        metrics.SWEPT.labels(target).inc(count)
        log.warning("sweep.published_again", target=target, rows=count)
