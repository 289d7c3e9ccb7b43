"""What a client may write on the socket: nothing is read in two ways, nobody holds it for long.

Each request is a line of bytes; what an owner got of it is the proof.
"""

import asyncio
import gc
import json
import re
import socket
import tomllib
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from libs.common.http import server
from libs.common.process import settings
from libs.common.process.service import Service
from services.gateway import app
from services.gateway.door import body_budget
from services.gateway.settings import GatewaySettings
from services.gateway.targets import Targets
from tests.integration.gateway.conftest import (
    ADMIN,
    SERVICE,
    Gateway,
    Owner,
    StartGateway,
    environment,
)
from tests.support.console import INTERNAL_KEY as CONSOLE_INTERNAL_KEY
from tests.support.console import Console, api_key
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import HOST

pytestmark = pytest.mark.promise("P7")

OWN_KEY = "osk_AAAAAAAAAA_import"
TCP = Path("/proc/net/tcp")
HOST_HEX = socket.inet_aton(HOST)[::-1].hex().upper()
HOST_LINE = b"Host: x\r\n"
POST = b"POST /api/chatbot/chat HTTP/1.1\r\n" + HOST_LINE
STATUS = "/api/unsubscribe/status/"
GET = b"GET " + STATUS.encode() + b"a HTTP/1.1\r\n" + HOST_LINE
SMUGGLED = GET.replace(b"/a ", b"/smuggled ") + b"\r\n"

LONG_LINE = b"X: " + b"a" * 8000 + b"\r\n"

WORDS = {"POST": POST, "GET": GET, "SMUGGLED": SMUGGLED, "LONG": LONG_LINE}
ROWS = tomllib.loads(Path(__file__).with_name("raw.toml").read_text(encoding="utf-8"))


def written(row: str) -> bytes:
    """Return the bytes that a row of raw.toml stands for."""

    def filled(found: re.Match[bytes]) -> bytes:
        word, _, times = found[1].partition(b"*")
        return WORDS.get(word.decode(), word) * int(times or 1)

    return re.sub(rb"<([^<>]+)>", filled, row.encode("latin-1"))


async def until_closed(gateway: Gateway, sent: bytes) -> bytes:
    """Give all that came before the gateway closed the connection."""
    reader, writer = await begin(port_of(gateway), sent)
    async with asyncio.timeout(10):
        got = await reader.read()
    writer.close()
    return got


async def answers(gateway: Gateway, sent: bytes, count: int) -> bytes:
    """Give so many answers, and what follows at once; the connection must stay open."""
    reader, writer = await begin(port_of(gateway), sent)
    got = b""
    async with asyncio.timeout(10):
        while len(statuses(got)) < count:
            part = await reader.read(65536)
            assert part, got
            got += part
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            part = await reader.read(65536)
            assert part, got
            got += part
    writer.close()
    return got


def port_of(gateway: Gateway) -> int:
    return int(gateway.url.rpartition(":")[2])


def statuses(got: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+)", got)]


