"""Breaks a fleet as a seed says: one or two faults of one host at a time, then heals it."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    closing,
    suppress,
)
from dataclasses import dataclass

import psycopg2
import pytest

from deploy.up.environment import SERVICES
from deploy.up.process import ServerError, family
from deploy.up.supervisor import SERVING
from tests.cluster.fleet import SERVERS, Fleet
from tests.cluster.harness import NAMES
from tests.cluster.history import History
from tests.cluster.network import both_ways
from tests.support.eventually import eventually
from tests.support.servers import frozen

SHORT, LONG = (5.0, 20.0), (30.0, 90.0)  # seconds
PAUSE_SECONDS = (3.0, 10.0)
PATIENT_SECONDS, WHOLE_SECONDS = 90.0, 90.0


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
        if await self._missing(PATIENT_SECONDS):
            # deploy/cluster/rejoin.py should have done this.
            for host in await asyncio.to_thread(self._fleet.apart):
                restart = killed(self._fleet, host, ["rabbitmq"])
                await self.do(Fault("RabbitMQ stays apart, restart it", 1, restart), host)
            if missing := await self._missing(WHOLE_SECONDS):
                pytest.fail(f"not whole after {WHOLE_SECONDS:.0f} s: {', '.join(missing)}")
        await asyncio.to_thread(_let_all_write, self._fleet)

    async def _missing(self, seconds: float) -> list[str]:
        """Return what is not whole after this time."""
        missing: list[str] = []

        async def whole() -> bool:
            missing[:] = await asyncio.to_thread(self._fleet.missing)
            return not missing

        with suppress(TimeoutError):
            await eventually(whole, seconds, every=0.5)
        return missing

    def _draw(self, host: str) -> Fault:
        chance, fleet, network = self._chance, self._fleet, self._fleet.network
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
            ("cut off", lambda: during(network.cut(both_ways(host)))),
            ("hears, is not heard", lambda: during(network.cut(out))),
            ("is heard, hears not", lambda: during(network.cut([(b, a) for a, b in out]))),
            (f"cut from {other}", lambda: during(network.cut([(host, other), (other, host)]))),
            ("loses three of ten", lambda: during(network.losing(both_ways(host)))),
            ("slow network", lambda: during(network.slow(host))),
            ("full disk", lambda: during(fleet.full_disk(host))),
            ("switch over to it", lambda: switched(fleet, host)),
            ("rolling restart", lambda: rolled(fleet)),
            ("read-only primary", lambda: read_only(fleet)),
        ]
        what, make = chance.choice(faults)
        return Fault(what, seconds, make())


def clocks(seed: int) -> dict[str, int]:
    """Return by how many seconds each clock that is wrong is ahead."""
    chance = random.Random(f"clocks {seed}")
    return {host: chance.choice((-5, 5)) for host in NAMES if chance.random() < 0.4}


def everything(host: str) -> list[str]:
    return [*SERVERS, *(SERVICES if host in SERVING else ())]


@asynccontextmanager
async def killed(fleet: Fleet, host: str, names: list[str]) -> AsyncIterator[None]:
    """Kill -9; then start again."""
    ends = (asyncio.to_thread(fleet.stop, name, host, signal.SIGKILL) for name in names)
    await asyncio.gather(*ends)
    try:
        yield
    finally:
        await asyncio.gather(*(asyncio.to_thread(fleet.launch, name, host) for name in names))


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
async def during(fault: AbstractContextManager[None]) -> AsyncIterator[None]:
    with fault:
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
    for name, host in fleet.services:
        await asyncio.to_thread(fleet.stop, name, host, signal.SIGTERM)
        await asyncio.to_thread(fleet.launch, name, host)
        with suppress(ServerError):  # what it needs is lost
            await asyncio.to_thread(fleet.wait, name, host, 20)
    yield


@asynccontextmanager
async def read_only(fleet: Fleet) -> AsyncIterator[None]:
    """Make the primary refuse to write, as a provider does whose disk is full."""
    primary = await asyncio.to_thread(lambda: fleet.cluster.primary)
    if primary is not None:
        await asyncio.to_thread(_alter, fleet, primary, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        await asyncio.to_thread(_let_all_write, fleet)


def _let_all_write(fleet: Fleet) -> None:
    """Undo it also on standbys: whoever was made from that primary has its setting."""
    for host in NAMES:
        _alter(fleet, host, "RESET default_transaction_read_only")


def _alter(fleet: Fleet, host: str, change: str) -> None:
    node = fleet.cluster.hosts[host].postgres
    with (
        suppress(psycopg2.Error),  # another fault has it; heal() comes once more
        closing(
            psycopg2.connect(
                host=node.host,
                port=node.ports["POSTGRES_OWN_PORT"],
                user="postgres",
                password=fleet.values["POSTGRES_SUPERUSER_PASSWORD"],
                dbname="postgres",
                connect_timeout=2,
            )
        ) as connection,
    ):
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER SYSTEM {change}")
            cursor.execute("SELECT pg_reload_conf()")
