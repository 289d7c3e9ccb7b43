"""Three RabbitMQ nodes; the one that clients use, and that leads their queues, is lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aio_pika
import pytest

from libs.common.messaging.broker import Broker, PublishError, message
from libs.common.messaging.consumer import Consumer
from libs.common.messaging.topology import Binding, Exchange, request_queue
from libs.common.process import tasks
from tests.cluster.harness import Cluster, RabbitMQNode
from tests.support.brokers import Management, Vhost, rabbitmqctl
from tests.support.consumers import Recorder, connected, until
from tests.support.eventually import eventually
from tests.support.servers import frozen

pytestmark = [pytest.mark.cluster, pytest.mark.promise("P10")]

ALERTS, DLX = Exchange("alerts", "direct"), Exchange("alerts.dlx", "direct")
NAMES = [f"alerts.q{number}" for number in range(6)]
PARKED = 7  # messages in a queue that nobody consumes


@dataclass
class Traffic:
    """Publishes and consumes continually on `lost`, which leads `queue` and `parked`."""

    vhost: Vhost
    lost: RabbitMQNode
    parked: str
    publisher: Broker
    observer: Broker
    """Connected to another node, which leads `elsewhere`."""
    elsewhere: str
    handler: Recorder = field(default_factory=Recorder)
    confirmed: set[str] = field(default_factory=set)

    async def publish(self, queue: str) -> None:
        while True:
            with suppress(PublishError):
                sent = message("test", {})
                await self.publisher.publish("alerts", queue, sent)
                self.confirmed.add(sent.id)
            await asyncio.sleep(0.02)

    async def flows(self) -> None:
        """Wait until 20 more messages are confirmed and handled."""
        before = set(self.confirmed)
        await until(lambda: len(self.confirmed - before) >= 20, 60)
        await self.all_handled()

    async def all_handled(self) -> None:
        confirmed = set(self.confirmed)
        await self.handler.until(lambda: confirmed <= set(self.handler.ids), 60)

    async def depth(self) -> int | None:
        return (await self.observer.depths([self.parked]))[self.parked]

    async def declared(self) -> int | None:
        """Count as a passive declare does."""
        async with await aio_pika.connect(self.vhost.admin_url()) as connection:
            channel = await connection.channel()
            found = await channel.declare_queue(self.parked, passive=True)
            count: int | None = found.declaration_result.message_count
            return count

    def assert_each_repetition_was_announced(self) -> None:
        seen: Counter[str] = Counter()
        for got in self.handler.messages:
            assert got.redelivered or not seen[got.id]
            seen[got.id] += 1


@asynccontextmanager
async def meanwhile(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
        assert not task.done(), task
    finally:
        await tasks.end(task)


@asynccontextmanager
async def traffic(cluster: Cluster) -> AsyncIterator[Traffic]:
    lost, kept, third = cluster.nodes
    vhost = Vhost(kept)
    url = vhost.url("alerts")

    def by_way_of(*nodes: RabbitMQNode) -> str:
        hosts = ",".join(f"{node.host}:{node.port}" for node in nodes)
        return url.replace(f"{kept.host}:{kept.port}", hosts)

    async with (
        Broker.connect(by_way_of(lost, kept, third), "alerts") as publisher,
        Broker.connect(by_way_of(kept, third), "alerts") as observer,
    ):
        await connected(observer)
        await connected(publisher)
        queues = [request_queue(name, dlx=DLX, bindings=[Binding(ALERTS, name)]) for name in NAMES]
        for broker in (publisher, observer):
            await broker.declare(ALERTS, DLX, *(queue for pair in queues for queue in pair))
        declared = {queue.name for pair in queues for queue in pair}
        leaders: dict[str, str | None] = {}

        async def led() -> bool:
            found = await asyncio.to_thread(vhost.call, "GET", "queues")
            leaders.update({queue["name"]: queue.get("leader") for queue in found})
            return declared <= leaders.keys() and all(leaders.values())

        await eventually(led, 60, every=0.2)

        def led_by(node: RabbitMQNode, found: Callable[[str], bool]) -> str:
            return next(name for name in leaders if leaders[name] == node.node and found(name))

        queue = led_by(lost, NAMES.__contains__)
        parked = led_by(lost, lambda name: name.endswith(".dead"))
        elsewhere = led_by(kept, NAMES.__contains__)
        for _ in range(PARKED):
            await publisher.publish("alerts.dlx", parked, message("test", {}))
        flow = Traffic(vhost, lost, parked, publisher, observer, elsewhere)
        async with Consumer(publisher, queue, flow.handler, prefetch=10):
            async with meanwhile(flow.publish(queue)):
                await flow.flows()
                yield flow
            await flow.all_handled()
            flow.assert_each_repetition_was_announced()
    vhost.delete()


async def whole(cluster: Cluster) -> None:
    """Start what stayed apart and was killed for it, as systemd and Docker do."""

    async def all_run() -> bool:
        for node in cluster.nodes:
            if node.pid is None:
                await asyncio.to_thread(node.launch)
        try:
            seen = [Management(node).call("GET", "nodes") for node in cluster.nodes]
        except OSError:  # it has paused itself, and begins again
            return False
        return all(node["running"] for nodes in seen for node in nodes)

    await eventually(all_run, 150, every=0.2)


async def test_a_frozen_node_is_left_and_no_queue_that_it_led_looks_empty(
    cluster: Cluster,
) -> None:
    async with traffic(cluster) as flow:
        seen: set[int | None] = set()

        async def watch() -> None:
            while True:
                seen.add(await flow.depth())

        with frozen(flow.lost.pid):
            async with meanwhile(watch()):
                assert await flow.declared() == 0  # the lie
                stuck = asyncio.create_task(
                    flow.observer.publish("alerts.dlx", flow.parked, message("test", {}))
                )
                await flow.observer.publish("alerts", flow.elsewhere, message("test", {}))
                assert not stuck.done()
                await until(lambda: not flow.publisher.connected)
                await connected(flow.publisher)
                await flow.flows()
                await until(lambda: seen & {PARKED, PARKED + 1}, 60)
            await asyncio.gather(stuck, return_exceptions=True)
        assert seen <= {None, PARKED, PARKED + 1}
        await whole(cluster)
        await flow.flows()


async def test_a_node_that_stays_out_is_killed_so_that_it_starts_again(cluster: Cluster) -> None:
    """As after a pause: its process runs on, and RabbitMQ in it does not."""
    node = cluster.nodes[2]
    await whole(cluster)
    node.kill()
    before, node.rejoins = node.rejoins, 8.0
    try:
        await asyncio.to_thread(node.start)
        await whole(cluster)
        stopped = asyncio.create_task(asyncio.to_thread(rabbitmqctl, node, "stop_app"))
        await until(lambda: node.pid is None, 60)
        await asyncio.gather(stopped, return_exceptions=True)
        assert None not in {other.pid for other in cluster.nodes[:2]}
    finally:
        node.rejoins = before
    await whole(cluster)
