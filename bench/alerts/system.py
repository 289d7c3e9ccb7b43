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

import psycopg2
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.lab import Lab
from deploy.local import environment
from libs.common import db
from libs.common.broker import Broker, Message
from services.alerts import config, messages, topology
from services.alerts.store import intake
from services.alerts.store.intake import NewRow
from tests.support.brokers import Vhost
from tests.support.databases import DatabaseUrl
from tests.support.stack import write_alerts_config

IN_FLIGHT = 256
TEXT = "a" * 400


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

    def query(self, statement: str) -> list[Any]:
        connection = psycopg2.connect(self.database.superuser_url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
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
    rows = [
        NewRow(
            alert_id=uuid.uuid4(),
            target="slack",
            event_type="slack_alert",
            severity="info",
            source="gateway",
            payload={"text": TEXT},
            dedup_key=None,
            request_id=None,
            accepted_at=datetime.now(UTC),
        )
        for _ in range(count)
    ]
    async with _connected(alerts) as (engine, broker):
        for first in range(0, count, 1000):
            async with engine.begin() as tx:
                await intake.accept(tx, rows[first : first + 1000])
        work = (messages.work(row.alert_id, row.target, 0, None) for row in rows)
        await _publish(broker, topology.work_name("slack"), work)


async def _queue_accepted(alerts: Alerts, count: int) -> None:
    async with _connected(alerts) as (_, broker):
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
async def _connected(alerts: Alerts) -> AsyncIterator[tuple[AsyncEngine, Broker]]:
    configured, _ = config.load(alerts.config, alerts.settings)
    async with (
        db.connect(str(alerts.database), application_name="bench") as engine,
        Broker.connect(alerts.vhost.url("alerts"), "bench") as broker,
    ):
        await broker.declare(
            *topology.EXCHANGES,
            *topology.intake_queues(),
            *topology.target_queues(configured),
        )
        await broker.session()
        yield engine, broker


async def _publish(broker: Broker, key: str, waiting: Any) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(message: Message) -> None:
        async with slots:
            await broker.publish(topology.ALERTS.name, key, message, timeout=30)

    await asyncio.gather(*(one(message) for message in waiting))
