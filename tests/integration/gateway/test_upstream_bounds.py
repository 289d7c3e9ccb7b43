"""The client towards the owners: its time-outs, its pool, and how much it holds."""

import asyncio
import socket
from contextlib import AsyncExitStack, closing

import pytest

from libs.common.http.client import BUFFERED, WHOLE
from services.gateway.proxy import upstream as client
from services.gateway.proxy.upstream import Upstream
from tests.integration.gateway.upstreams import ANSWERS, Start, ask, get, refusal
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.scripted import OK, answering, until_closed

pytestmark = pytest.mark.promise("P7")


async def test_a_closed_port_is_503() -> None:
    with closing(socket.socket()) as taken:
        taken.bind((HOST, 0))
        url = f"http://{HOST}:{taken.getsockname()[1]}"
        async with Upstream("owner", url, "k", answer_seconds=5) as upstream:
            assert await refusal(get(upstream)) == (503, "unreachable")


async def test_an_unresolvable_name_is_503() -> None:
    async with Upstream("owner", "http://no.such.host.invalid", "k", answer_seconds=5) as up:
        assert await refusal(get(up)) == (503, "unreachable")


async def test_an_owner_that_takes_no_connection_is_503_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.2)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(closing(socket.socket()))
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):  # its queue is full: the kernel answers no further one
            waiting = stack.enter_context(closing(socket.socket()))
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        upstream = await stack.enter_async_context(Upstream("owner", url, "k", answer_seconds=5))
        async with asyncio.timeout(2):
            assert await refusal(get(upstream)) == (503, "unreachable")


@pytest.mark.parametrize("begun", ANSWERS["silent"])
async def test_an_owner_that_falls_silent_is_504_in_time(start: Start, begun: str) -> None:
    owner, upstream = await start(answering(begun.encode(), then=until_closed), answer_seconds=0.2)
    async with asyncio.timeout(2):
        assert await refusal(get(upstream)) == (504, "timeout")
    await owner.gone.wait()
    assert len(owner.requests) == 1  # a time-out is no reason to ask again


async def test_an_owner_that_is_slow_and_never_silent_is_waited_for(start: Start) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _number in range(10):
            await asyncio.sleep(0.1)
            writer.write(b"x")

    _, upstream = await start(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", then=drip), answer_seconds=0.5
    )
    assert await get(upstream) == (200, b"x" * 10)


# --- the pool ------------------------------------------------------------------------------------


@pytest.fixture
def two_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECTIONS", 2)
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.3)


@pytest.mark.usefixtures("two_connections")
async def test_waiting_for_a_connection_is_bounded(start: Start) -> None:
    owner, upstream = await start(answering(then=until_closed))
    asking = [asyncio.create_task(get(upstream)) for _ in range(2)]
    await until(lambda: owner.connections == 2)
    async with asyncio.timeout(2):
        refused = await asyncio.gather(*(refusal(get(upstream)) for _ in range(20)))
    assert set(refused) == {(503, "unreachable")}
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert owner.connections == 2


@pytest.mark.usefixtures("two_connections")
@pytest.mark.parametrize("fault", ["cancelled", "broken", "timeout", "unread"])
async def test_no_fault_keeps_a_place_in_the_pool(start: Start, fault: str) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\nfour"
    plays = {
        "cancelled": answering(then=until_closed),
        "broken": answering(b""),
        "timeout": answering(then=until_closed),
        "unread": answering(large, then=until_closed),
    }
    seconds = 0.1 if fault == "timeout" else 5
    owner, upstream = await start(*[plays[fault]] * 6, answering(OK), answer_seconds=seconds)
    for turn in range(6):
        if fault == "cancelled":
            task = asyncio.create_task(get(upstream))

            async def asked(turn: int = turn) -> bool:
                return owner.connections == turn + 1

            await eventually(asked)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif fault == "unread":
            async with upstream.ask("GET", "/x") as answer:
                assert answer.status == 200
        else:
            await refusal(get(upstream))
        await owner.gone.wait()  # the owner is told that nobody listens any more
        owner.gone.clear()
    assert await get(upstream) == (200, b"ok")


# --- back-pressure -------------------------------------------------------------------------------


async def test_an_owner_is_not_read_faster_than_the_client(start: Start) -> None:
    size, written = 50_000_000, 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while written < size:
            writer.write(b"x" * 50_000)
            await writer.drain()
            written += 50_000

    _, upstream = await start(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, then=pour),
        answer_seconds=0.3,
    )
    async with upstream.ask("GET", "/x") as answer:

        async def stuck(before: list[int]) -> bool:
            before.append(written)
            return before[-1] > 0 and before[-5:] == [before[-1]] * 5

        seen: list[int] = []
        await eventually(lambda: stuck(seen))
        await asyncio.sleep(0.5)  # longer than an owner may be silent: it is the client that is
        assert written < 20_000_000  # in the sockets of both sides
        assert len(answer.received) <= BUFFERED + 256 * 1024
        read = 0
        async for part in answer.parts():
            assert len(part) <= WHOLE
            read += len(part)
    assert read == size


async def test_a_connection_is_used_again_after_its_reading_was_paused(start: Start) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BUFFERED + 1)
    owner, upstream = await start(answering(head + b"x" * (BUFFERED + 1), OK, then=until_closed))
    async with upstream.ask("GET", "/x") as answer:
        await until(lambda: answer.complete)  # its last byte is the one over BUFFERED
        assert len(await answer.read()) == BUFFERED + 1
    assert await get(upstream) == (200, b"ok")
    assert owner.connections == 1


async def test_an_owner_that_does_not_read_the_request_is_504(start: Start) -> None:
    async def deaf(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    _, upstream = await start(lambda _: deaf, answer_seconds=0.3)
    async with asyncio.timeout(2):
        assert await refusal(ask(upstream, "POST", body=b"x" * 20_000_000)) == (504, "timeout")
