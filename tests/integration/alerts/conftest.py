"""The alerts service as a process, on a real broker, its own database and the sandbox."""

import asyncio
import base64
import os
import tomllib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from libs.common.database import postgres
from libs.common.messaging.broker import HIGH, Broker, Message
from libs.common.messaging.consumer import Ack, Consumer, Disposition
from libs.common.messaging.rpc import Requester, reply
from libs.common.messaging.topology import Binding, Exchange, Queue, work_queue
from services.alerts.rules.subjects import Subjects
from services.alerts.store.ledger.intake import NewRow
from tests.conftest import NewDatabase
from tests.support.brokers import Vhost
from tests.support.consumers import connected, depth, until
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.sandbox import Sandbox
from tests.support.service import ServiceUnderTest
from tests.support.toml import write_toml

KEY = "internal-key-of-this-test"
PING_KEYS = f"p1:{base64.b64encode(b'p' * 32).decode()}"
SUBJECT_KEYS = f"k1:{base64.b64encode(bytes(32)).decode()}"

_TARGETS = tomllib.loads(Path(__file__).with_name("targets.toml").read_text(encoding="utf-8"))
TARGET: dict[str, Any] = _TARGETS["target"]
CHANNELS: dict[str, dict[str, Any]] = _TARGETS["channels"]
ROUTES: dict[str, list[str]] = _TARGETS["routes"]


def a_row(**changes: Any) -> NewRow:
    """Return a delivery as intake writes it."""
    said, now = {"text": "text"}, datetime.now(UTC)
    row = NewRow(uuid.uuid4(), "slack", "slack_alert", "info", "test", said, None, None, now)
    return row._replace(**changes)


class Alerts(ServiceUnderTest):
    """The running service, and what tests do with it."""

    def __init__(
        self, environment: dict[str, str], folder: Path, session: aiohttp.ClientSession,
        engine: AsyncEngine, gateway: Broker, vhost: Vhost, sandbox: Sandbox, database: DatabaseUrl,
    ) -> None:  # fmt: skip
        super().__init__("alerts", environment, folder / "alerts.log", session)
        self.engine, self.gateway, self.vhost = engine, gateway, vhost
        self.sandbox, self.database = sandbox, database

    async def ended(self) -> None:
        if self.process.poll() is None:
            await self.stop()

    async def until_epoch(self) -> None:
        """Wait until the epoch is marked: for a new broker all rows are requeued, due at once."""
        await eventually(partial(self.scalar, "SELECT count(*) FROM epoch"))

    async def http(
        self, method: str, path: str, body: Any = None, caller: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """:param headers: further ones, with `_` for `-`"""
        program = path.startswith(("/api/alerts/", "/internal/"))
        sent = {"X-Internal-Key": KEY, "X-Operator": "tester"}
        sent["X-Caller"] = caller or ("service" if program else "admin")
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.send(method, path, sent, json=body)
        return answer.status, answer.body

    async def metrics(self) -> str:
        url = f"http://{HOST}:{self.environment['METRICS_PORT']}/metrics"
        async with self.session.get(url) as answer:
            assert answer.status == 200
            return await answer.text()

    async def breaker(self, target: str = "slack") -> dict[str, Any]:
        _, breakers = await self.http("GET", "/api/breakers")
        return dict(breakers[target])

    async def shut(self, target: str = "slack", event_type: str = "slack_alert") -> str:
        """Let a target refuse an alert, which opens its breaker; the alert."""
        await self.sandbox.behave(target, status=500)
        alert_id = await self.accept(event_type)
        await eventually(partial(self.breaker, target), so=lambda found: found["state"] == "open")
        return alert_id

    async def heal(self, target: str = "slack") -> None:
        await self.sandbox.behave(target, status=200)
        assert (await self.http("POST", f"/api/breakers/{target}/reset"))[0] == 200

    async def accept(
        self, event_type: str = "slack_alert", alert_id: str | None = None, **fields: Any
    ) -> str:
        """Publish one alert as the gateway does."""
        body = accepted(event_type, alert_id, **fields)
        priority = HIGH if body["severity"] == "critical" else None
        message = Message(
            str(uuid.uuid4()), "alert.accepted", body, request_id="request-1", priority=priority
        )
        await self.gateway.publish("alerts", "alerts.intake", message)
        return str(body["id"])

    async def row(self, alert_id: str, target: str = "slack") -> Any:
        async with self.engine.connect() as connection:
            found = await connection.execute(
                sa.text("SELECT * FROM delivery WHERE alert_id = :id AND target = :target"),
                {"id": uuid.UUID(alert_id), "target": target},
            )
            return found.one_or_none()

    async def until(
        self, alert_id: str, state: str, target: str = "slack", seconds: float = 30, **wanted: Any
    ) -> Any:
        """Wait until a row is in this state, with these columns; the row."""
        wanted["state"] = state
        try:
            return await eventually(
                partial(self.row, alert_id, target),
                seconds,
                so=lambda row: row and wanted == {name: getattr(row, name) for name in wanted},
            )
        except TimeoutError:
            found = await self.row(alert_id, target)
            pytest.fail(f"not {wanted}: {found}\n{self.log.read_text()[-5000:]}")

    async def execute(self, statement: str, **values: Any) -> None:
        await execute(self.engine, statement, **values)

    async def scalar(self, statement: str) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(sa.text(statement))).scalar_one()

    async def failed(self, count: int, text: str) -> None:
        """Put failed rows with this text into the ledger."""
        named = ", ".join(map(repr, Subjects(SUBJECT_KEYS).named_by({"text": text})))
        payload = f"""jsonb_build_object('text', '{text}')"""
        subjects = f"CAST(CAST(ARRAY[{named}] AS text[]) AS bytea[])".replace(r"\\", "\\")
        await write(self.engine, count, **FAILED, payload=payload, subjects=subjects)

    async def check(self) -> dict[str, Any]:
        status, body = await self.http("GET", "/api/ledger/check")
        assert status == 200
        terms: dict[str, Any] = body
        ends = ("delivered", "pending", "failed", "discarded", "in_doubt")
        assert terms["accepted"] == sum(terms[name] for name in ends), terms
        return terms

    async def until_empty(self, *queues: str) -> None:
        async def ready() -> int:
            return sum([await self.depth(f"alerts.{each}") for each in queues])

        await eventually(ready, so=lambda count: count == 0)

    async def depth(self, queue: str) -> int:
        return await depth(self.gateway, queue) or 0


