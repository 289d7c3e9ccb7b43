"""A server is cut off from the two others, and its clients are not.

Each test runs twice: as deploy/cluster says, and, the control, without the line that it is about.
"""

import asyncio
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from deploy.up.process import wait_until
from deploy.up.servers import Redis, postgres_binaries
from libs.common.messaging.broker import Broker, PublishError, message
from libs.common.messaging.consumer import Consumer
from libs.common.messaging.topology import Exchange, work_queue
from tests.cluster.apart import changed, hosts
from tests.cluster.harness import FILES, HostServers, RabbitMQNode
from tests.cluster.network import both_ways
from tests.support.brokers import Management, Vhost
from tests.support.consumers import Recorder, connected, until
from tests.support.eventually import eventually

pytestmark = [
    pytest.mark.promise("P10"),
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]
ALERTS, DLX = Exchange("alerts", "direct"), Exchange("alerts.dlx", "direct")
QUEUE = "alerts.test"
SECONDS = 60.0
SILENT_SECONDS = 5.0  # in which a control must see nothing


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


@pytest.mark.parametrize("pauses", [True, False])
async def test_a_consumer_at_a_cut_off_rabbitmq_goes_on_with_the_majority(
    folder: Path, *, pauses: bool
) -> None:
    change = ("cluster_partition_handling = pause_minority", "cluster_partition_handling = ignore")
    configured = files(folder, "rabbitmq.conf", change, kept=pauses)
    with hosts(folder, "rabbitmq", files=configured) as (network, cluster):
        lost, kept, third = cluster.nodes
        vhost = Vhost(kept)
        url = vhost.url("alerts")

        def by_way_of(*nodes: RabbitMQNode) -> str:
            places = ",".join(f"{node.host}:{node.port}" for node in nodes)
            return url.replace(f"{kept.host}:{kept.port}", places)

        handler = Recorder()
        async with (
            Broker.connect(by_way_of(kept, third), "alerts") as publisher,
            Broker.connect(by_way_of(lost, kept, third), "alerts") as consumer,
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
