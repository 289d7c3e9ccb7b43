"""The client towards the owners: kept connections, bodies of each kind, and what is no HTTP."""

import asyncio
import socket
import time
from typing import Any

import pytest

from libs.common.http import client
from libs.common.http.application import Problem
from libs.common.process import sockets
from tests.integration.gateway.upstreams import ANSWERS, Start, ask, get, refusal
from tests.support.scripted import OK, Play, ScriptedServer, answering, reset, until_closed

LARGE = 300_000


async def test_a_connection_is_kept_and_used_again(start: Start) -> None:
    owner, upstream = await start(answering(OK, OK, OK, then=until_closed))
    for _ in range(3):
        assert await get(upstream) == (200, b"ok")
    assert owner.connections == 1
    assert owner.requests[0].startswith(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"X-Internal-Key: the key\r\n" in owner.requests[0]


async def test_a_get_that_meets_a_connection_being_closed_is_asked_again_once(start: Start) -> None:
    owner, upstream = await start(answering(OK, b"", then=reset), answering(OK, then=until_closed))
    assert await get(upstream) == (200, b"ok")
    assert await get(upstream, "/again") == (200, b"ok")
    assert [request.split()[1] for request in owner.requests] == [b"/x", b"/again", b"/again"]


async def test_a_post_that_meets_a_connection_being_closed_is_never_asked_again(
    start: Start,
) -> None:
    owner, upstream = await start(answering(OK, b""))
    assert await get(upstream) == (200, b"ok")
    assert await refusal(ask(upstream, "POST", body=b"{}")) == (502, "broken")
    assert len(owner.requests) == 2
    assert owner.requests[1].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize("told", [b"", b"H"], ids=["new", "begun"])
async def test_a_get_is_asked_again_neither_on_a_new_connection_nor_after_a_first_byte(
    start: Start, told: bytes
) -> None:
    first = [OK] if told else []
    owner, upstream = await start(answering(*first, told))
    if told:
        assert await get(upstream) == (200, b"ok")
    assert await refusal(get(upstream)) == (502, "broken")
    assert len(owner.requests) == len(first) + 1
    assert owner.connections == 1


async def test_a_connection_that_was_closed_while_idle_costs_no_request(start: Start) -> None:
    owner, upstream = await start(answering(OK))
    assert await get(upstream) == (200, b"ok")
    await owner.gone.wait()
    await asyncio.sleep(0)  # its end of stream is read
    assert await ask(upstream, "POST", body=b"") == (200, b"ok")
    assert b"Content-Length: 0\r\n" in owner.requests[1]
    assert (owner.connections, len(owner.requests)) == (2, 2)


async def test_a_connection_idle_for_long_is_not_used_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "IDLE_SECONDS", 0)
    owner, upstream = await start(answering(OK, then=until_closed))
    assert await get(upstream) == (200, b"ok")
    assert await get(upstream) == (200, b"ok")
    assert owner.connections == 2


async def test_an_unrequested_response_closes_the_connection(start: Start) -> None:
    async def prattle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await until_closed(reader, writer)

    owner, upstream = await start(answering(OK, then=prattle))
    assert await get(upstream) == (200, b"ok")
    await owner.gone.wait()
    assert await get(upstream) == (200, b"ok")
    assert owner.connections == 2


@pytest.mark.parametrize("name", ANSWERS["whole"])
async def test_an_answer_has_its_own_headers_and_body_and_its_connection_is_kept_if_it_may(
    start: Start, name: str
) -> None:
    written, body, kept = ANSWERS["whole"][name]
    owner, upstream = await start(answering(*[written.encode()] * (1 + kept), then=until_closed))
    for _ in range(2):
        async with upstream.ask("GET", "/x") as answer:
            assert (await answer.read()).decode() == body
            assert not {"X-Forged", "Link", "Set-Cookie"} & {*answer.headers}
    assert owner.connections == (1 if kept else 2)


# --- bodies --------------------------------------------------------------------------------------


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
@pytest.mark.parametrize("kind", ["length", "chunked", "until closed"])
async def test_a_body_is_read_whole_with_any_framing(start: Start, kind: str, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    head = b"HTTP/1.1 200 OK\r\n"
    if kind == "length":
        play = answering(head + b"Content-Length: %d\r\n\r\n" % size + body, then=until_closed)
    elif kind == "chunked":
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 777)
        play = answering(sent, then=until_closed)
    else:
        play = answering(head + b"\r\n" + body)
    owner, upstream = await start(play)
    assert await get(upstream) == (200, body)
    assert (await get(upstream))[0] == 200 if kind == "until closed" else True
    assert owner.connections == (2 if kind == "until closed" else 1)