def accepted(event_type: str, alert_id: str | None = None, **fields: Any) -> dict[str, Any]:
    body = {
        "id": alert_id or str(uuid.uuid4()),
        "event_type": event_type,
        "payload": {"text": f"text {uuid.uuid4()}"},
        "target": None,
        "severity": "info",
        "dedup_key": None,
        "source": "gateway",
        "accepted_at": datetime.now(UTC).isoformat(),
        "once": None,
    }
    return body | fields


async def execute(engine: AsyncEngine, statement: str, **values: Any) -> None:
    async with engine.begin() as tx:
        await tx.execute(sa.text(statement), values)


FAILED = {
    "state": "'failed'", "reason": "'exhausted'", "error": "'x'", "attempt": "1", "attempts": "1",
    "finished_at": "now()",
}  # fmt: skip
ONCE = {"once_address": "'a@example.com'", "once_purpose": "'marketing'", "once_reference": "'r'"}


async def write(engine: AsyncEngine, count: int = 1, /, **columns: str) -> list[uuid.UUID]:
    """Write rows as intake does, and count them; each column as SQL, with `n` from 1 to count."""
    given = {
        "alert_id": "gen_random_uuid()", "target": "'slack'", "event_type": "'slack_alert'",
        "severity": "'info'", "source": "'test'", "payload": """'{"text": "text"}'""",
        "accepted_at": "now()", "state": "'pending'",
    } | columns  # fmt: skip
    statement = f"""
        WITH added AS (
            INSERT INTO delivery ({", ".join(given)})
            SELECT {", ".join(given.values())} FROM generate_series(1, {count}) AS n
            RETURNING alert_id, target
        ), counted AS (
            INSERT INTO ledger_total AS total (target, accepted)
            SELECT target, count(*) FROM added GROUP BY target
            ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
        )
        SELECT alert_id FROM added
    """
    async with engine.begin() as tx:
        return list(await tx.scalars(sa.text(statement).columns(alert_id=sa.Uuid)))


