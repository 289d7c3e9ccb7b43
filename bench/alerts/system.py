"""The alerts service alone, as it runs in production, and alerts that wait for it."""

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

import psycopg2

from bench.lab import Lab
from bench.peers import TEXT
from deploy.local import environment
from libs.common.broker import Broker, Message
from services.alerts import config, messages, topology
from tests.support.brokers import Vhost
from tests.support.databases import DatabaseUrl
from tests.support.stack import write_alerts_config

IN_FLIGHT = 256


@dataclass(frozen=True)
class Alerts:
    lab: Lab
    database: DatabaseUrl
    vhost: Vhost
    config: Path
    settings: Mapping[str, str]

    def running(self) -> Any:
        return self.lab.process([sys.executable, "-m", "services.alerts"], self.settings)

    def queue_work(self, count: int) -> None:
        """Put alerts where intake puts them: the ledger, and the target's work queue."""
        asyncio.run(_queue_work(self, count))

    def queue_accepted(self, count: int) -> None:
        """Put alerts where the gateway puts them: alerts.intake."""
        asyncio.run(_queue_accepted(self, count))

    def states(self) -> dict[str, int]:
        return dict(self.query("SELECT state, count(*) FROM alerts.delivery GROUP BY state"))

    def query(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Any]:
        connection = psycopg2.connect(self.database.superuser_url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@contextmanager
def alerts(
    lab: Lab, *, target: Mapping[str, Any] | None = None, **settings: str
) -> Iterator[Alerts]:
    """Give it a fresh database and vhost; `target` changes the shipped [targets.slack]."""
    database, vhost = lab.databases.create("alerts"), Vhost(lab.rabbitmq)
    folder = lab.folder / f"alerts-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    path = write_alerts_config(folder, {"slack": {"concurrency": 100, **(target or {})}})
    values = environment.parse(environment.EXAMPLE.read_text(encoding="utf-8"))
    values |= {name: make() for name, make in environment.GENERATED.items()}
    values |= {
        "ALERTS_PORT": str(lab.ports.take()),
        "ALERTS_METRICS_PORT": str(lab.ports.take()),
        "ALERTS_CONFIG": str(path),
        "SLACK_WEBHOOK_URL": f"{lab.sink.url}/slack",
        **settings,
    }
    process_settings = environment.for_process(values, "alerts")
    process_settings |= {"DATABASE_URL": str(database), "AMQP_URL": vhost.url("alerts")}
    try:
        yield Alerts(lab, database, vhost, path, process_settings)
    finally:
        vhost.delete()
        lab.databases.drop(database.name)


async def _queue_work(alerts: Alerts, count: int) -> None:
    ids = [id_ for (id_,) in alerts.query(_ACCEPTED, {"count": count, "text": TEXT})]
    async with _connected(alerts) as broker:
        await _publish(
            broker,
            topology.work_name("slack"),
            (messages.work(UUID(id_), "slack", 0, None) for id_ in ids),
        )


_ACCEPTED = """
    WITH added AS (
        INSERT INTO alerts.delivery (
            alert_id, target, event_type, severity, source, payload, accepted_at, state)
        SELECT gen_random_uuid(), 'slack', 'slack_alert', 'info', 'gateway',
            jsonb_build_object('text', %(text)s), now(), 'pending'
        FROM generate_series(1, %(count)s)
        RETURNING alert_id
    ), counted AS (
        INSERT INTO alerts.ledger_total AS total (target, accepted)
        SELECT 'slack', count(*) FROM added
        ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
    )
    SELECT alert_id::text FROM added
"""


async def _queue_accepted(alerts: Alerts, count: int) -> None:
    async with _connected(alerts) as broker:
        await _publish(broker, topology.INTAKE_QUEUE, (accepted() for _ in range(count)))


def accepted() -> Message:
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
    configured, _ = config.load(alerts.config, alerts.settings)
    async with Broker.connect(alerts.vhost.url("alerts"), "bench") as broker:
        await broker.declare(
            *topology.EXCHANGES,
            *topology.intake_queues(),
            *topology.target_queues(configured),
        )
        await broker.session()
        yield broker


async def _publish(broker: Broker, key: str, waiting: Any) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(message: Message) -> None:
        async with slots:
            await broker.publish(topology.ALERTS.name, key, message, timeout=30)

    await asyncio.gather(*(one(message) for message in waiting))