async def test_an_ambiguous_request_is_refused_and_reaches_no_upstream(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(API_RATE_LIMIT_MINUTE="1000 per minute")
    before = len(owner.received)
    for name, row in ROWS["refused"].items():
        got = await until_closed(gateway, written(row))
        head, _, body = got.partition(b"\r\n\r\n")
        assert statuses(got) == [400], (name, got)
        assert b"Content-Type: application/problem+json" in head, name
        assert b"X-Request-ID: " in head, name
        assert json.loads(body)["status"] == 400, name
    assert owner.received[before:] == []
    log = gateway.log.read_text()
    assert log.count("http.malformed") == len(ROWS["refused"])
    assert "Traceback" not in log


async def test_a_head_of_ordinary_size_is_accepted_in_any_chunks(gateway: Gateway) -> None:
    reader, writer = await begin(port_of(gateway))
    for _ in range(2):
        writer.write(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000 + GET)
        assert (await answer(reader))[0] == 200
        writer.write(LONG_LINE)
        writer.write(b"\r\n")
        assert (await answer(reader))[0] == 200
    writer.close()


async def test_a_request_reaches_the_owner_as_one_of_our_own_making(
    gateway: Gateway, owner: Owner
) -> None:
    for name, (row, *seen) in ROWS["own"].items():
        before = len(owner.received)
        got = await answers(gateway, written(row), len(seen))
        received = owner.received[before:]
        assert [each["path"] for each in received] == [STATUS + each for each in seen], name
        assert statuses(got) == [200] * len(seen)
        for each in received:
            assert each["headers"]["Host"] == owner.url.removeprefix("http://")
            assert each["headers"]["X-Caller"] == "public"
            assert "Upgrade" not in each["headers"]


async def test_any_byte_of_a_header_reaches_the_owner_as_text(
    gateway: Gateway, owner: Owner
) -> None:
    before = len(owner.received)
    utf_8 = "Mozilla/5.0 (Gerät, żółw)"
    for sent in (b"Mozilla/5.0 (Ger\xe4t)", utf_8.encode(), b"\xff\xfe\x80"):
        got = await answers(gateway, GET + b"User-Agent: " + sent + b"\r\n\r\n", 1)
        assert statuses(got) == [200]
    seen = [each["headers"]["User-Agent"] for each in owner.received[before:]]
    assert seen == ["Mozilla/5.0 (Ger\xe4t)", utf_8, "\xff\xfe\x80"]


async def test_invalid_utf_8_never_causes_a_500(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        CORS_ORIGINS="*", TRUSTED_PROXIES="127.0.0.0/8", TOKEN_KEYS="k1:" + "A" * 43 + "="
    )
    for header in (
        b"Origin: https://\xe4",
        b"X-Request-ID: \xe4\xe4\xe4\xe4\xe4\xe4\xe4\xe4",
        b"X-Forwarded-For: \xe4",
        b"X-API-KEY: \xe4",
        b"Idempotency-Key: \xe4",
        b"Accept-Language: \xe4",
        b"traceparent: \xe4",
    ):
        got = await answers(gateway, GET + header + b"\r\n\r\n", 1)
        assert statuses(got)[0] < 500, got
    assert "Traceback" not in gateway.log.read_text()


async def test_what_leads_nowhere_is_refused_and_the_connection_goes_on(
    gateway: Gateway, owner: Owner
) -> None:
    before = len(owner.received)
    for row, status in ROWS["nowhere"].values():
        assert statuses(await answers(gateway, written(row), 1)) == [status], row
    assert owner.received[before:] == []


async def test_http_1_0_is_answered_and_its_connection_ends(
    start_gateway: StartGateway, owner: Owner
) -> None:
    async def streamed(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 100_000)
        await asyncio.sleep(0.2)  # what is there at once is answered with its length
        return response

    gateway = await start_gateway()
    one = b"GET %ba HTTP/1.0\r\n" % STATUS.encode()
    assert statuses(await until_closed(gateway, one + b"\r\n")) == [200]
    kept = one + b"Connection: keep-alive\r\n\r\n"
    assert statuses(await answers(gateway, kept, 1)) == [200]
    owner.handle = streamed
    got = await until_closed(gateway, kept)
    assert b"chunked" not in got
    assert got.endswith(b"\r\n\r\n" + b"x" * 100_000)


async def test_after_413_the_client_can_read_the_answer_and_go_on(gateway: Gateway) -> None:
    reader, writer = await begin(port_of(gateway), POST + b"Content-Length: 3000000\r\n\r\n")
    for _ in range(300):
        writer.write(b"x" * 10_000)
        await writer.drain()
    writer.write(GET + b"\r\n")
    got = b""
    async with asyncio.timeout(10):
        while len(statuses(got)) < 2:
            part = await reader.read(65536)
            assert part, got
            got += part
    assert statuses(got) == [413, 200]
    writer.close()


async def test_head_of_a_large_answer_carries_no_byte_of_it(gateway: Gateway, owner: Owner) -> None:
    owner.say({"x": "x" * 1_000_000})
    head = GET.replace(b"GET ", b"HEAD ") + b"\r\n"
    got = await answers(gateway, head + head, 2)
    assert statuses(got) == [200, 200]
    assert b"x" * 100 not in got


async def test_a_client_that_leaves_in_the_middle_frees_the_owner(
    gateway: Gateway, owner: Owner
) -> None:
    gone = asyncio.Event()
    owner.handle = endless(gone)
    reader, writer = await begin(port_of(gateway), EXPORT)
    await reader.readexactly(100_000)
    writer.transport.abort()
    async with asyncio.timeout(10):
        await gone.wait()
    assert "http.failed" not in gateway.log.read_text()


EXPORT = (
    b"GET /api/consent/export/a@example.com HTTP/1.1\r\n"
    + HOST_LINE
    + b"X-ADMIN-API-KEY: %b\r\n\r\n" % ADMIN["X-ADMIN-API-KEY"].encode()
)


def endless(gone: asyncio.Event) -> Any:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 50_000)
        except ConnectionError:
            gone.set()
        return response

    return handle