StartAlerts = Callable[..., Awaitable[Alerts]]


async def waits_for_a_row(engine: AsyncEngine) -> bool:
    """Return whether a transaction in this database waits for another to end.

    By a connection of its own: those who wait may have taken all of the pool.
    """
    own = create_async_engine(engine.url, poolclass=NullPool)
    async with own.connect() as tx:
        waiting = await tx.scalar(
            sa.text(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE NOT granted AND locktype = 'transactionid' AND datname = current_database()"
            )
        )
    return bool(waiting)


@pytest.fixture
async def engine(database: NewDatabase) -> AsyncIterator[AsyncEngine]:
    """Connect to a ledger without a service."""
    url = await database("alerts")
    async with postgres.connect(url, application_name="test") as opened:
        yield opened


@pytest.fixture
async def alerts(
    tmp_path: Path, ports: Ports, database: NewDatabase, vhost: Vhost, sandbox: Sandbox
) -> AsyncIterator[StartAlerts]:
    """Start the service with the given settings, and options of targets or new targets.

    `routes` are further routes, `sections` further sections of alerts.toml.
    """
    async with AsyncExitStack() as closing:

        async def start(**changes: Any) -> Alerts:
            settings = {name: value for name, value in changes.items() if name.isupper()}
            sections = changes.pop("sections", {})
            routes = ROUTES | changes.pop("routes", {})
            options = {name: value for name, value in changes.items() if name not in settings}
            targets = {
                name: TARGET | CHANNELS.get(name, {}) | options.get(name, {})
                for name in CHANNELS | options
            }
            path = tmp_path / "alerts.toml"
            document = {"routes": routes, "targets": targets, **sections}
            write_toml(path, document)
            url = await database("alerts")
            engine = await closing.enter_async_context(
                postgres.connect(url, application_name="test")
            )
            gateway = await closing.enter_async_context(
                Broker.connect(vhost.url("gateway"), "gateway")
            )
            session = await closing.enter_async_context(aiohttp.ClientSession())
            environment = {
                **os.environ,
                "DATABASE_URL": url,
                "AMQP_URL": vhost.url("alerts"),
                "HTTP_PORT": str(ports.take()),
                "METRICS_PORT": str(ports.take()),
                "INTERNAL_API_KEY": KEY,
                "ALERTS_CONFIG": str(path),
                "PING_KEYS": PING_KEYS,
                "ALERTS_SUBJECT_KEYS": SUBJECT_KEYS,
                "ALERTS_RECONCILE_SECONDS": "3600",
                "ALERTS_PRIVATE_NETWORKS": f"{HOST}/32",
                "SLACK_WEBHOOK_URL": f"{sandbox.url}/slack",
                "MONDAY_API_URL": f"{sandbox.url}/monday",
                "MONDAY_API_TOKEN": "monday-token",
                "SMS_API_URL": f"{sandbox.url}/sms",
                "SMS_API_TOKEN": "sms-token",
                "WEBHOOK_URL": f"{sandbox.url}/webhook",
                "WEBHOOK_SECRET": sandbox.webhook_secret,
                "SMTP_HOST": sandbox.smtp_host,
                "SMTP_PORT": str(sandbox.smtp_port),
                **settings,
            }
            running = Alerts(environment, tmp_path, session, engine, gateway, vhost, sandbox, url)
            closing.push_async_callback(running.ended)
            await running.start()
            await gateway.session()
            await eventually(partial(_flowing, running, targets), 20)
            return running

        yield start


@pytest.fixture
async def subject(alerts: StartAlerts) -> Alerts:
    """Start the service as it is for most tests."""
    return await alerts()


