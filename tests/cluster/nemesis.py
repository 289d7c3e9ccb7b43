"""Breaks a fleet as a seed says: one or two faults of one host at a time, then heals it."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from dataclasses import dataclass

import psycopg2

from deploy.local.cluster import NAMES
from deploy.local.environment import SERVICES
from deploy.local.process import ServerError, family
from deploy.local.supervisor import DRAIN_SECONDS, SERVING
from tests.cluster.fleet import Fleet
from tests.cluster.history import History
from tests.cluster.network import Way, both_ways
from tests.support.eventually import eventually
from tests.support.servers import frozen

SERVERS = ("rabbitmq", "etcd", "postgres", "redis", "sentinel", "haproxy")
SHORT, LONG = (5.0, 20.0), (30.0, 90.0)  # seconds
PAUSE_SECONDS = (3.0, 10.0)
WHOLE_SECONDS = 180.0


@dataclass(frozen=True)
class Fault:
    what: str
    seconds: float
    during: AbstractAsyncContextManager[None]


class Nemesis:
    def __init__(self, fleet: Fleet, history: History, seed: int, *, long: bool = False) -> None:
        self._fleet = fleet
        self._history = history
        self._chance = random.Random(f"nemesis {seed}")
        self._long = long

    async def run(self, seconds: float) -> None:
        """Break and heal until the time is over; at the end all is whole."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while clock() < deadline:
            await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))
            host = self._chance.choice(NAMES)
            count = 2 if self._chance.random() < 0.3 else 1
            # Drawn before anything begins: what a seed does must not hang on how fast it goes.
            faults = [self._draw(host) for _ in range(count)]
            async with asyncio.TaskGroup() as together:
                for fault in faults:
                    together.create_task(self.do(fault, host))
            if self._chance.random() < 0.5:  # else another host is hit before this one is back
                await self.heal()
        await self.heal()

    async def do(self, fault: Fault, host: str) -> None:
        self._history.add("begin", fault.what, host)
        try:
            async with fault.during:
                await asyncio.sleep(fault.seconds)
        finally:
            self._history.add("end", fault.what, host)

    async def heal(self) -> None:
        """Wait until every server is a member again and every service answers."""

        async def whole() -> bool:
            return await asyncio.to_thread(self._fleet.whole)

        await eventually(whole, WHOLE_SECONDS, every=0.5)

    def _draw(self, host: str) -> Fault:
        chance, fleet = self._chance, self._fleet
        seconds = chance.uniform(*(LONG if self._long and chance.random() < 0.3 else SHORT))
        one = chance.choice([*SERVERS, *(SERVICES if host in SERVING else ())])
        others = [name for name in NAMES if name != host]
        other = chance.choice(others)
        out = [(host, name) for name in others]
        faults: list[tuple[str, Callable[[], AbstractAsyncContextManager[None]]]] = [
            (f"kill {one}", lambda: killed(fleet, host, [one])),
            ("kill the host", lambda: killed(fleet, host, everything(host))),
            (f"freeze {one}", lambda: stopped(fleet, host, [one])),
            ("freeze the host", lambda: stopped(fleet, host, everything(host))),
            ("cut off", lambda: cut(fleet, both_ways(host))),
            ("hears, is not heard", lambda: cut(fleet, out)),
            ("is heard, hears not", lambda: cut(fleet, [(b, a) for a, b in out])),
            (f"cut from {other}", lambda: cut(fleet, [(host, other), (other, host)])),
            ("loses three of ten", lambda: losing(fleet, both_ways(host))),
            ("switch over to it", lambda: switched(fleet, host)),
            ("rolling restart", lambda: rolled(fleet)),
            ("read-only primary", lambda: read_only(fleet)),
        ]
        what, make = chance.choice(faults)
        return Fault(what, seconds, make())


def everything(host: str) -> list[str]:
    return [*SERVERS, *(SERVICES if host in SERVING else ())]


@asynccontextmanager
async def killed(fleet: Fleet, host: str, names: list[str]) -> AsyncIterator[None]:
    """Kill -9; then start again."""

    def end(name: str) -> None:
        if name in SERVICES:
            fleet.services[name, host].stop(signal.SIGKILL, DRAIN_SECONDS)
        else:
            fleet.server(name, host).kill()

    def start(name: str) -> None:
        if name in SERVICES:
            fleet.launch(name, host)
        else:
            fleet.server(name, host).launch()

    await asyncio.gather(*(asyncio.to_thread(end, name) for name in names))
    try:
        yield
    finally:
        await asyncio.gather(*(asyncio.to_thread(start, name) for name in names))


@asynccontextmanager
async def stopped(fleet: Fleet, host: str, names: list[str]) -> AsyncIterator[None]:
    pids: list[int] = []
    for name in names:
        if name not in SERVICES:
            pids += fleet.server(name, host).family()
        elif (pid := fleet.services[name, host].pid) is not None:
            pids += family(pid)
    if not pids:  # the other fault has killed it
        yield
        return
    with frozen(*pids):
        yield


@asynccontextmanager
async def cut(fleet: Fleet, ways: Iterable[Way]) -> AsyncIterator[None]:
    with fleet.network.cut(ways):
        yield


@asynccontextmanager
async def losing(fleet: Fleet, ways: Iterable[Way]) -> AsyncIterator[None]:
    with fleet.network.losing(ways):
        yield


@asynccontextmanager
async def switched(fleet: Fleet, host: str) -> AsyncIterator[None]:
    """Make the host's PostgreSQL the primary, unless it is or Patroni refuses."""
    with suppress(ServerError):
        await asyncio.to_thread(fleet.cluster.switch_over, host)
    yield


@asynccontextmanager
async def rolled(fleet: Fleet) -> AsyncIterator[None]:
    """Restart each service in turn, as an upgrade does."""
    for (name, host), process in fleet.services.items():
        await asyncio.to_thread(process.stop, signal.SIGTERM, DRAIN_SECONDS)
        fleet.launch(name, host)
        with suppress(ServerError):  # what it needs is lost
            await asyncio.to_thread(fleet.wait, name, host)
    yield


@asynccontextmanager
async def read_only(fleet: Fleet) -> AsyncIterator[None]:
    """Make the primary refuse to write, as a provider does whose disk is full."""

    def change(verb: str) -> None:
        with suppress(psycopg2.Error):  # the other fault has made another node the primary
            dsn = fleet.cluster.hosts[fleet.cluster.primary or "a"].dsn
            with closing(psycopg2.connect(dsn, connect_timeout=2)) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("SET default_transaction_read_only = off")
                    cursor.execute(f"ALTER SYSTEM {verb}")
                    cursor.execute("SELECT pg_reload_conf()")

    await asyncio.to_thread(change, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        await asyncio.to_thread(change, "RESET default_transaction_read_only")
