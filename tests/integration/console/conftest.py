"""A console as a process, and gateway processes as far as it knows them."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import psycopg2
import pytest
from aiohttp import web
from psycopg2.extras import NamedTupleCursor

from deploy.up.environment import EXAMPLE_CONFIG
from tests.conftest import NewDatabase
from tests.support.consumers import until
from tests.support.databases import DatabaseUrl
from tests.support.ports import HOST, Ports
from tests.support.service import Answer, ServiceUnderTest

INTERNAL_KEY = "internal-key-of-the-tests"
OPERATOR_KEYS = "o1:" + base64.b64encode(b"o" * 32).decode()
KEY = {"name": "website", "purpose": "sends the forms", "owner": "Ewa", "scopes": ["alerts:write"]}
REASON = {"reason": "it was in a screenshot"}
QUICK = """
import os
from services.console.keys import keys, sync
sync.UNSEEING_SECONDS = 1.0
keys.CONFIRM_SECONDS = float(os.environ["CONFIRM_SECONDS"])
from services.console.__main__ import main
main()
"""
"""Gateway processes that a test has not begun are waited for no longer than this."""


STOPPED = """
import asyncio
from services.console import bulk, gateway, record
from services.console.__main__ import main
from services.console.keys import keys
real = {where}
async def stop(*given, **named):
    if {after}:
        await real(*given, **named)
    print("stopped", flush=True)
    await asyncio.sleep(60)
{where} = stop
{more}
main()
"""


def stopping_at(where: str, *, after: bool = False, more: str = "") -> str:
    """Return a program that stops where this is called, or after it, and says so."""
    return STOPPED.format(where=where, after=after, more=more)


@asynccontextmanager
async def serving(port: int, app: web.Application) -> AsyncIterator[str]:
    """Stand for the gateway."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    yield f"http://{HOST}:{port}"
    await runner.cleanup()


class Console(ServiceUnderTest):
    def __init__(
        self, database: DatabaseUrl, port: int, log: Path, session: aiohttp.ClientSession
    ) -> None:
        self.database = database
        self.key = INTERNAL_KEY
        environment = {
            **os.environ,
            "DATABASE_URL": database,
            "INTERNAL_API_KEY": INTERNAL_KEY,
            "HTTP_PORT": str(port),
            "METRICS_PORT": "0",
            "GATEWAY_URL": f"http://{HOST}:1",  # nobody
            "AMQP_URL": f"amqp://{HOST}:1",
            "OPERATOR_KEYS": OPERATOR_KEYS,
            "CONFIRM_SECONDS": "30",  # a busy machine is slow
            "PUBLIC_BASE_URL": "https://console.example.com",
            "COMPANY_CONFIG": str(EXAMPLE_CONFIG / "company.toml"),
        }
        super().__init__("console", environment, log, session)

    async def start(self, program: str | None = QUICK) -> None:
        await super().start(program)

    async def stopped(self) -> None:
        """Wait until its program says that it has stopped."""
        await until(lambda: "stopped" in self.log.read_text(), 30)

    async def hurry(self) -> None:
        """Wait for no gateway process for long: the test has one that does not confirm."""
        self.environment["CONFIRM_SECONDS"] = "1"
        self.kill9()
        await self.start()

    async def call(
        self, method: str, path: str, body: Any = None, *, caller: str = "admin", **headers: str
    ) -> Answer:
        sent = {"X-Internal-Key": INTERNAL_KEY, "X-Caller": caller, **headers}
        return await self.send(method, path, sent, json=body)

    async def create(self, operator: dict[str, str] | None = None, **changes: Any) -> Answer:
        soon = (datetime.now(UTC) + timedelta(days=30)).isoformat()
        body = KEY | {"expires_at": soon} | changes
        return await self.call("POST", "/api/keys", body, **operator or {})

    async def listed(self, key_id: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = (await self.call("GET", "/api/keys")).body["items"]
        return next(each for each in found if each["id"] == key_id)

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Ask, or change, the database past the console."""
        connection = psycopg2.connect(self.database.superuser_url)
        try:
            with connection, connection.cursor(cursor_factory=NamedTupleCursor) as cursor:
                cursor.execute(  # type: ignore[no-untyped-call]  # its stub's fault
                    f"SET search_path = console; {statement}", values
                )
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@dataclass
class Reader:
    """A gateway process: it serves the keys of its last answer, and then says that it has them."""

    console: Console
    process: str
    instance: str = "first"
    epoch: str = ""
    version: int = 0
    digests: set[str] = field(default_factory=set)
    people: dict[str, str] = field(default_factory=dict)
    restored: bool = False
    used: list[dict[str, Any]] = field(default_factory=list)

    async def sync(self, wait: float = 0) -> int:
        body: dict[str, Any] = {
            "process": self.process,
            "instance": self.instance,
            "epoch": self.epoch,
            "version": self.version,
            "wait": wait,
            "used": self.used,
        }
        if self.restored:
            body |= {"held": sorted(self.digests), "people": self.people}
        answer = await self.console.call("POST", "/internal/keys/sync", body, caller="gateway")
        if answer.status == 200:
            keys = answer.body["keys"]
            self.digests = {each["sha256"] for key in keys for each in key["digests"]}
            self.people = answer.body["people"]
            self.epoch, self.version = answer.body["epoch"], answer.body["version"]
        self.restored = answer.status == 409
        return answer.status

    async def run(self) -> None:
        while True:
            try:
                refused = await self.sync(20) not in {200, 204}
            except aiohttp.ClientError:
                refused = True
            if refused:
                await asyncio.sleep(0.2)

    async def leave(self) -> None:
        body = {"process": self.process, "instance": self.instance}
        answer = await self.console.call("POST", "/internal/keys/goodbye", body, caller="gateway")
        assert answer.status == 204


NewReader = Callable[[str], Reader]


@pytest.fixture
async def idle_console(
    database: NewDatabase, ports: Ports, tmp_path: Path
) -> AsyncIterator[Console]:
    """Give a console that the test starts."""
    async with aiohttp.ClientSession() as session:
        log = tmp_path / "console.log"
        console = Console(await database("console"), ports.take(), log, session)
        yield console
        console.kill9()


@pytest.fixture
async def console(idle_console: Console) -> Console:
    await idle_console.start()
    return idle_console


@pytest.fixture
async def running(console: Console) -> AsyncIterator[NewReader]:
    """Run gateway processes; each has the keys already."""
    tasks: list[asyncio.Task[None]] = []

    def start(process: str) -> Reader:
        reader = Reader(console, process)
        tasks.append(asyncio.create_task(reader.run()))
        return reader

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