async def _flowing(running: Alerts, targets: Iterable[str]) -> bool:
    """Tell whether it is connected and its own queues bound: it serves before, if that is slow."""
    _, health = await running.http("GET", "/health/deep")
    if health["components"]["rabbitmq"]["status"] != "healthy":
        return False
    bindings = await asyncio.to_thread(running.vhost.call, "GET", "bindings")
    bound = {(each["source"], each["routing_key"]) for each in bindings}
    keys = ["alerts.intake", "export.request", *(f"alerts.{target}" for target in targets)]
    return {("alerts", key) for key in keys} <= bound


ANNA = "anna@example.com"
ERASURE = "7d0f3c52-91d4-4d0b-8a4e-3a5f7c1e2b90"


class Consent:
    """Stands in for consent: grants permits as the test wants, orders erasures, asks for exports.

    It records what it receives.
    """

    def __init__(self, broker: Broker, requester: Requester) -> None:
        self.answer: str | None = "granted"
        self.reason: str | None = None
        self.answers_after = 0.0  # seconds
        self.asked: list[dict[str, Any]] = []
        self.returned: list[dict[str, Any]] = []
        self.receipts: list[dict[str, Any]] = []
        self._broker, self._requester = broker, requester

    async def handle(self, message: Message) -> Disposition:
        kept = {"permit.return": self.returned, "erasure.receipt": self.receipts}
        kept.get(message.type, self.asked).append(dict(message.body))
        if message.type == "permit.request":
            await asyncio.sleep(self.answers_after)
            if self.answer is not None:
                seconds = 20 if self.answer == "granted" else 0
                answer = {"answer": self.answer, "seconds": seconds, "reason": self.reason}
                await reply(self._broker, message, answer)
        return Ack()

    async def order(self, email: str | None = ANNA, **about: Any) -> None:
        body = {"email": email, "purposes": [], "action": "erased", "erasure_id": ERASURE, **about}
        message = Message(str(uuid.uuid4()), "person.erased", body)
        await self._broker.publish("consent.events", "person.erased.alerts", message)

    async def erased(self, email: str | None = ANNA, **about: Any) -> None:
        before = len(self.receipts)
        await self.order(email, **about)
        await until(lambda: len(self.receipts) > before)

    async def held(
        self, kind: str = "deliveries", email: str | None = ANNA, **about: Any
    ) -> list[dict[str, Any]]:
        """Ask for all of this kind that are held, page by page."""
        found, after = [], None
        while True:
            body = {"email": email, "after": after} | about
            answer = await self._requester.ask(
                "alerts", "export.request", "export.request", body, timeout=10
            )
            found += answer["records"].get(kind, [])
            if (after := answer["next"]) is None:
                return found

    async def addresses(self) -> list[str]:
        """Ask for all e-mails and phones held."""
        return [each["address"] for each in await self.held("addresses", None)]


@pytest.fixture
async def consent(vhost: Vhost) -> AsyncIterator[Consent]:
    commands = Exchange("consent.commands", "direct")
    keys = ("permit.request", "permit.return", "erasure.receipt")
    async with Broker.connect(vhost.url("consent"), "consent") as broker:
        await connected(broker)
        await broker.declare(
            *work_queue(
                "consent.permits",
                exchange=commands,
                dlx=Exchange("consent.dlx", "direct"),
                bindings=tuple(Binding(commands, key) for key in keys),
            )
        )
        async with Requester(broker, "consent") as requester:
            subject = Consent(broker, requester)
            async with Consumer(broker, "consent.permits", subject.handle, prefetch=10):
                yield subject


@pytest.fixture
async def outcomes(vhost: Vhost) -> AsyncIterator[list[dict[str, Any]]]:
    """Collect the events that followups gets."""
    received: list[dict[str, Any]] = []

    async def handle(message: Message) -> Disposition:
        received.append(dict(message.body))
        return Ack()

    async with Broker.connect(vhost.url("followups"), "followups") as broker:
        queue = Queue(
            "followups.outcomes",
            {"x-queue-type": "quorum", "x-dead-letter-exchange": "followups.dlx"},
            (Binding(Exchange("alerts.events", "topic"), "followup.*"),),
        )
        await broker.declare(queue)
        async with Consumer(broker, queue, handle, prefetch=10):
            yield received