# --- clients that take their time; the gateway in this process, so that its times can be short ----


@pytest.fixture
def idle_seconds() -> float:
    return server.IDLE_SECONDS


@pytest.fixture
async def here(
    idle_seconds: float,
    own_ports: list[int],
    owner: Owner,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[int]:
    """Give the port of a gateway with BODY and UNREAD_SECONDS of a second or less.

    It holds 256 KiB of bodies at most, half of it for who shows no key.
    """
    monkeypatch.setattr(server, "IDLE_SECONDS", idle_seconds)
    monkeypatch.setattr(server, "UNREAD_SECONDS", 1.0)
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.5)
    monkeypatch.setattr(body_budget, "BODY_SECONDS", 0.5)
    monkeypatch.setattr(app, "BodyBudget", lambda: body_budget.BodyBudget(256 * 1024))
    console = Console(port=0)
    console.change(api_key("AAAAAAAAAA", OWN_KEY, "leads:import"))
    await console.start()
    own = {
        "MAX_CONNECTIONS": "20",
        "KEYS_STATE_FILE": str(tmp_path / "keys.json"),
        "CONSOLE_URL": console.url,
        "CONSOLE_INTERNAL_KEY": CONSOLE_INTERNAL_KEY,
    }
    usual = environment(own_ports[1], owner, redis_url, tmp_path / "limits.json")
    for name, value in (usual | own).items():
        monkeypatch.setenv(name, value)
    service = Service("gateway")
    configured = settings.load(GatewaySettings)
    targets = Targets.read(configured.alerts_config)
    await app.start(service, configured, targets, {})
    yield own_ports[1]
    service.stopping.set()
    await service.close()
    await console.stop()


async def drip(port: int, begun: bytes, drop: bytes) -> bytes:
    """Write a drop each 50 ms, for as long as anybody takes them; give what was answered."""
    reader, writer = await begin(port, begun)
    got = b""

    async def read() -> None:
        nonlocal got
        with suppress(ConnectionError):  # a drop that met the closed connection resets it
            while part := await reader.read(1024):
                got += part

    reading = asyncio.create_task(read())
    async with asyncio.timeout(8):
        while not reading.done():
            writer.write(drop)
            await asyncio.sleep(0.05)
    writer.close()
    return got


@pytest.mark.parametrize("idle_seconds", [0.5])
async def test_a_head_that_drips_is_cut(here: int) -> None:
    assert await drip(here, b"GET / HTTP/1.1\r\n", b"X: x\r\n") == b""


