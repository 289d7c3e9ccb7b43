"""The alerts service behind proxies, and what holds it at one step until it is killed there.

Nothing in the product knows of a test: a step is held by what is around it. A proxy keeps back
its bytes to RabbitMQ or to its target, or a lock in PostgreSQL keeps its statement waiting.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import psycopg2
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from tests.support.cases import Cases, until_row
from tests.support.consumers import until
from tests.support.ending import assert_everything_arrived
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.proxy import DOWN, Proxy
from tests.support.stack import Second, Stack, status, write_alerts_config

ACK = b"\x00\x3c\x00\x50"
"""basic.ack's class and method: from the service an acknowledgement, from RabbitMQ a confirm."""

# The lease is 2.5 s; the second delay is unlike the first, so it has a queue of its own.
TARGET: dict[str, Any] = {
    "timeout": 2.0,
    "margin": 0.5,
    "retry_delays": [2.5, 4],
    "concurrency": 8,
    "breaker": {"fail_max": 1000, "reset_timeout": 1.0},
}
APP = {
    "url": None,
    "token": {"env": "SLACK_BOT_TOKEN"},
    "post_to": "C0123",
    "team": "T0123",
    "api": {"env": "SLACK_API_URL"},
}
"""Slack as an app: of a message that asks, the rows then know by what it is changed."""
IN_FLIGHT = 2 * 8
"""Alerts for a target of this concurrency that a killed process may have sent without a trace."""
NO_SWEEP = {"ALERTS_RECONCILE_SECONDS": "3600", "ALERTS_OVERDUE_SECONDS": "3600"}
"""Nothing but the step's own rule may save the alert."""


