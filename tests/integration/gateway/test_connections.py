"""How many connections one client, and all of them together, may hold."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.gateway.conftest import Gateway, Owner, StartGateway
from tests.integration.gateway.test_raw import port_of
from tests.support import warm
from tests.support.consumers import until
from tests.support.ports import HOST

pytestmark = pytest.mark.promise("P7")

ALIVE = b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /api/unsubscribe/status/a HTTP/1.1\r\nHost: x\r\n\r\n"
FLOOD, BATCH = 12_000, 250


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def served(self) -> bool:
        try:
            async with asyncio.timeout(10):
                self.writer.write(ALIVE)
                head = await self.reader.readuntil(b"\r\n\r\n")
                await self.reader.readexactly(len(b'{"status": "healthy"}'))
        except (ConnectionError, asyncio.IncompleteReadError):
            return False
        return b" 200 " in head

    async def closed(self) -> bool:
        with suppress(ConnectionError):
            async with asyncio.timeout(10):
                return await self.reader.read(1) == b""
        return True


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    opened: list[asyncio.StreamWriter] = []

    async def connect(gateway: Gateway, source: str = HOST) -> Client:
        reader, writer = await asyncio.open_connection(
            HOST, port_of(gateway), local_addr=(source, 0)
        )
        opened.append(writer)
        return Client(reader, writer)

    yield connect
    for writer in opened:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@contextmanager
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files(gateway: Gateway) -> int:
    return len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))


async def test_12000_connections_of_one_address_leave_another_served_in_time(
    gateway: Gateway,
) -> None:
    loop = asyncio.get_running_loop()
    with many_files(), ExitStack() as held:

        async def flood() -> None:
            each = held.enter_context(socket.socket())
            each.settimeout(0)
            each.bind(("127.0.0.2", 0))
            with suppress(ConnectionError):
                await loop.sock_connect(each, (HOST, port_of(gateway)))

        for _ in range(0, FLOOD, BATCH):
            await asyncio.gather(*(flood() for _ in range(BATCH)))
        answer = await gateway.call("GET", "/api/health")
        assert answer.status == 200
        assert answer.seconds < 2
        await until(lambda: "http.connections_dropped" in gateway.log.read_text())
        assert 1000 < open_files(gateway) < 1200


async def test_a_client_that_opens_too_many_loses_its_own_longest_idle_one(
    start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(CONNECTIONS_PER_CLIENT="3")
    other = await connect(gateway, "127.0.0.3")
    assert await other.served()
    first, second, third = [await connect(gateway, "127.0.0.2") for _ in range(3)]
    for each in (second, third, first):
        assert await each.served()
    fourth = await connect(gateway, "127.0.0.2")
    assert await second.closed()
    for each in (first, third, fourth, other):
        assert await each.served()


async def test_beyond_the_most_of_all_the_longest_idle_one_goes(
    start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(MAX_CONNECTIONS="4")
    addresses = [f"127.0.0.{number}" for number in (2, 3, 4, 5)]
    clients = [await connect(gateway, each) for each in addresses]
    for each in clients:
        assert await each.served()
    new = await connect(gateway, "127.0.0.6")
    assert await new.served()
    assert await clients[0].closed()
    assert await clients[1].served()


async def test_a_connection_at_work_is_never_dropped_and_a_new_one_is_closed_instead(
    start_gateway: StartGateway, owner: Owner, connect: Connect
) -> None:
    gateway = await start_gateway(CONNECTIONS_PER_CLIENT="2")
    may_answer = owner.hold()
    busy = [await connect(gateway, "127.0.0.2") for _ in range(2)]
    for each in busy:
        each.writer.write(SLOW)
    await until(lambda: len(owner.of("/api/unsubscribe/status/a")) == 2)
    assert await (await connect(gateway, "127.0.0.2")).closed()
    may_answer.set()
    for each in busy:
        async with asyncio.timeout(10):
            assert b" 200 " in await each.reader.readline()


async def test_a_trusted_proxy_may_have_all(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = await start_gateway(CONNECTIONS_PER_CLIENT="2", TRUSTED_PROXIES="127.0.0.2/32")
    clients = [await connect(gateway, "127.0.0.2") for _ in range(5)]
    for each in clients:
        assert await each.served()


FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
from services.gateway.__main__ import main
raise SystemExit(main())
"""


async def test_too_few_open_files_stop_the_start_with_advice(start_gateway: StartGateway) -> None:
    wanted = "4096 open files are allowed, 10500 are needed .* LimitNOFILE"
    with pytest.raises(RuntimeError, match=wanted):
        await start_gateway(FEW_FILES)


@pytest.fixture
def low_soft_limit() -> Iterator[None]:
    starts = warm.pid("gateway")
    soft, hard = resource.prlimit(starts, resource.RLIMIT_NOFILE)
    resource.prlimit(starts, resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.prlimit(starts, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("low_soft_limit")
async def test_a_low_soft_limit_of_open_files_is_raised_at_the_start(gateway: Gateway) -> None:
    soft, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
