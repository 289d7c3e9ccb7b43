"""Starts what delivers to a target; and follows the subscriptions, which come and go."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging import consumer
from libs.common.messaging.broker import Broker
from libs.common.process.logs import log
from libs.common.process.service import Service
from services.alerts import channels, topology
from services.alerts.channels.channel import Target
from services.alerts.channels.network import Networks
from services.alerts.channels.subscription import SubscriptionTarget
from services.alerts.channels.templates import Templates
from services.alerts.delivery.at_most_once import AtMostOnceWorker
from services.alerts.delivery.permits import Permits
from services.alerts.delivery.worker import Worker
from services.alerts.rules.case import Rules
from services.alerts.store import subscriptions
from services.alerts.targets.breaker import Breaker
from services.alerts.targets.status import release_backlog
from services.alerts.targets.throttle import Throttle

# The ledger counts attempts: a work message in `.dead` would leave its row without a message.
MAX_FAILURES = 100_000
SHOWN = {
    *("channel", "timeout", "retry_delays", "concurrency"),
    *("rate_per_minute", "fallback", "max_age", "breaker"),
}


@dataclass(eq=False)
class Targets:
    """The targets to which this process delivers."""

    engine: AsyncEngine
    broker: Broker
    templates: Templates
    rules: Rules
    permits: Permits
    backlog_per_second: int
    breakers: dict[str, Breaker] = field(default_factory=dict)
    throttles: dict[str, Throttle] = field(default_factory=dict)

    async def start(self, service: Service, name: str, target: Target, private: Networks) -> None:
        """:param service: has its resources and tasks; its queues were declared"""
        channel = await service.enter(channels.opened(name, target, self.templates, private))
        breaker = self.breakers[name] = Breaker(name, **target.breaker.model_dump())
        throttle = self.throttles[name] = Throttle(
            breaker, per_minute=target.rate_per_minute, concurrency=target.concurrency
        )
        make: Callable[..., Worker] = (
            partial(AtMostOnceWorker, permits=self.permits) if target.once else Worker
        )
        worker = make(
            name, target, channel, breaker, throttle, self.engine, self.broker, rules=self.rules
        )
        subscription = await service.enter(
            consumer.Consumer(
                self.broker,
                topology.work_name(name),
                worker.handle,
                prefetch=target.prefetch,
                max_retries=MAX_FAILURES,
            )
        )
        service.spawn(f"throttle {name}", throttle.run(subscription))
        backlog = release_backlog(self.engine, name, throttle, self.backlog_per_second)
        service.spawn(f"backlog {name}", backlog)
        log.info("target.configured", target=name, **target.model_dump(include=SHOWN))


@dataclass(eq=False)
class Subscriptions:
    """Delivers to those that the table has, each with the resources of a service of its own."""

    targets: Targets
    known: dict[str, Target]
    """All targets, as the configuration has them."""
    private: Networks
    _running: dict[str, tuple[tuple[Any, ...], Service]] = field(default_factory=dict)
    _ending: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _draining: bool = False

    async def follow(self) -> None:
        """Do as the table says: one that was changed starts again, one with a fault as well."""
        async with self.targets.engine.begin() as tx:
            rows = await subscriptions.run(tx, "running")
            await subscriptions.run(tx, "drop_work")
        wanted = {subscriptions.target_of(row.id): (row.url, *row.secrets) for row in rows}
        changed = [
            name
            for name, (given, part) in self._running.items()
            if part.failed or wanted.get(name) != given
        ]
        for name in changed:  # apart: a slow receiver may have some in flight
            part = self._running.pop(name)[1]
            ending = self._end(name, part, is_gone=name not in wanted)
            self._ending[name] = asyncio.create_task(ending)
        for name in wanted.keys() - self._running.keys() - self._ending.keys():
            if not self._draining:
                await self._start(name, wanted[name])

    async def aclose(self) -> None:
        """Drain them when the process stops."""
        self._draining = True
        parts = [self._stop(name, part) for name, (_, part) in self._running.items()]
        await asyncio.gather(*parts, *self._ending.values())
        self._running.clear()

    async def _start(self, name: str, given: tuple[Any, ...]) -> None:
        url, *secrets = given
        part = Service(name)
        try:
            target = SubscriptionTarget.of(url, secrets)
            await self.targets.broker.declare(*topology.subscription_queues(name))
            self._running[name] = given, part
            await self.targets.start(part, name, target, self.private)
            self.known[name] = target
        except Exception:  # of one: the others go on, and it is tried again
            log.exception("subscription.not_started", target=name)
            part.failed = True

    async def _end(self, name: str, part: Service, *, is_gone: bool) -> None:
        try:
            await self._stop(name, part)
            if is_gone:  # deleted or paused
                await self.targets.broker.remove(*topology.subscription_queues(name))
        except Exception:
            log.exception("subscription.not_ended", target=name)
        finally:
            del self._ending[name]

    async def _stop(self, name: str, part: Service) -> None:
        part.stopping.set()  # so that its tasks may end
        await part.close()
        for where in (self.known, self.targets.breakers, self.targets.throttles):
            where.pop(name, None)