class Rig:
    """One stack; its alerts service reaches RabbitMQ, PostgreSQL and Slack through proxies.

    With a section `answers` Slack is an app.
    """

    service = "alerts"
    """What is killed, if a test names nothing else."""

    def __init__(
        self,
        stack: Stack,
        folder: Path,
        broker: Proxy,
        database: Proxy,
        slack: Proxy,
        sections: Mapping[str, Any] | None = None,
    ) -> None:
        self.stack = stack
        self.folder = folder
        self.sections = sections or {}
        self.broker = broker
        self.database = database
        self.slack = slack
        self.proxies = [broker, database, slack]
        self.accepted: dict[str, str] = {}
        self.failed: set[str] = set()

    async def start(self, *, slack: dict[str, Any] | None = None, **settings: str) -> None:
        """Start the service anew, with a changed target and changed settings."""
        await self.stack.stop("alerts")
        target = TARGET | (APP if "answers" in self.sections else {}) | (slack or {})
        config = write_alerts_config(self.folder, {"slack": target}, **self.sections)
        url = str(self.stack.database.of("alerts"))
        self.stack.changes["alerts"] = {
            **NO_SWEEP,
            **settings,
            "ALERTS_CONFIG": str(config),
            **slack_at(self.slack.port),
            "AMQP_URL": through(
                self.broker, self.stack.rabbitmq.port, self.stack.vhost.url("alerts")
            ),
            "DATABASE_URL": through(self.database, self.stack.postgres.port, url),
        }
        await self.stack.start("alerts")
        await self.flowing()

    async def flowing(self, queue: str = "alerts.slack") -> None:
        """Wait until somebody consumes: health is well before the broker is connected."""
        await eventually(
            lambda: self._depth_and_consumers(queue),
            30,
            so=lambda found: found is not None and found[1] > 0,
        )

    async def kill(self, name: str = "") -> None:
        """As a power cut: what it had not yet got through to anybody is lost with it."""
        name = name or self.service
        await self.stack.kill9(name)
        for proxy in self.proxies:
            proxy.cut()
            await proxy.resume()
        # PostgreSQL has ended the dead process's statements, also those in a lock.
        left = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND usename = %s"
        await until(lambda: not self.query(left, name), 15)

    async def restart(self, name: str = "") -> None:
        await self.stack.start(name or self.service)

    async def accept(self, event_type: str = "slack_alert") -> str:
        text = f"fault {uuid.uuid4()}"
        alert_id = await self.stack.alert(text, event_type=event_type)
        self.accepted[alert_id] = text
        return alert_id

    async def in_flight(self) -> str:
        """Accept an alert that Slack has, and whose response is kept back."""
        self.slack.stall(DOWN)
        alert_id = await self.accept()
        await self.reached_slack(1)
        return alert_id

    async def accept_together(self, count: int) -> list[str]:
        """Accept alerts whose work is one message, where the target's concurrency allows it."""
        texts = [f"fault {uuid.uuid4()}" for _ in range(count)]
        alerts = [{"event_type": "slack_alert", "payload": {"text": text}} for text in texts]
        answer = await self.stack.http(
            "POST", "/api/alerts/batch", {"alerts": alerts}, key="service"
        )
        ids = [alert["id"] for alert in answer.body["items"]]
        self.accepted |= dict(zip(ids, texts, strict=True))
        return ids

    async def end(self, **allowed: Any) -> None:
        await assert_everything_arrived(self.stack, self.accepted, failed=self.failed, **allowed)

    async def ends(self, alert_id: str, *, duplicates: int = 0, **wanted: Any) -> Any:
        """Start the service again, and let all end; the alert's row, which is so."""
        await self.restart()
        await self.end(duplicates=duplicates)
        return await self.row(alert_id, **wanted)

    # What the servers know.

    async def row(self, alert_id: str, **wanted: Any) -> Any:
        """Wait until its row in the ledger is so."""
        mine = "SELECT * FROM alerts.delivery WHERE alert_id = %s"
        return await until_row(self.stack, mine, alert_id, wanted)

    async def reached_slack(self, count: int, *, refused_too: bool = True) -> None:
        await eventually(
            lambda: self.stack.sandbox.received("slack", refused_too=refused_too),
            30,
            so=lambda got: len(got) >= count,
        )

    async def until_depth(self, queue: str, depth: int) -> None:
        await eventually(lambda: self.depth(queue), 30, so=lambda found: found == depth)

    async def depth(self, queue: str) -> int | None:
        found = await self._depth_and_consumers(queue)
        return None if found is None else found[0]

    def query(self, statement: str, *values: Any) -> list[Any]:
        return self.stack.query(statement, *values)

    @asynccontextmanager
    async def locked(self, statement: str, *values: Any) -> AsyncIterator[None]:
        """Hold what this statement locks; at the end whoever waited for it is gone or goes on."""
        with closing(self._superuser()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            yield

    @asynccontextmanager
    async def holding_work(self) -> AsyncIterator[None]:
        """Let work wait on its way into the outbox, but not what tells of targets there."""
        with closing(self._superuser()) as connection, connection.cursor() as cursor:
            cursor.execute("""
                CREATE FUNCTION alerts.held() RETURNS trigger LANGUAGE plpgsql AS
                    $$BEGIN PERFORM pg_advisory_xact_lock(815); RETURN NEW; END$$;
                CREATE TRIGGER held BEFORE INSERT ON alerts.outbox FOR EACH ROW
                    WHEN (NEW.type = 'alert.work') EXECUTE FUNCTION alerts.held()""")
            connection.commit()
            cursor.execute("SELECT pg_advisory_lock(815)")
            yield

    @asynccontextmanager
    async def dies_at(
        self, table: str, statement: str = "", service: str = ""
    ) -> AsyncIterator[None]:
        """Kill the service while it waits for a lock on this table, in what the block begins."""
        service = service or self.service
        async with self.locked(f"LOCK TABLE {service}.{table} IN SHARE MODE"):
            yield
            await self.waits_for_a_lock(statement=statement, service=service)
            await self.kill(service)

    async def waits_for_a_lock(
        self, sessions: int = 1, *, statement: str = "", service: str = ""
    ) -> None:
        """Wait until so many sessions of the service wait, with statements that have this text."""
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND usename = %s "
            "AND wait_event_type = 'Lock' AND strpos(query, %s) > 0"
        )
        named = (service or self.service, statement)
        await until(lambda: len(self.query(waiting, *named)) >= sessions, 30)

    async def moves_in_a_transaction(self, alert_id: str) -> None:
        """Wait until somebody has changed its row and waits, before it commits, for a lock."""
        await self.waits_for_a_lock()
        row = "SELECT 1 FROM alerts.delivery WHERE alert_id = %s FOR UPDATE SKIP LOCKED"
        await until(lambda: not self.query(row, alert_id), 15)

    async def _depth_and_consumers(self, queue: str) -> tuple[int, int] | None:
        async with await aio_pika.connect(self.stack.vhost.admin_url()) as connection:
            channel = await connection.channel()
            try:
                found = (await channel.declare_queue(queue, passive=True)).declaration_result
            except ChannelNotFoundEntity:
                return None
            return int(found.message_count or 0), int(found.consumer_count or 0)

    def _superuser(self) -> Connection:
        return psycopg2.connect(self.stack.database.superuser_url)


