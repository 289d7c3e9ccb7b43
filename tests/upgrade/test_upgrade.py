"""An upgrade under load, as docs/upgrade.md describes it: no request fails, and nothing is lost.

The last tag and today's code run beside each other on one stack, in every mixture of replicas.
"""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deploy.up.environment import GENERATED, defaults
from deploy.up.process import wait_until
from deploy.up.servers import Postgres, RabbitMQ, Redis
from tests.support import checkers
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.fleet import REPLICAS, Fleet, Release, previous, today
from tests.support.ports import Ports
from tests.support.sandbox import running_sandbox
from tests.support.stack import QUICK
from tests.support.stack import status as http_status
from tests.support.system import LEAD, WORDING, fresh_address

pytestmark = [pytest.mark.upgrade, pytest.mark.promise("P1", "P2")]

# Until a release is tagged, today's code must run beside this commit.
BASE = "4b944d0"
CLIENTS = 6
PAUSE_SECONDS = 0.05


class Requests:
    """Clients that send everything that callers send; each answer must be a good one."""

    def __init__(self, fleet: Fleet) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.failed: list[str] = []
        self.accepted: dict[str, str] = {}
        self.agreed: list[str] = []
        self.chased: Counter[str] = Counter()
        self._fleet = fleet
        self._kinds: tuple[Callable[[], Awaitable[None]], ...] = (
            self._alert,
            self._alert,
            self._batch,
            self._state,
            self._chat,
            self._agree_and_be_chased,
            self._unsubscribe,
            self._operate,
        )

    @asynccontextmanager
    async def sent(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as self._session:
            clients = [asyncio.create_task(self._client(stop, seed)) for seed in range(CLIENTS)]
            try:
                yield
            finally:
                stop.set()
                await asyncio.gather(*clients)

    async def more(self, count: int = 60) -> None:
        """Wait until so many more requests were answered."""
        enough = self.answers.total() + count
        await until(lambda: self.answers.total() >= enough or bool(self.failed), 60)

    async def _client(self, stop: asyncio.Event, seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            await chance.choice(self._kinds)()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(
        self, method: str, path: str, body: object = None, *, key: str = "", good: set[int]
    ) -> tuple[int, object]:
        headers = {}
        if key:
            name = {"service": "X-API-KEY", "admin": "X-ADMIN-API-KEY"}[key]
            headers[name] = self._fleet.values[f"{key.upper()}_API_KEY"]
        kind = f"{method} {path.split('?', maxsplit=1)[0]}"
        try:
            async with self._session.request(
                method, self._fleet.url + path, json=body, headers=headers
            ) as answer:
                text = await answer.text()
                status = answer.status
                found = await answer.json(content_type=None) if text else None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.failed.append(f"{kind}: {error!r}")
            return 0, None
        self.answers[method, status] += 1
        if status not in good:
            self.failed.append(f"{kind}: {status} {text[:300]}")
        return status, found

    async def _alert(self) -> None:
        text = f"load {uuid.uuid4()}"
        body = {"event_type": "slack_alert", "payload": {"text": text}}
        status, found = await self._ask("POST", "/api/alerts", body, key="service", good={202})
        if status == 202 and isinstance(found, dict):
            self.accepted[found["id"]] = text

    async def _batch(self) -> None:
        texts = [f"load {uuid.uuid4()}" for _ in range(3)]
        alerts = [{"event_type": "slack_alert", "payload": {"text": text}} for text in texts]
        status, found = await self._ask(
            "POST", "/api/alerts/batch", {"alerts": alerts}, key="service", good={202}
        )
        if status == 202 and isinstance(found, dict):
            ids = [item["id"] for item in found["items"]]
            self.accepted |= dict(zip(ids, texts, strict=True))

    async def _state(self) -> None:
        if self.accepted:
            path = f"/api/alerts/{random.choice(list(self.accepted))}"
            await self._ask("GET", path, key="service", good={200, 404})  # 404: not yet ledgered

    async def _chat(self) -> None:
        body = LEAD | {"session_id": str(uuid.uuid4()), "email": fresh_address()}
        await self._ask("POST", "/api/chatbot/chat", body, good={200})

    async def _agree_and_be_chased(self) -> None:
        address = fresh_address()
        body: dict[str, object] = {"email": address, "text": WORDING.text}
        status, _ = await self._ask("POST", "/api/opt-in", body, good={200})
        if status == 200:
            self.agreed.append(address)
            body = {"email": address, "delay_seconds": 0}
            status, _ = await self._ask(
                "POST", "/api/followups", body, key="service", good={200, 202}
            )
            self.chased[address] += status in {200, 202}

    async def _unsubscribe(self) -> None:
        # Of someone else than who is chased: that mail is compared with the sandbox's.
        body = {"email": fresh_address()}
        await self._ask("POST", "/api/unsubscribe", body, good={200, 202})

    async def _operate(self) -> None:
        for path in ("/api/ledger/check", "/api/dlq/stats", "/api/breakers", "/api/cases"):
            _, found = await self._ask("GET", path, key="admin", good={200})
            if path.endswith("check") and isinstance(found, dict):
                terms = ("delivered", "pending", "failed", "discarded", "in_doubt")
                assert found["accepted"] == sum(found[term] for term in terms), found


@pytest.fixture
async def fleet(
    private_folder: Path, ports: Ports, postgres: Postgres, rabbitmq: RabbitMQ, redis_server: Redis
) -> AsyncIterator[Fleet]:
    checkers.require("caddy")
    folder = private_folder / "upgrade"
    folder.mkdir()
    old = previous(BASE, folder)
    with running_sandbox(ports) as sandbox:
        values = old.defaults | defaults()
        values |= {name: make() for name, make in GENERATED.items()} | QUICK
        values |= {
            "DRAIN_DELAY_SECONDS": "1",
            "SANDBOX_PORT": str(sandbox.port),
            "SANDBOX_SMTP_PORT": str(sandbox.smtp_port),
            "WEBHOOK_SECRET": sandbox.webhook_secret,
            "POSTGRES_PORT": str(postgres.port),
            "POSTGRES_SUPERUSER_PASSWORD": postgres.password,
            "RABBITMQ_PORT": str(rabbitmq.port),
            "RABBITMQ_ADMIN_PASSWORD": rabbitmq.password,
            "REDIS_PORT": str(redis_server.port),
            "REDIS_PASSWORD": redis_server.password,
            "RATE_LIMIT_STATE_FILE": str(folder / "ratelimits.json"),
            "KEYS_STATE_FILE": str(folder / "keys.json"),
            "CONSENT_RECORDS_DIR": str(folder / "consent"),
        }
        made = Fleet(folder, ports, values, sandbox, (postgres, rabbitmq))
        async with made.running_balancers():
            try:
                await asyncio.to_thread(_start, made, old)
                yield made
            finally:
                await asyncio.to_thread(made.close)


def _start(fleet: Fleet, release: Release) -> None:
    fleet.set_up(release)
    for service in release.services:
        for replica in REPLICAS:
            fleet.start(release, service, replica)
    front = int(fleet.values["GATEWAY_PORT"])
    wait_until("caddy", 30, lambda: http_status(front, "/api/health") == 200, lambda: True)


async def test_an_upgrade_under_load_fails_no_request_and_loses_nothing(fleet: Fleet) -> None:
    old = fleet.releases["gateway", "a"]
    new = today()
    requests = Requests(fleet)
    async with requests.sent():
        await requests.more()
        # The new schema, exchanges and policies under the old fleet.
        await asyncio.to_thread(fleet.set_up, new)
        await requests.more()
        # Each step is a mixed fleet of its own: old gateways before new services, and so on.
        for replica in REPLICAS:
            for service in ("console", "consent", "gateway", "alerts", "followups"):
                await fleet.replace(new, service, replica)
                await requests.more()
                assert not requests.failed, fleet.said()
        # Back again on the new schema, as after `helm rollback`.
        for service in old.services:
            await fleet.replace(old, service, "a")
            await requests.more()
        await requests.more()
    assert not requests.failed, f"{requests.failed}\n{requests.answers}\n{fleet.said()}"

    check = await eventually(fleet.balanced, 60, every=0.2)
    assert check["unread"] == 0, check
    received = Counter(str(one["body"]["text"]) for one in await fleet.sandbox.received("slack"))
    lost = [text for text in requests.accepted.values() if not received[text]]
    assert not lost

    async def mailed() -> bool:
        mails = Counter(mail["To"][0]["Address"] for mail in await fleet.sandbox.mails())
        assert all(mails[address] <= 1 for address in requests.agreed), mails
        return all(mails[address] == 1 for address in requests.chased)

    await eventually(mailed, 60, every=0.5)
    trail = await fleet.http("GET", "/api/consent/audit/verify", key="admin")
    assert (trail.status, trail.body["ok"]) == (200, True)
    stats = await fleet.http("GET", "/api/dlq/stats", key="admin")
    assert (stats.body["failed"], stats.body["in_doubt"]) == (0, 0), stats.body
