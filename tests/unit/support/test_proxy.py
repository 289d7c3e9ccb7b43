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


async def test_bytes_and_the_end_of_the_stream_pass_both_ways(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    reader, writer = await connect()
    sent = bytes(range(256)) * 5000

    writer.write(sent)
    writer.write_eof()

    assert await rest_of(reader) == sent
    assert server.seen == sent
    assert proxy.passed == {UP: len(sent), DOWN: len(sent)}


async def test_a_cut_ends_open_connections_and_lets_new_ones_in(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    first = await connect()
    first[1].write(b"one")
    await first[0].readexactly(3)

    proxy.cut()

    assert await rest_of(first[0]) == b""
    await asyncio.wait_for(server.ended.wait(), 30)
    second = await connect()
    second[1].write(b"two")
    assert await second[0].readexactly(3) == b"two"


async def test_a_refusing_proxy_is_a_closed_port_until_it_resumes(
    proxy: Proxy, connect: Connect
) -> None:
    reader, writer = await connect()
    writer.write(b"one")
    await reader.readexactly(3)
    port = proxy.port

    await proxy.refuse()
    assert await rest_of(reader) == b""
    assert proxy.connections == 0
    with pytest.raises(ConnectionRefusedError):
        await connect()

    await proxy.resume()
    assert proxy.port == port
    reader, writer = await connect()
    writer.write(b"two")
    assert await reader.readexactly(3) == b"two"


async def test_a_stall_holds_everything_back_and_resume_loses_nothing(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    reader, writer = await connect()
    proxy.stall()

    writer.write(b"held")
    assert await is_quiet(reader)
    assert server.seen == b""

    await proxy.resume()
    assert await reader.readexactly(4) == b"held"


async def test_a_stall_of_one_direction_leaves_the_other(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    reader, writer = await connect()
    proxy.stall(DOWN)

    writer.write(b"lost answer")
    assert await is_quiet(reader)
    assert server.seen == b"lost answer"


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


@pytest.mark.parametrize("n", [1, 8])
async def test_cut_before_the_nth_byte_holds_it_back(
    server: Server, proxy: Proxy, connect: Connect, n: int
) -> None:
    reader, writer = await connect()
    reached = proxy.cut_before(UP, n)

    writer.write(b"0123456789")

    await asyncio.wait_for(reached.wait(), 30)
    await rest_of(reader)
    await asyncio.wait_for(server.ended.wait(), 30)
    assert server.seen == b"0123456789"[: n - 1]


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


async def test_cut_after_a_pattern_lets_it_pass_and_nothing_behind_it(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    reader, writer = await connect()
    reached = proxy.cut_after(UP, b"COMMIT;")

    writer.write(b"BEGIN;COMMIT;SELECT")

    await asyncio.wait_for(reached.wait(), 30)
    await rest_of(reader)
    await asyncio.wait_for(server.ended.wait(), 30)
    assert server.seen == b"BEGIN;COMMIT;"


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


async def test_stall_after_n_bytes_holds_the_rest_until_resume(
    proxy: Proxy, connect: Connect
) -> None:
    reader, writer = await connect()
    reached = proxy.stall_after(DOWN, 4)

    writer.write(b"0123456789")
    await asyncio.wait_for(reached.wait(), 30)
    assert await reader.readexactly(4) == b"0123"
    assert await is_quiet(reader)

    await proxy.resume()
    assert await reader.readexactly(6) == b"456789"


async def test_a_trap_springs_once(proxy: Proxy, connect: Connect) -> None:
    first = await connect()
    second = await connect()
    reached = proxy.cut_before(UP, b"x")

    first[1].write(b"x")
    await asyncio.wait_for(reached.wait(), 30)
    assert await rest_of(first[0]) == b""
    second[1].write(b"x")

    assert await second[0].readexactly(1) == b"x"


async def test_a_dead_server_ends_the_connection(connect: Connect, unused_tcp_port: int) -> None:
    async with Proxy(unused_tcp_port) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)

        assert await rest_of(reader) == b""
        writer.close()


@pytest.mark.parametrize("nowhere", [0, b""])
async def test_a_trap_that_lies_nowhere_is_refused(proxy: Proxy, nowhere: int | bytes) -> None:
    with pytest.raises(ValueError, match="trap"):
        proxy.cut_after(UP, nowhere)