def slack_at(port: int) -> dict[str, str]:
    url = f"http://{HOST}:{port}/slack"
    return {
        "SLACK_WEBHOOK_URL": url,
        "SLACK_API_URL": f"{url}/api",
        "SLACK_BOT_TOKEN": "xoxb-1",
    }


def through(proxy: Proxy, port: int, url: str) -> str:
    assert f":{port}/" in url
    return url.replace(f":{port}/", f":{proxy.port}/")


@pytest.fixture
async def rig(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> AsyncIterator[Rig]:
    """Give the alerts service with nothing in flight, to be held and killed.

    A module's SECTIONS are sections of alerts.toml.
    """
    sections = getattr(request.module, "SECTIONS", None)
    await stack.sandbox.reset()
    async with AsyncExitStack() as open_:
        broker, database, slack = [
            await open_.enter_async_context(Proxy(port))
            for port in (stack.rabbitmq.port, stack.postgres.port, stack.sandbox.port)
        ]
        made = Rig(stack, tmp_path, broker, database, slack, sections)
        await made.start()
        try:
            yield made
        finally:
            await stack.kill9("alerts")  # left so: the next one is started by the next rig


@pytest.fixture
def cases(rig: Rig) -> Cases:
    return Cases(rig.stack)


Start = Callable[..., Second]


@pytest.fixture
def start_second(stack: Stack) -> Iterator[Start]:
    """Start another process of a service, configured as the first, without the proxies."""
    with ExitStack() as ending:

        def start(name: str = "alerts", **settings: str) -> Second:
            direct = {
                "AMQP_URL": stack.vhost.url(name),
                "DATABASE_URL": str(stack.database.of(name)),
                **slack_at(stack.sandbox.port),
            }
            return ending.enter_context(stack.second(name, **(direct | settings)))

        yield start


@pytest.fixture
async def proxy(stack: Stack) -> AsyncIterator[Proxy]:
    """Stand between the gateway and RabbitMQ."""
    await stack.sandbox.reset()
    async with Proxy(stack.rabbitmq.port) as opened:
        await stack.stop("gateway")
        url = stack.vhost.url("gateway")
        stack.changes["gateway"] = {"AMQP_URL": through(opened, stack.rabbitmq.port, url)}
        await stack.start("gateway")

        async def connected() -> bool:
            health = (await stack.http("GET", "/api/health/deep", key="admin")).body
            return bool(health["components"]["rabbitmq"]["status"] == "healthy")

        await eventually(connected, 30)
        yield opened
    await stack.kill9("gateway")
    stack.changes["gateway"] = {}
    await stack.start("gateway")


@pytest.fixture
def start_other(start_second: Start) -> Callable[[], Awaitable[int]]:
    """Start a second alerts process, which reconciles; the port that it answers at."""

    async def start() -> int:
        other = start_second(ALERTS_RECONCILE_SECONDS="0.5", ALERTS_OVERDUE_SECONDS="1")
        health = partial(asyncio.to_thread, status, other.port, "/health")
        await eventually(health, so=lambda found: found == 200)
        return other.port

    return start
