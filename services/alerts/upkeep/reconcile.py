"""Handles rows without a worker: lost messages, dead workers, a new broker, old age."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.messaging.broker import Broker, BrokerUnavailable
from libs.common.messaging.queue_depths import Depths
from libs.common.messaging.topology import Queue, dead_name, delay_name, retry_name
from libs.common.process.logs import log
from services.alerts import metrics, topology
from services.alerts.config.targets import Config
from services.alerts.delivery import ending
from services.alerts.rules.delivery import Reason, State
from services.alerts.store import incidents, subscriptions
from services.alerts.store.cases import cases
from services.alerts.store.incidents import Way
from services.alerts.store.ledger import gaps, transitions, upkeep
from services.alerts.store.ledger.queries import BEGINNING
from services.alerts.targets.throttle import Throttle

BATCH = 500
REQUEUED_PER_SECOND = 500  # half of what the outbox publishes on a busy machine
# A replica with a newer file, and one more target, may be running beside this one.
UNROUTED_SECONDS = 3600.0
NEVER_TRIED = "never tried: the target was not available"


@dataclass(eq=False)
class Reconciler:
    config: Config
    engine: AsyncEngine
    broker: Broker
    throttles: Mapping[str, Throttle]
    overdue: float  # seconds after its due time from which a row without a message is requeued
    fallback_after: float  # seconds after its acceptance from which a critical row moves

    def __post_init__(self) -> None:
        self._database_was_there = False
        self._empty_before: set[str] = set()  # targets without a ready message in the last run
        self._intake_empty = False  # in the last run

    async def run(self) -> None:
        """Run once. Too early or twice does no harm: the claim absorbs the duplicate messages."""
        # A worker that waits for the database with an outcome is not dead, though its lease may be
        # over. It has the time between two runs to record it.
        steady, self._database_was_there = self._database_was_there, False
        await self._run(steady=steady)
        self._database_was_there = True

    async def _run(self, *, steady: bool) -> None:
        async with self.engine.connect() as tx:
            abandoned = await upkeep.run(tx, "abandoned") if steady else []
            # Also those that could not be started here yet.
            ids = (await subscriptions.run(tx, "running_ids")).scalars()
            running = map(subscriptions.target_of, ids)
        if steady:
            await upkeep.run.alone(self.engine, "discard_recalled")
        for alert_id, target in abandoned:
            await ending.mark_in_doubt(self.engine, alert_id, target)
        for target, options in list(self.config.targets.items()) if steady else ():
            old = {"target": target, "seconds": options.max_age}
            await self._end("too_old", old, Reason.EXPIRED, NEVER_TRIED)
        left = {"targets": [*self.config.targets, *running], "seconds": UNROUTED_SECONDS}
        why = "its target is no longer configured"
        await self._end("of_no_target", left, Reason.UNROUTED, why)
        if not self.broker.connected:
            return
        try:
            if await self._broker_is_new():
                await self._requeue_all()
                await self._begin_epoch()
            elif steady:
                await self._requeue_overdue()
                await self._judge_numbers()
        except BrokerUnavailable:
            log.warning("reconcile.broker_lost")

    async def _end(self, name: str, which: Mapping[str, Any], reason: Reason, why: str) -> None:
        """End rows that would wait forever: for a breaker that never closes, or for no target."""
        while True:
            async with self.engine.begin() as tx:
                rows = await upkeep.run(tx, name, **which, limit=BATCH)
                if not rows:
                    return
                await upkeep.end(tx, rows, State.FAILED, reason, why, keep_error=True)
                for row in rows:
                    ended = replace(transitions.ended(row), error=row.error or why)
                    if ended.once is not None and row.state == State.CLAIMED:
                        await ending.return_permit(tx, ended.alert_id, ended.attempt, ended.once)
                    await ending.notify(tx, ended, State.FAILED, reason)
            for target, count in Counter(row.target for row in rows).items():
                log.warning("reconcile.ended", target=target, reason=reason, rows=count)

    async def fall_back(self) -> None:
        """Move critical rows that are late to the fallback; of a target that refuses us, at once.

        Run more often than the rest.
        """
        unhealthy = await incidents.run.alone(self.engine, "unhealthy")
        refusing = {each.target for each in unhealthy if each.refuses}
        shut = {each.target for each in unhealthy if each.shut}
        for target, options in list(self.config.targets.items()):
            if (to := options.fallback) is not None:
                way = Way(target, to, self.fallback_after, target in refusing, to in shut)
                await self._move(way)

    async def _move(self, way: Way) -> None:
        async with self.engine.connect() as tx:
            asking = await incidents.stuck(tx, way, asks=True, batch=BATCH)
        for shown_at in asking:
            await self._move_some(way, [shown_at], shown_at)
        more = True
        while more:
            async with self.engine.connect() as tx:
                others = await incidents.stuck(tx, way, asks=False, batch=BATCH)
            more = bool(others) and await self._move_some(way, others)

    async def _move_some(self, way: Way, ids: Sequence[UUID], shown_at: UUID | None = None) -> bool:
        """Move a batch of rows, or the messages for one place of a case.

        Its case is locked first: a step whose chain is over stays, and a change of the case
        also updates the fallback.

        :returns: whether any has moved
        """
        targets = self.config.targets
        same = targets[way.target].channel == targets[way.fallback].channel
        async with self.engine.begin() as tx:
            if shown_at is not None and not await cases.may_be_pending(tx, shown_at):
                return False
            moved = await incidents.fall_back(tx, way, ids, same_channel=same)
            work = [topology.work(row, way.fallback) for row in moved if row.added]
            await outbox.add_all(tx, work)
        if moved:
            log.warning(
                "reconcile.fell_back", target=way.target, fallback=way.fallback, rows=len(moved)
            )
        return bool(moved)

    async def targets_without_messages(self) -> list[str]:
        """Return the targets whose queues and outbox are all known to be empty."""
        return await self._empty(await self._not_in_outbox())

    async def _not_in_outbox(self) -> list[str]:
        keys = (await upkeep.run.alone(self.engine, "outbox_keys")).scalars()
        return [name for name in self.config.targets if topology.work_name(name) not in keys]

    async def _empty(self, targets: Sequence[str]) -> list[str]:
        # A subscription may have gone since.
        queues = {name: self._queues(name) for name in targets if name in self.config.targets}
        depths = await self.broker.depths([name for names in queues.values() for name in names])
        return [
            target for target, names in queues.items() if all(depths[name] == 0 for name in names)
        ]

    async def depths(self) -> Depths:
        """Return how many messages are ready in intake and each work queue; None: unknown."""
        names = [topology.INTAKE_QUEUE, *map(topology.work_name, self.config.targets)]
        return await self.broker.depths(names)

    async def unread(self) -> int | None:
        """Return how many accepted messages lie in alerts.intake.dead; None: unknown."""
        name = dead_name(topology.INTAKE_QUEUE)
        return (await self.broker.depths([name]))[name]

    def _queues(self, target: str) -> list[str]:
        name = topology.work_name(target)
        delays = topology.delays(self.config.targets[target])
        longer = (delay_name(name + part, seconds) for part, seconds in delays)
        return [name, retry_name(name), *longer]

    async def _requeue_overdue(self) -> None:
        requeued: Counter[str] = Counter()
        targets = await self._not_in_outbox()
        # Empty once is not enough: a message that waits for a slot in a worker is not ready either.
        # None waits there from one run to the next.
        empty = set(await self._empty(targets))
        nowhere, self._empty_before = empty & self._empty_before, empty
        for target, critical in product(targets, (True, False)):
            throttle = self.throttles.get(target)
            reached = throttle.reached if throttle and target not in nowhere else None
            if reached is None and target not in nowhere:
                continue  # it is unknown which messages are lost
            more = True
            while more:
                async with self.engine.begin() as tx:
                    rows = await upkeep.run(
                        tx, "overdue", target=target, critical=critical, reached=reached,
                        seconds=self.overdue, limit=BATCH,
                    )  # fmt: skip
                    await _requeue(tx, rows, requeued)
                more = len(rows) == BATCH

    async def _judge_numbers(self) -> None:
        depths = await self.broker.depths(
            [topology.INTAKE_QUEUE, retry_name(topology.INTAKE_QUEUE)]
        )
        before, self._intake_empty = self._intake_empty, set(depths.values()) == {0}
        if before and self._intake_empty:
            async with self.engine.begin() as tx:
                await gaps.judge(tx)

    async def _requeue_all(self) -> None:
        requeued: Counter[str] = Counter()
        for critical in (True, False):
            after: tuple[Any, ...] = BEGINNING
            more = True
            while more:
                async with self.engine.begin() as tx:
                    targets = list(self.config.targets)
                    rows = await upkeep.run(
                        tx, "open_after", targets=targets, critical=critical, after=after,
                        limit=BATCH,
                    )  # fmt: skip
                    await _requeue(tx, rows, requeued)
                if more := len(rows) == BATCH:
                    after = tuple(rows[-1])

    async def _broker_is_new(self) -> bool:
        """Return whether the epoch's marker queue is gone, because the broker lost its disk."""
        epoch = (await upkeep.run.alone(self.engine, "epoch")).scalar()
        return epoch is None or not await self.broker.exists(f"alerts.epoch.{epoch}")

    async def _begin_epoch(self) -> None:
        """Begin an epoch, the queue last: after a crash in between, all is requeued once more."""
        epoch = uuid4()
        await upkeep.run.alone(self.engine, "begin_epoch", id=epoch)
        marker = Queue(f"alerts.epoch.{epoch}", {"x-queue-type": "quorum"})
        await self.broker.declare_once(marker)


async def _requeue(tx: AsyncConnection, rows: Sequence[Any], requeued: Counter[str]) -> None:
    """Requeue rows, each target's at its share of a pace at which other messages can pass.

    :param requeued: how many rows of each target were requeued before these
    """
    by_target: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_target[row.target].append(row)
    for target, some in by_target.items():
        later = requeued[target] * len(requeued) / REQUEUED_PER_SECOND
        await upkeep.requeue(tx, some, later=later)
        requeued[target] += len(some)
        metrics.REQUEUED.labels(target).inc(len(some))
        log.warning("reconcile.requeued", target=target, rows=len(some))