async def test_a_body_that_drips_is_408_and_cut(here: int, owner: Owner) -> None:
    got = await drip(here, POST + b"Content-Length: 100000\r\n\r\n", b"x")
    assert statuses(got) == [408]
    assert b"Connection: close" in got
    got = await drip(here, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")
    assert statuses(got) == [408]
    assert owner.received == []


async def test_a_client_that_reads_nothing_is_cut_and_frees_the_owner(
    here: int, owner: Owner
) -> None:
    gone = asyncio.Event()
    owner.handle = endless(gone)
    _, writer = await asyncio.open_connection(HOST, here, limit=1024)
    writer.write(EXPORT)
    async with asyncio.timeout(10):
        await gone.wait()
    writer.close()


# --- bodies: all of them together are bounded, whoever sends them --------------------------------

FREE = 4096
LARGE = POST + b"Content-Length: 60000\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
KEY = b"X-API-KEY: %b\r\n" % SERVICE["X-API-KEY"].encode()


def chunk(size: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, b"x" * size)


async def held_are(size: int) -> None:
    await until(lambda: REGISTRY.get_sample_value("gateway_body_bytes") == size)


async def begin(port: int, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(sent)
    return reader, writer


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Give status, head and body of the next answer."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None, head
        return statuses(head)[0], head, await reader.readexactly(int(length[1]))


async def test_large_bodies_without_room_are_503_while_small_ones_and_keyed_ones_go_on(
    here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_budget, "BODY_SECONDS", 60.0)
    slow = [await begin(here, LARGE + b"\r\n" + b"x" * 50_000) for _ in range(2)]
    await held_are(2 * (50_000 - FREE))

    reader, writer = await begin(here, LARGE + b"Expect: 100-continue\r\n\r\n")
    status, head, body = await answer(reader)  # its body was not asked for
    assert (status, json.loads(body)["status"]) == (503, 503)
    assert b"Retry-After: 5\r\n" in head
    assert b"application/problem+json" in head
    writer.close()
    reader, writer = await begin(here, LARGE + b"Accept-Language: pl\r\n\r\n" + b"x" * 60_000)
    status, _, body = await answer(reader)
    assert (status, "spróbuj ponownie za 5 s" in json.loads(body)["detail"]) == (503, True)

    writer.write(POST + b"Content-Length: %d\r\n\r\n" % FREE)  # the 503 was read, and so goes on
    writer.write(b"x" * 2048)
    writer.write(b"x" * 2048)
    assert (await answer(reader))[0] == 200
    writer.write(LARGE + KEY + b"\r\n" + b"x" * 60_000)
    assert (await answer(reader))[0] == 200
    writer.close()

    for reader, writer in slow:
        writer.write(b"x" * 10_000)
        assert (await answer(reader))[0] == 200
    await held_are(0)
    for _, writer in slow:
        writer.close()


async def test_a_body_in_chunks_counts_as_it_grows_and_is_refused_when_there_is_no_more_room(
    here: int, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_budget, "BODY_SECONDS", 60.0)
    reader, writer = await begin(here, CHUNKED + b"\r\n" + chunk(1000))
    writer.write(chunk(99_000))
    await held_are(100_000 - FREE)
    writer.write(chunk(40_000))
    assert (await answer(reader))[0] == 503
    await held_are(0)
    writer.write(chunk(40_000) + b"0\r\n\r\n" + GET + b"\r\n")
    assert (await answer(reader))[0] == 200
    assert [each["path"] for each in owner.received] == [STATUS + "a"]
    writer.close()


async def test_a_request_releases_its_body_budget_however_it_ends(here: int, owner: Owner) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    begun = LARGE + b"\r\n" + b"x" * 50_000
    whole = begun + b"x" * 10_000
    for _ in range(3):
        reader, writer = await begin(here, begun)  # too slow
        assert (await answer(reader))[0] == 408
        writer.close()
        _, writer = await begin(here, begun)  # cut off
        await held_are(50_000 - FREE)
        writer.transport.abort()
        await held_are(0)
        reader, writer = await begin(here, CHUNKED + KEY + b"\r\n" + chunk(200_000) * 2)
        assert (await answer(reader))[0] == 413
        writer.close()
        reader, writer = await begin(here, CHUNKED + b"\r\n" + chunk(50_000) + b"nonsense")
        assert (await answer(reader))[0] == 400
        writer.close()
        owner.handle = break_off
        reader, writer = await begin(here, whole)
        assert (await answer(reader))[0] == 502
        owner.handle = None
        writer.write(whole)  # and while the connection is kept
        assert (await answer(reader))[0] == 200
        await held_are(0)
        writer.close()
    may_answer = owner.hold()
    _, writer = await begin(here, whole)  # nobody waits for the owner's answer
    await held_are(60_000 - FREE)
    writer.transport.abort()
    may_answer.set()
    await held_are(0)


async def test_an_import_is_sent_on_as_it_comes_and_counts_for_nothing(
    here: int, owner: Owner
) -> None:
    path = b"POST /api/leads/import HTTP/1.1\r\n" + HOST_LINE
    key = b"X-API-KEY: %b\r\n" % OWN_KEY.encode()
    reader, writer = await begin(here, path + key + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(10):
        writer.write(b"x" * 100_000)
        await writer.drain()
        assert REGISTRY.get_sample_value("gateway_body_bytes") == 0
    assert (await answer(reader))[0] == 200
    assert len(owner.received[0]["body"]) == 1_000_000
    writer.close()


@pytest.mark.parametrize("name", ROWS["hoards"])
async def test_unread_bodies_are_not_kept(here: int, name: str) -> None:
    row, *status = ROWS["hoards"][name]
    sent = written(row)
    connections = []
    tracemalloc.start()
    try:
        for _ in range(10):
            reader, writer = await begin(here, sent)
            assert (await answer(reader))[0] in status
            connections.append(writer)
        await eventually(lambda: kept_less_than(10 * 60_000))
    finally:
        tracemalloc.stop()
    for writer in connections:
        writer.close()


async def kept_less_than(size: int) -> bool:
    gc.collect()
    return tracemalloc.get_traced_memory()[0] < size


BODY = b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000


@pytest.mark.parametrize("of_each", [1, 2000, 250_000])
async def test_pipelined_requests_are_answered_in_order(
    gateway: Gateway, owner: Owner, of_each: int
) -> None:
    small = POST + b"Content-Length: 2\r\n\r\n{}"
    sent = GET + b"\r\n" + small + GET.replace(STATUS.encode(), b"/none/") + b"\r\n" + small
    if of_each > 1:
        sent = POST + BODY + sent + CHUNKED + b"\r\n" + chunk(8000) + b"0\r\n\r\n" + sent
    reader, writer = await begin(port_of(gateway))
    for begun in range(0, len(sent), of_each):
        writer.write(sent[begun : begun + of_each])
        await writer.drain()
    got = [(await answer(reader))[0] for _ in range(10 if of_each > 1 else 4)]
    rest = [200, 200, 404, 200]
    assert got == ([200, *rest, 200, *rest] if of_each > 1 else rest)
    forwarded = [each for each in owner.received if each["path"] != "/health/deep"]
    assert len(forwarded) == got.count(200)
    writer.close()


async def test_more_requests_in_one_write_than_are_parsed_ahead_are_all_answered(
    gateway: Gateway, owner: Owner
) -> None:
    reader, writer = await begin(port_of(gateway), (GET + b"\r\n") * 45)
    assert [(await answer(reader))[0] for _ in range(45)] == [200] * 45
    writer.close()


async def test_endless_pipelining_is_not_kept_and_closes_the_connection(
    here: int, owner: Owner
) -> None:
    may_answer = owner.hold()
    connections = []
    tracemalloc.start()
    try:
        for _ in range(10):
            reader, writer = await begin(here, GET + b"\r\n")
            async with asyncio.timeout(10):
                for _ in range(20):
                    writer.write(POST + BODY)
                    await writer.drain()
            connections.append((reader, writer))
        await eventually(lambda: kept_less_than(10 * 60_000))
        await eventually(lambda: has_read(here, [writer for _, writer in connections]))
    finally:
        tracemalloc.stop()
        may_answer.set()
    for reader, writer in connections:
        assert (await answer(reader))[0] == 200
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    assert len(owner.received) == 10


async def has_read(port: int, writers: Sequence[asyncio.StreamWriter]) -> bool:
    """Tell whether the gateway has read all that was written: what is unread at a close resets."""
    rows = [line.split() for line in TCP.read_text().splitlines()[1:]]  # noqa: ASYNC240 - no disk
    queues = [row[4] for row in rows if f"{HOST_HEX}:{port:04X}" in row[1:3]]
    written = sum(writer.transport.get_write_buffer_size() for writer in writers)
    return written == 0 and set(queues) == {"00000000:00000000"}


async def test_an_idle_connection_keeps_nothing_of_its_last_body(here: int) -> None:
    admin = b"X-ADMIN-API-KEY: %b\r\n" % ADMIN["X-ADMIN-API-KEY"].encode()
    put = b"PUT /api/ratelimits HTTP/1.1\r\n" + HOST_LINE + admin
    put += b"Content-Type: application/json\r\nContent-Length: 200000\r\n"
    put += b"Expect: 100-continue\r\n\r\n"
    idle = []
    tracemalloc.start()
    try:
        for _ in range(15):
            reader, writer = await begin(here, put)
            await reader.readuntil(b"\r\n\r\n")  # so the body comes after its head
            writer.write(b"x" * 200_000)
            assert (await answer(reader))[0] == 400
            idle.append(writer)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 15 * 100_000
    for writer in idle:
        writer.close()