@pytest.mark.parametrize("cut", ANSWERS["cut"])
async def test_an_answer_that_ends_too_soon_does_not_look_whole(start: Start, cut: str) -> None:
    _, upstream = await start(answering(cut.encode()))
    assert await refusal(get(upstream)) == (502, "broken")


async def test_a_body_until_the_end_of_a_connection_that_was_reset_does_not_look_whole(
    start: Start,
) -> None:
    _, upstream = await start(answering(b"HTTP/1.1 200 OK\r\n\r\nfour", then=reset))
    assert await refusal(get(upstream)) == (502, "broken")


async def test_a_fault_during_a_slow_read_is_raised_at_the_next_read(start: Start) -> None:
    _, upstream = await start(
        answering(b"HTTP/1.1 200 OK\r\n\r\nfour", then=until_closed), answer_seconds=0.2
    )

    async def slowly() -> None:
        async with upstream.ask("GET", "/x") as answer:
            async for _ in answer.parts():
                await asyncio.sleep(0.5)  # meanwhile the owner is silent for too long

    assert await refusal(slowly()) == (504, "timeout")


# --- what is no HTTP -----------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ANSWERS["malformed"])
async def test_a_malformed_response_is_502_and_closes_the_connection(
    start: Start, answer: str
) -> None:
    owner, upstream = await start(answering(answer.encode(), then=until_closed))
    assert await refusal(get(upstream)) == (502, "broken")
    await owner.gone.wait()


@pytest.mark.parametrize("name", ANSWERS["endless"])
async def test_a_head_without_end_is_cut_before_it_is_large(start: Start, name: str) -> None:
    begin, again, times = ANSWERS["endless"][name]
    written = 0

    async def go_on(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while written < 100_000_000:
            writer.write(again.encode() * times)
            await writer.drain()
            written += len(again) * times

    owner, upstream = await start(answering(begin.encode(), then=go_on))
    assert await refusal(get(upstream)) == (502, "broken")
    await owner.gone.wait()
    assert written < 20_000_000  # what was under way in the sockets


@pytest.mark.parametrize("broken", ["a\r\nX-Forged: 1", "a\nX-Forged: 1", "a\rb", "\r", "\n"])
async def test_no_line_break_gets_into_a_head(start: Start, broken: str) -> None:
    owner, upstream = await start(answering(OK, then=until_closed))
    for path, headers in (
        (f"/{broken}", {}),
        ("/x", {"X": broken, "Y": "b"}),
        ("/x", {"X": "a", f"Y{broken}": "b"}),
    ):
        with pytest.raises(Problem) as caught:
            async with upstream.ask("GET", path, headers=headers):
                pass
        assert caught.value.status == 400
    assert owner.connections == 0


async def test_a_post_that_certainly_never_left_is_sent_on_another_connection(start: Start) -> None:
    """The owner's end is in the socket, and the loop has not read it yet."""
    writers: list[asyncio.StreamWriter] = []

    def kept(owner: ScriptedServer) -> Play:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await answering(OK, then=until_closed)(owner)(reader, writer)

        return play

    owner, upstream = await start(kept)
    assert await get(upstream) == (200, b"ok")
    writers[0].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    assert await ask(upstream, "POST", body=b"{}") == (200, b"ok")
    assert (owner.connections, len(owner.requests)) == (2, 2)


async def test_a_black_holed_address_delays_its_name_by_a_tenth_of_a_second(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, upstream = await start(answering(OK, then=until_closed))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        filler = socket.create_connection(full.getsockname())  # from now on SYNs are dropped
        addresses = [full.getsockname(), ("127.0.0.1", upstream._port)]

        async def resolve(_: str, __: int) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in addresses]

        monkeypatch.setattr(sockets, "resolve", resolve)
        begun = time.monotonic()
        assert await get(upstream) == (200, b"ok")
        assert time.monotonic() - begun < 1
        filler.close()
    assert owner.connections == 1


async def test_a_kept_connection_notices_a_dead_peer_within_seconds() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        await sockets.connected(*server.getsockname()) as kept,
    ):
        idle, pause, probes = [
            kept.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
        assert kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert idle + pause * probes <= 10
        assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
