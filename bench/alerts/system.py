"""Alerts and gateway as in production, and alerts that wait for them."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from bench.lab import Lab
from bench.peers import TEXT
from bench.system import System, fresh_values
from deploy.up import environment
from deploy.up.process import Process
from libs.common.messaging.broker import Broker, Message
from libs.common.messaging.topology import Queue
from services.alerts import messages, topology
from services.alerts.config import targets as config
from tests.support.brokers import Vhost
from tests.support.databases import DatabaseUrl
from tests.support.stack import write_alerts_config

IN_FLIGHT = 256


@dataclass(frozen=True)
class Alerts(System):
    config: Path

    @contextmanager
    def running(self) -> Iterator[Process]:
        """Run the alerts service."""
        settings = environment.for_process(self.values, "alerts")
        settings |= {"DATABASE_URL": str(self.database), "AMQP_URL": self.vhost.url("alerts")}
        with self.lab.process([sys.executable, "-m", "services.alerts"], settings) as process:
            yield process

    def declare(self) -> None:
        """Declare the queues, as the service would."""
        self.queue_accepted(0)

    def queue_work(self, count: int, target: str = "slack") -> None:
        """Put alerts into the ledger and the target's work queue, as intake does."""
        asyncio.run(_queue_work(self, count, target))

    def queue_accepted(self, count: int) -> None:
        """Put alerts into alerts.intake, as the gateway does."""
        asyncio.run(_queue_accepted(self, count))

    def queue_more(self, count: int) -> None:
        """Put alerts into alerts.intake of a service that runs."""
        asyncio.run(_queue_more(self, count))

    def settled(self, target: str = "slack") -> bool:
        """Return whether the ledger has no open rows for that target."""
        return not self.query(_OPEN, {"target": target})[0][0]


@contextmanager
def alerts(
    lab: Lab,
    targets: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    database: DatabaseUrl | None = None,
    sink: str = "/slack",
) -> Iterator[Alerts]:
    """Create a vhost and a database; `targets` changes those of the shipped alerts.toml.

    :param sink: the path of slack at the sink
    """
    own, vhost = database or lab.databases.create("alerts"), Vhost(lab.rabbitmq)
    folder = lab.folder / f"alerts-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    values = fresh_values(lab, "alerts")
    values |= {
        "ALERTS_CONFIG": str(write_alerts_config(folder, targets or WIDE)),
        "ALERTS_DELIVERED_KEPT_HOURS": "48",
        "RATE_LIMIT_STATE_FILE": str(folder / "ratelimits.json"),
        "KEYS_STATE_FILE": str(folder / "keys.json"),
        "SERVICE_RATE_LIMIT": "100000000 per minute",
        "SLACK_WEBHOOK_URL": f"{lab.sink.url}{sink}",
        "WEBHOOK_URL": f"{lab.sink.url}/hang",
    }
    try:
        yield Alerts(lab, own, vhost, values, Path(values["ALERTS_CONFIG"]))
    finally:
        vhost.delete()
        if database is None:
            lab.databases.drop(own.name)


WIDE = {"slack": {"concurrency": 100}}
"""Sends as many at a time as the peers; as many again are waiting or being recorded."""

_OPEN = """
    SELECT count(*) FROM alerts.delivery
    WHERE state IN ('pending', 'claimed', 'sending') AND target = %(target)s
"""


def uuid7(at: str) -> str:
    """Return SQL for an id as the gateway makes them, which sort by time (UUIDv7)."""
    digits = f"lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0')"
    return (
        f"(left({digits}, 8) || '-' || right({digits}, 4) || '-7' || "
        "substr(gen_random_uuid()::text, 16))::uuid"
    )


async def _queue_work(alerts: Alerts, count: int, target: str) -> None:
    rows = alerts.query(_ACCEPTED, {"count": count, "target": target, "text": TEXT})
    async with _connected(alerts) as broker:
        works = (messages.work(UUID(id_), target, 0, None) for (id_,) in rows)
        await _publish(broker, topology.work_name(target), works)


_ACCEPTED = f"""
    WITH added AS (
        INSERT INTO alerts.delivery (
            alert_id, target, event_type, severity, source, payload, accepted_at, state)
        SELECT {uuid7("now()")}, %(target)s, 'bench', 'info', 'gateway',
            jsonb_build_object('text', %(text)s), now(), 'pending'
        FROM generate_series(1, %(count)s)
        RETURNING alert_id
    ), counted AS (
        INSERT INTO alerts.ledger_total AS total (target, accepted)
        SELECT %(target)s, count(*) FROM added
        ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
    )
    SELECT alert_id::text FROM added
"""


async def _queue_accepted(alerts: Alerts, count: int) -> None:
    async with _connected(alerts) as broker:
        await _publish(broker, topology.INTAKE_QUEUE, (_accepted() for _ in range(count)))


async def _queue_more(alerts: Alerts, count: int) -> None:
    async with Broker.connect(alerts.vhost.url("alerts"), "bench") as broker:
        await broker.session()
        await _publish(broker, topology.INTAKE_QUEUE, (_accepted() for _ in range(count)))


def _accepted() -> Message:
    id_ = str(uuid.uuid4())
    body = {
        "id": id_,
        "event_type": "slack_alert",
        "payload": {"text": TEXT},
        "source": "gateway",
        "accepted_at": datetime.now(UTC).isoformat(),
    }
    return Message(id_, "alert.accepted", body)


@asynccontextmanager
async def _connected(alerts: Alerts) -> AsyncIterator[Broker]:
    configured, _ = config.load(alerts.config, environment.for_process(alerts.values, "alerts"))
    async with Broker.connect(alerts.vhost.url("alerts"), "bench") as broker:
        await broker.declare(
            *topology.EXCHANGES,
            *topology.intake_queues(),
            *topology.target_queues(configured.targets),
        )
        await broker.session()
        await _mark(alerts, broker)
        yield broker


async def _mark(alerts: Alerts, broker: Broker) -> None:
    # Without this mark, the broker counts as new and all pending rows would be published again.
    epoch = str(uuid.uuid4())
    alerts.query(_EPOCH, {"epoch": epoch})
    await broker.declare_once(Queue(f"alerts.epoch.{epoch}", {"x-queue-type": "quorum"}))


_EPOCH = "DELETE FROM alerts.epoch; INSERT INTO alerts.epoch (id) VALUES (%(epoch)s)"


async def _publish(broker: Broker, key: str, waiting: Any) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(message: Message) -> None:
        async with slots:
            await broker.publish(topology.ALERTS.name, key, message, timeout=30)

    await asyncio.gather(*(one(message) for message in waiting))
