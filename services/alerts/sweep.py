"""What looks after rows that nobody else does: lost copies, dead workers, a new broker, old age."""

from collections import Counter
from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import logs
from libs.common.broker import Broker, BrokerUnavailable
from libs.common.topology import Queue, dead_name, delay_name, retry_name
from services.alerts import delivery, metrics, topology
from services.alerts.alert import Reason, State
from services.alerts.config import Config
from services.alerts.store import steps, upkeep

log = logs.get_logger(__name__)

BATCH = 500


class Sweep:
    def __init__(
        self, config: Config, engine: AsyncEngine, broker: Broker, *, overdue: float
    ) -> None:
        self._config = config
        self._engine = engine
        self._broker = broker
        self._overdue = overdue

    async def run(self) -> None:
        """Safe to run too early, or twice: it only makes twins, which the claim absorbs."""
        async with self._engine.connect() as tx:
            abandoned = await upkeep.abandoned(tx)
        for alert_id, target in abandoned:
            await delivery.doubt(self._engine, alert_id, target)
        for target, options in self._config.targets.items():
            await self._expire(target, options.max_age)
        if not self._broker.connected:
            return
        try:
            if await self._broker_is_new():
                await self._publish(list(self._config.targets), None)
                await self._mark()
            else:
                await self._publish(await self.without_copies(), self._overdue)
        except BrokerUnavailable:
            log.warning("sweep.broker_lost")

    async def _expire(self, target: str, max_age: float) -> None:
        """End what a breaker that never closes would hold for ever."""
        while True:
            async with self._engine.begin() as tx:
                rows = await upkeep.too_old(tx, target, max_age, BATCH)
                if not rows:
                    return
                error = rows[0].error or "never tried: the target was not available"
                await upkeep.end(tx, rows, State.FAILED, Reason.EXPIRED, error)
                for row in rows:
                    await delivery.tell(tx, steps.ended(row), State.FAILED, Reason.EXPIRED)
            log.warning("sweep.expired", target=target, rows=len(rows))

    async def without_copies(self) -> list[str]:
        """Return the targets none of whose queues holds a message."""
        return [name for name in self._config.targets if await self._is_empty(name)]

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

    async def _publish(self, targets: Sequence[str], overdue: float | None) -> None:
        after = None
        while targets:
            async with self._engine.begin() as tx:
                rows = await upkeep.overdue(tx, targets, overdue, after, BATCH)
                if not rows:
                    return
                await upkeep.hand_out(tx, rows)
            after = tuple(rows[-1])
            for target, count in Counter(row.target for row in rows).items():
                metrics.SWEPT.labels(target).inc(count)
                log.warning("sweep.published_again", target=target, rows=count)

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
