"""On loopback and in this process: fast enough to stand beside the unit tests."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.ports import HOST
from tests.support.proxy import DOWN, HOLD_SECONDS, UP, Direction, Proxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
QUIET_SECONDS = 4 * HOLD_SECONDS  # in which a byte that may pass would have passed


class Server:
    """Echoes, and remembers what reached it."""

    def __init__(self) -> None:
        self.seen = b""
        self.ended = asyncio.Event()
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                self.seen += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.ended.set()
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    echo = Server()
    listener = await asyncio.start_server(echo.talk, HOST, 0)
    echo.port = listener.sockets[0].getsockname()[1]
    yield echo
    listener.close()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def connect(proxy: Proxy) -> AsyncIterator[Callable[[], asyncio.Future[Streams]]]:
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        opened.append(writer)
        return reader, writer

    yield lambda: asyncio.ensure_future(connect())
    for writer in opened:
        writer.close()


Connect = Callable[[], asyncio.Future[Streams]]


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Read to the end of the connection, however it ended."""
    data = b""
    try:
        async with asyncio.timeout(30):
            while chunk := await reader.read(1000):
                data += chunk
    except ConnectionError:
        pass
    return data


async def is_quiet(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            return not await reader.read(1)
    except TimeoutError:
        return True


@pytest.mark.parametrize("n", [1, 7, 10])
async def test_cut_after_n_bytes_lets_exactly_n_pass(
    server: Server, proxy: Proxy, connect: Connect, n: int
) -> None:
    reader, writer = await connect()
    reached = proxy.cut_after(UP, n)

    for byte in b"0123456789":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)

    await asyncio.wait_for(reached.wait(), 30)
    await rest_of(reader)
    await asyncio.wait_for(server.ended.wait(), 30)
    assert server.seen == b"0123456789"[:n]


@pytest.mark.parametrize("direction", [UP, DOWN])
async def test_cut_before_a_pattern_lets_no_byte_of_it_pass_however_it_is_split(
    server: Server, proxy: Proxy, connect: Connect, direction: Direction
) -> None:
    for split in range(len(b"BEGIN;COMMIT;")):
        server.seen = b""
        server.ended.clear()
        reader, writer = await connect()
        reached = proxy.cut_before(direction, b"COMMIT")

        writer.write(b"BEGIN;COMMIT;"[:split])
        await asyncio.sleep(0.001)  # likely two reads; the claim holds for one as well
        writer.write(b"BEGIN;COMMIT;"[split:])

        await asyncio.wait_for(reached.wait(), 30)
        answered = await rest_of(reader)
        await asyncio.wait_for(server.ended.wait(), 30)
        assert (server.seen if direction is UP else answered) == b"BEGIN;"


async def test_the_beginning_of_a_pattern_that_does_not_go_on_passes_soon(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    reader, writer = await connect()
    reached = proxy.cut_before(UP, b"COMMIT")

    writer.write(b"COM")
    assert await reader.readexactly(3) == b"COM"
    writer.write(b"PARE")
    assert await reader.readexactly(4) == b"PARE"

    assert not reached.is_set()


async def test_stall_before_a_pattern_holds_it_until_resume(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    reader, writer = await connect()
    reached = proxy.stall_before(UP, b"COMMIT")

    writer.write(b"BEGIN;COMMIT;")
    await asyncio.wait_for(reached.wait(), 30)
    assert await reader.readexactly(6) == b"BEGIN;"
    assert await is_quiet(reader)
    assert server.seen == b"BEGIN;"

    await proxy.resume()
    assert await reader.readexactly(7) == b"COMMIT;"


async def test_a_trap_springs_once(proxy: Proxy, connect: Connect) -> None:
    first = await connect()
    second = await connect()
    reached = proxy.cut_before(UP, b"x")

    first[1].write(b"x")
    await asyncio.wait_for(reached.wait(), 30)
    assert await rest_of(first[0]) == b""
    second[1].write(b"x")

    assert await second[0].readexactly(1) == b"x"
