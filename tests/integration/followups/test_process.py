"""The real process on a real broker: killed between its steps, and two processes at once."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import psycopg2
import pytest

from deploy.up.environment import EXAMPLE_CONFIG
from tests.conftest import NewDatabase
from tests.support import warm
from tests.support.brokers import Vhost
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually
from tests.support.ports import Ports
from tests.support.system import WORDING

pytestmark = pytest.mark.promise("P3")

KEY = "internal-key-of-this-test"
ENVIRONMENT = {
    "INTERNAL_API_KEY": KEY,
    "TOKEN_KEYS": "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "PUBLIC_BASE_URL": "https://ostoja.example.com",
    "FOLLOWUPS_CONFIG": str(EXAMPLE_CONFIG / "followups.toml"),
    "FORMS_CONFIG": str(EXAMPLE_CONFIG / "forms.toml"),
    "COMPANY_CONFIG": str(EXAMPLE_CONFIG / "company.toml"),
    "FOLLOWUP_QUIET_HOURS": "off",
}
NO_BROKER = "amqp://nobody@127.0.0.1:1/none"


class Intake:
    """Consumes in place of alerts, and counts."""

    def __init__(self, connection: aio_pika.abc.AbstractConnection) -> None:
        self._connection = connection
        self.got: list[dict[str, Any]] = []

    async def open(self) -> None:
        channel = await self._connection.channel()
        for name, exchange, key in (
            ("alerts.intake", "alerts", "alerts.intake"),
            ("alerts.intake", "followups.events", "lead.qualified"),
            ("consent.commands", "consent.commands", "grant.record"),
        ):
            queue = await channel.declare_queue(
                name, durable=True, arguments={"x-queue-type": "quorum"}
            )
            await queue.bind(exchange, key)
            await queue.consume(self._take)

    async def _take(self, incoming: aio_pika.abc.AbstractIncomingMessage) -> None:
        self.got.append({"type": incoming.type, **json.loads(incoming.body)})
        await incoming.ack()

    def follow_ups(self) -> list[str]:
        return [body["id"] for body in self.got if body["type"] == "alert.accepted"]


class Service:
    def __init__(self, database: DatabaseUrl, ports: Ports, log: Path) -> None:
        self.database, self.log = database, log
        self._ports = ports
        self._closing = ExitStack()

    def run(self, amqp_url: str) -> tuple[warm.Started, int]:
        port = self._ports.take()
        environment = {
            **os.environ, **ENVIRONMENT, "DATABASE_URL": self.database, "AMQP_URL": amqp_url,
            "HTTP_PORT": str(port), "METRICS_PORT": str(self._ports.take()),
        }  # fmt: skip
        process = warm.Started("followups", env=environment, log=self.log)
        self._closing.callback(process.wait)
        self._closing.callback(process.kill)
        return process, port

    def close(self) -> None:
        self._closing.close()


@pytest.fixture
async def service(database: NewDatabase, ports: Ports, tmp_path: Path) -> AsyncIterator[Service]:
    with closing(Service(await database("followups"), ports, tmp_path / "log")) as made:
        yield made


@pytest.fixture
async def intake(vhost: Vhost) -> AsyncIterator[Intake]:
    async with await aio_pika.connect(vhost.admin_url()) as connection:
        opened = Intake(connection)
        await opened.open()
        yield opened


@pytest.fixture
def cursor(service: Service) -> Iterator[Any]:
    with closing(psycopg2.connect(service.database.superuser_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as opened:
            opened.execute("SET search_path = followups")
            yield opened


async def call(port: int, method: str, path: str, body: Any = None) -> Any:
    async def answered() -> Any:
        try:
            async with (
                aiohttp.ClientSession(
                    headers={"X-Internal-Key": KEY, "X-Caller": "service"}
                ) as session,
                session.request(method, f"http://127.0.0.1:{port}{path}", json=body) as answer,
            ):
                assert answer.status < 300, await answer.text()
                return await answer.json()
        except aiohttp.ClientConnectionError:
            return None

    return await eventually(answered, seconds=20)


def schedule(cursor: Any, people: int, due: str = "now()") -> None:
    """Insert people with one step each, as an enrolment does."""
    cursor.execute(
        f"""
        WITH people AS (
            INSERT INTO chat_conversations (id, email)
            SELECT gen_random_uuid(), 'lead' || n || '@example.com'
            FROM generate_series(1, %s) AS n RETURNING id, email
        )
        INSERT INTO followup_event
            (id, conversation_id, followup_number, email, sequence, step, enrolled_by, due_at)
        SELECT gen_random_uuid(), id, 1, email, 'default', 1, 'api', {due} FROM people
        """,
        (people,),
    )


def statuses(cursor: Any) -> dict[str, int]:
    cursor.execute("SELECT status, count(*) FROM followup_event GROUP BY status")
    return dict(cursor.fetchall())


def until(ask: Callable[[], Any], seconds: float = 30) -> Any:
    async def asked() -> Any:
        return ask()

    return eventually(asked, seconds=seconds)


async def test_kill_9_between_claim_and_relay_hands_the_step_over_once(
    service: Service, vhost: Vhost, intake: Intake, cursor: Any
) -> None:
    schedule(cursor, 20)
    process, _ = service.run(NO_BROKER)
    await until(lambda: statuses(cursor) == {"handed_over": 20})
    process.kill()
    process.wait()
    assert intake.follow_ups() == []
    service.run(vhost.url("followups"))
    await until(lambda: len(intake.follow_ups()) == 20)
    assert len(set(intake.follow_ups())) == 20


async def test_kill_9_before_the_claim_commits_leaves_the_step_scheduled(
    service: Service, vhost: Vhost, intake: Intake, cursor: Any
) -> None:
    schedule(cursor, 1)
    with closing(psycopg2.connect(service.database.superuser_url)) as other:
        locker = other.cursor()
        locker.execute("LOCK TABLE followups.outbox IN EXCLUSIVE MODE")
        process, _ = service.run(vhost.url("followups"))

        def waits() -> bool:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND query LIKE 'INSERT INTO outbox%'"
            )
            return bool(cursor.fetchone()[0])

        await until(waits)
        process.kill()
        process.wait()
    await until(lambda: statuses(cursor) == {"scheduled": 1})
    service.run(vhost.url("followups"))
    await until(lambda: len(intake.follow_ups()) == 1)


async def test_two_processes_hand_each_due_step_over_once(
    service: Service, vhost: Vhost, intake: Intake, cursor: Any
) -> None:
    for _ in range(2):
        _, port = service.run(vhost.url("followups"))
        await call(port, "GET", "/health")
    schedule(cursor, 600, due="now() + random() * interval '8 s'")
    await until(lambda: len(intake.follow_ups()) >= 600, seconds=40)
    assert len(intake.follow_ups()) == len(set(intake.follow_ups())) == 600
    assert statuses(cursor) == {"handed_over": 600}
    cursor.execute("SELECT max(handed_over_at - due_at) < interval '5 s' FROM followup_event")
    assert cursor.fetchone()[0], "within five seconds"


async def test_a_chat_reaches_alerts_and_consent_through_the_broker(
    service: Service, vhost: Vhost, intake: Intake
) -> None:
    _, port = service.run(vhost.url("followups"))
    body = {
        "message": "Chcę kuchnię, 60 tys. zł, jan@example.com", "session_id": "s",
        "consent": {"marketing": True, "text": WORDING.text},
    }  # fmt: skip
    answer = await call(port, "POST", "/api/chatbot/chat", body)
    await until(lambda: len(intake.got) == 2)
    told = {body["type"]: body for body in intake.got}
    assert told["lead.qualified"]["conversation_id"] == answer["conversation_id"]
    assert told["grant.record"]["wording"] == WORDING.text


async def test_events_of_consent_and_alerts_are_handled_once(
    service: Service, vhost: Vhost, intake: Intake, cursor: Any
) -> None:
    _, port = service.run(vhost.url("followups"))
    scheduled = await call(
        port, "POST", "/api/followups", {"email": "jan@example.com", "delay_seconds": 0}
    )
    first = scheduled["items"][0]
    await until(lambda: intake.follow_ups() == [first["id"]])
    bound = {("alerts.events", "followup.*"), ("consent.events", "consent.withdrawn")}

    def bindings() -> set[tuple[str, str]]:
        return {(each["source"], each["routing_key"]) for each in vhost.call("GET", "bindings")}

    await until(lambda: bound <= bindings())  # it serves before, if RabbitMQ is slow
    at = datetime.now(UTC).isoformat()
    sent = {
        "alert_id": first["id"], "target": "email", "reference": first["id"], "outcome": "sent",
        "reason": None, "at": at,
    }  # fmt: skip
    withdrawn = {
        "email": "jan@example.com", "purposes": ["marketing"], "action": "unsubscribe", "at": at,
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        for account, exchange, key, kind, told in (
            ("alerts", "alerts.events", "followup.sent", "delivery.settled", sent),
            ("consent", "consent.events", "consent.withdrawn", "consent.withdrawn", withdrawn),
        ):
            connection = await stack.enter_async_context(await aio_pika.connect(vhost.url(account)))
            channel = await connection.channel()
            target = await channel.get_exchange(exchange, ensure=False)
            message_id = str(uuid.uuid4())
            for _ in range(3):
                message = aio_pika.Message(
                    json.dumps(told).encode(), message_id=message_id, type=kind
                )
                await target.publish(message, key)
    await until(lambda: statuses(cursor) == {"sent": 1, "cancelled": 1})
    cursor.execute("SELECT consumer, count(*) FROM inbox GROUP BY consumer")
    assert dict(cursor.fetchall()) == {"followups.outcomes": 1, "followups.consent-events": 1}


async def test_sigterm_stops_the_process_within_the_drain_time(
    service: Service, vhost: Vhost
) -> None:
    process, port = service.run(vhost.url("followups"))
    await call(port, "GET", "/health")
    process.terminate()
    assert await asyncio.to_thread(process.wait, 30) == 0
