"""A server of three hosts is cut off from the two others, frozen, or stays out.

Each test of a cut runs twice: as deploy/cluster says, and, the control, without the line that it is
about.
"""

import asyncio
import os
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aio_pika
import pytest

from deploy.up.process import wait_until
from deploy.up.servers import Redis, postgres_binaries
from libs.common.messaging.broker import Broker, PublishError, message
from libs.common.messaging.consumer import Consumer
from libs.common.messaging.topology import Binding, Exchange, request_queue, work_queue
from libs.common.process import tasks
from tests.cluster.apart import changed, hosts
from tests.cluster.harness import FILES, Cluster, HostServers, RabbitMQNode
from tests.cluster.network import both_ways
from tests.support.brokers import Management, Vhost, rabbitmqctl
from tests.support.consumers import Recorder, connected, until
from tests.support.eventually import eventually
from tests.support.servers import frozen

pytestmark = [pytest.mark.cluster, pytest.mark.promise("P10")]


ALERTS, DLX = Exchange("alerts", "direct"), Exchange("alerts.dlx", "direct")
QUEUE = "alerts.test"
SECONDS = 60.0
SILENT_SECONDS = 5.0  # in which a control must see nothing


def by_way_of(vhost: Vhost, *nodes: RabbitMQNode) -> str:
    places = ",".join(f"{node.host}:{node.port}" for node in nodes)
    return vhost.url("alerts").replace(f"{vhost.server.host}:{vhost.server.port}", places)


@pytest.fixture
def folder(private_folder: Path) -> Path:
    private_folder.chmod(0o711)
    return private_folder / uuid.uuid4().hex[:8]


def soon(what: str, seconds: float, so: object) -> None:
    wait_until(what, seconds, so, lambda: True)  # type: ignore[arg-type]


def written(host: HostServers, text: str) -> bool:
    """Write to the primary as a service on this host does.

    A commit that waits for a standby ends by no time-out of PostgreSQL.
    """
    statement = f"CREATE TABLE IF NOT EXISTS note (text text); INSERT INTO note VALUES ('{text}')"
    command = [str(postgres_binaries() / "psql"), host.dsn, "-c", statement]
    environment = {**os.environ, "PGCONNECT_TIMEOUT": "2"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def files(folder: Path, name: str, change: tuple[str, str], *, kept: bool) -> Path:
    return FILES if kept else changed(folder.with_name(f"{folder.name}-files"), name, change)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize("pauses", [True, False])
async def test_a_consumer_at_a_cut_off_rabbitmq_goes_on_with_the_majority(
    folder: Path, *, pauses: bool
) -> None:
    change = ("cluster_partition_handling = pause_minority", "cluster_partition_handling = ignore")
    configured = files(folder, "rabbitmq.conf", change, kept=pauses)
    with hosts(folder, "rabbitmq", files=configured) as (network, cluster):
        lost, kept, third = cluster.nodes
        vhost = Vhost(kept)
        handler = Recorder()
        async with (
            Broker.connect(by_way_of(vhost, kept, third), "alerts") as publisher,
            Broker.connect(by_way_of(vhost, lost, kept, third), "alerts") as consumer,
        ):
            for broker in (publisher, consumer):
                await connected(broker)
                await broker.declare(ALERTS, DLX, *work_queue(QUEUE, exchange=ALERTS, dlx=DLX))

            async def sent() -> str:
                confirmed: list[str] = []

                async def once() -> bool:
                    one = message("test", {})
                    try:
                        await publisher.publish("alerts", QUEUE, one)
                    except PublishError:
                        return False
                    confirmed.append(one.id)
                    return True

                await eventually(once, SECONDS)
                return confirmed[-1]

            async with Consumer(consumer, QUEUE, handler, prefetch=10):
                before = await sent()
                await until(lambda: before in handler.ids)
                with network.cut(both_ways("a")):
                    if pauses:
                        first = await sent()
                        await until(lambda: first in handler.ids, SECONDS)
                        return
                    await eventually(lambda: alone(lost), SECONDS)
                    never = await sent()
                    await asyncio.sleep(SILENT_SECONDS)
                    assert never not in handler.ids
                    assert consumer.connected


async def alone(node: RabbitMQNode) -> bool:
    try:
        seen = await asyncio.to_thread(Management(node).call, "GET", "nodes")
    except TimeoutError:  # it still asks the nodes that it cannot reach
        return False
    return [each["running"] for each in seen].count(True) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize("refuses", [True, False])
def test_a_cut_off_redis_counts_nothing_that_the_next_master_lacks(
    folder: Path, *, refuses: bool
) -> None:
    change = ("min-replicas-to-write 1", "min-replicas-to-write 0")
    configured = files(folder, "redis.conf", change, kept=refuses)
    with hosts(folder, "redis", "sentinel", files=configured) as (network, cluster):
        cut_off, *others = (host.redis for host in cluster.hosts.values())
        for host in cluster.hosts.values():
            soon("Sentinels that know all", SECONDS, lambda one=host.sentinel: knows_all(one))
        assert counted(cut_off)
        with network.cut(both_ways("a")):
            soon("the next master", SECONDS, lambda: any(map(counted, others)))
            if refuses:
                soon("a refusal", SECONDS, lambda: not counted(cut_off))
            else:
                assert counted(cut_off)  # two masters count


def counted(redis: Redis) -> bool:
    return redis.command("INCR count").startswith(":")


def knows_all(sentinel: Redis) -> bool:
    replicas = sentinel.command("SENTINEL REPLICAS ostoja")
    return replicas == "*2" and "3 usable" in sentinel.command("SENTINEL CKQUORUM ostoja")


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize("strict", [True, False])
def test_a_primary_alone_confirms_nothing(folder: Path, *, strict: bool) -> None:
    change = ("synchronous_mode_strict: true", "synchronous_mode_strict: false")
    configured = files(folder, "patroni.yml", change, kept=strict)
    with hosts(folder, "etcd", "postgres", "haproxy", files=configured) as (_, cluster):
        soon("a primary", SECONDS, lambda: cluster.primary is not None)
        primary = cluster.primary
        assert primary is not None
        soon("a write", SECONDS, lambda: written(cluster.hosts[primary], "with standbys"))
        for name, host in cluster.hosts.items():
            if name != primary:
                host.postgres.kill()
        if strict:
            assert not written(cluster.hosts[primary], "alone")
        else:
            what = "a write on one disk only"
            soon(what, SECONDS, lambda: written(cluster.hosts[primary], "alone"))


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
    async with (
        Broker.connect(by_way_of(vhost, lost, kept, third), "alerts") as publisher,
        Broker.connect(by_way_of(vhost, kept, third), "alerts") as observer,
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
