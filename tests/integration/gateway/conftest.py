"""The gateway as a process, in front of one real HTTP server that stands for all owners."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from deploy.up.servers import Redis
from services.gateway.proxy.upstream import Upstream
from tests.integration.gateway.upstreams import Start
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.scripted import Play, ScriptedServer
from tests.support.servers import running
from tests.support.service import Answer, ServiceUnderTest

ROOT = Path(__file__).parents[3]
SERVICE = {"X-API-KEY": "service-key-of-tests"}
ADMIN = {"X-ADMIN-API-KEY": "admin-key-of-tests"}
INTERNAL_KEY = "internal-key-of-tests"
NOBODY = "http://127.0.0.1:1"


class Gateway(ServiceUnderTest):
    health = "/api/health"

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return await self.send(method, path, headers, json=body)

    async def redis_is(self, state: str) -> None:
        await eventually(
            lambda: self.call("GET", "/api/health/deep", **ADMIN),
            so=lambda answer: answer.body["components"]["redis"]["status"] == state,
        )


@dataclass
class Owner:
    """Records what reaches it; answers by a handler, if it has one."""

    url: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    def say(self, body: Mapping[str, Any] = {}, status: int = 200) -> None:
        """Give this answer to everything from now on."""

        async def handle(_: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status)

        self.handle = handle

    def hold(self) -> asyncio.Event:
        """Answer nothing from now on until the event is set."""
        may_answer = asyncio.Event()

        async def handle(_: web.Request) -> web.StreamResponse:
            await may_answer.wait()
            return web.json_response({})

        self.handle = handle
        return may_answer

    def of(self, path: str) -> list[dict[str, Any]]:
        """Return what reached it there."""
        return [each for each in self.received if each["path"] == path]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.received.append(
            {
                "method": request.method,
                "path": request.raw_path,
                "headers": request.headers,
                "body": (await request.read()).decode(),
            }
        )
        if self.handle is not None:
            return await self.handle(request)
        if request.path == "/health/deep":
            return web.json_response({"status": "healthy", "components": {}})
        return web.json_response({"number": len(self.received)})


@pytest.fixture(scope="session")
def own_ports(ports: Ports) -> list[int]:
    """Ports that each test here uses again."""
    return [ports.take() for _ in range(4)]


@pytest.fixture
async def owner() -> AsyncIterator[Owner]:
    owner = Owner()
    app = web.Application(client_max_size=2**20)
    app.router.add_route("*", r"/{path:[\s\S]*}", owner.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    owner.url = f"http://{HOST}:{runner.addresses[0][1]}"
    yield owner
    await runner.cleanup()


def environment(port: int, owner: Owner, redis_url: str, limits: Path) -> dict[str, str]:
    """Return a gateway's settings: the owner is every service, without a broker."""
    internal = ("FOLLOWUPS_INTERNAL_KEY", "CONSENT_INTERNAL_KEY", "ALERTS_INTERNAL_KEY")
    return {
        "HTTP_PORT": str(port),
        "METRICS_PORT": "0",
        **dict.fromkeys(internal, INTERNAL_KEY),
        "SERVICE_API_KEY": SERVICE["X-API-KEY"],
        "ADMIN_API_KEY": ADMIN["X-ADMIN-API-KEY"],
        "REDIS_URL": redis_url,
        "AMQP_URL": "amqp://gateway:none@127.0.0.1:1/none",
        **dict.fromkeys(("FOLLOWUPS_URL", "CONSENT_URL", "ALERTS_URL"), owner.url),
        "ALERTS_CONFIG": str(ROOT / "config.example" / "alerts.toml"),
        "FORMS_CONFIG": str(ROOT / "config.example" / "forms.toml"),
        "RATE_LIMIT_STATE_FILE": str(limits),
    }


StartGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def start_gateway(
    own_ports: list[int], owner: Owner, redis_url: str, tmp_path: Path
) -> AsyncIterator[StartGateway]:
    """Start gateways; any setting may be given, as CHAT_RATE_LIMIT="5 per day"."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        started: list[Gateway] = []

        async def start(program: str | None = None, **settings: str) -> Gateway:
            """:param program: see `ServiceUnderTest.launch`"""
            limits = tmp_path / f"limits-{len(started)}.json"
            env = environment(own_ports[1 + len(started)], owner, redis_url, limits)
            env |= {"PATH": os.environ["PATH"]} | settings
            log = tmp_path / f"gateway-{len(started)}.log"
            env = {name: value for name, value in env.items() if value}
            gateway = Gateway("gateway", env, log, session)
            started.append(gateway)
            await gateway.start(program)
            if "REDIS_URL" not in settings:
                await gateway.redis_is("healthy")
            return gateway

        yield start
        workers = [pid for gateway in started for pid in workers_of(gateway)]
        for gateway in started:
            gateway.kill9()
        await ended(workers)  # else they take connections to the next test's gateway


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    """One with the settings of the tests."""
    return await start_gateway()


def workers_of(gateway: Gateway) -> list[int]:
    pid = gateway.process.pid
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []  # it has been waited for


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def ended(pids: Sequence[int]) -> None:
    await until(lambda: not any(alive(pid) for pid in pids))


@pytest.fixture
def own_redis(tmp_path: Path, own_ports: list[int]) -> Iterator[Redis]:
    """A server of this test's own, to be killed."""
    own = Redis(tmp_path / "redis", port=own_ports[0], password="redis-password")
    with running(own) as started:
        yield started


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a scripted owner, and a client towards it."""
    async with AsyncExitStack() as stack:

        async def start(
            *plays: Callable[[ScriptedServer], Play], answer_seconds: float = 5
        ) -> tuple[ScriptedServer, Upstream]:
            server = ScriptedServer(*plays)
            listening = await asyncio.start_server(server.accept, HOST, 0)
            stack.callback(listening.close)
            url = f"http://{HOST}:{listening.sockets[0].getsockname()[1]}"
            opened = Upstream("owner", url, "the key", answer_seconds=answer_seconds)
            return server, await stack.enter_async_context(opened)

        yield start
