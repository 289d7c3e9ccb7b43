import asyncio
import re
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from libs.common.database.redis_pipeline import RedisPipeline, RedisUnavailable, _Connection
from services.gateway.door.clients import TrustedProxies, parse_networks
from services.gateway.door.limits import Limiter, LocalCounts, Schedule, Window

TABLES = tomllib.loads(Path(__file__).with_name("limits.toml").read_text(encoding="utf-8"))
MINUTE = Window("minute", 3, 60)
HOUR = Window("hour", 5, 3600)


class Clock:
    now = 7200.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    """Without Redis: its pipe is never run."""
    return Limiter(RedisPipeline("redis://127.0.0.1:1", ()), clock=clock, max_keys=10)


async def admitted(limiter: Limiter, key: str, *windows: Window, tries: int = 20) -> int:
    decisions = [await limiter.decide("api", key, windows) for _ in range(tries)]
    return sum(decision.admitted for decision in decisions)


@pytest.mark.parametrize(("text", "read"), TABLES["read"].items())
def test_a_limit_is_read_and_written_back(text: str, read: list[int]) -> None:
    window = Window.parse("x", text)
    assert [window.quota, window.seconds] == read
    assert Window.parse("x", str(window)) == window


@pytest.mark.parametrize("text", TABLES["malformed"])
def test_a_malformed_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' is not"):
        Schedule.parse("x", text)


async def test_windows_are_aligned_to_the_clock(limiter: Limiter, clock: Clock) -> None:
    clock.now = 7200 + 59.9
    assert await admitted(limiter, "a", MINUTE) == 3
    clock.now = 7200 + 60.0
    assert await admitted(limiter, "a", MINUTE) == 3


async def test_a_request_refused_by_one_window_counts_in_none(
    limiter: Limiter, clock: Clock
) -> None:
    assert await admitted(limiter, "a", MINUTE, HOUR) == 3
    clock.now += 60
    assert await admitted(limiter, "a", MINUTE, HOUR) == 2
    clock.now += 60
    assert await admitted(limiter, "a", MINUTE, HOUR) == 0


async def test_when_memory_is_full_new_clients_share_buckets(limiter: Limiter) -> None:
    for number in range(10):
        await limiter.decide("api", f"known-{number}", [MINUTE])
    newcomers = [await limiter.decide("api", f"new-{n}", [MINUTE]) for n in range(20_000)]
    assert 0 < sum(decision.admitted for decision in newcomers) <= 3 * 1024
    assert await admitted(limiter, "known-0", MINUTE) == 2


def test_a_window_that_is_over_is_forgotten_at_once() -> None:
    counts = LocalCounts()
    for number in range(1000):
        counts.add(60, 0, f"{number}")
    counts.add(60, 60, "next")
    assert len(counts) == 1
    counts.add(60, 0, "late")
    assert len(counts) == 1


PEAK = "30 per minute; 100 per minute mon-fri 08:00-18:00; 5 per minute sat-sun 22:00-06:00"


@pytest.mark.parametrize(("at", "quota"), TABLES["week"].items())
def test_each_hour_of_the_week_has_its_limit(at: str, quota: int) -> None:
    assert Schedule.parse("chat", PEAK).at(datetime.fromisoformat(at)).quota == quota


async def test_what_is_given_back_without_redis_is_free_again(limiter: Limiter) -> None:
    charges = [await limiter.charge("b", "b", HOUR, f"{network}") for network in range(8)]
    assert [charge.admitted for charge in charges] == [True] * 5 + [False] * 3
    await limiter.refund(charges[2])
    assert not (await limiter.charge("b", "b", HOUR, "0")).admitted, "its network has its part"
    again = [await limiter.charge("b", "b", HOUR, f"{network}") for network in (2, 5)]
    assert [charge.admitted for charge in again] == [True, False]


async def test_a_window_that_is_over_gets_nothing_back(limiter: Limiter, clock: Clock) -> None:
    charge = await limiter.charge("b", "b", HOUR, "n")
    clock.now += 3600
    assert (await limiter.charge("b", "b", HOUR, "n")).admitted
    await limiter.refund(charge)
    assert not (await limiter.charge("b", "b", HOUR, "n")).admitted


PROXIES = parse_networks("10.0.0.0/8, 127.0.0.1/32, 2001:db8:ffff::/48")


CLIENTS = Path(__file__).with_name("clients.txt").read_text().splitlines()[2:]


@pytest.mark.parametrize("row", CLIENTS)
def test_the_client_is_the_rightmost_untrusted_address(row: str) -> None:
    peer, said, expected = re.split(r" {2,}", row)
    forwarded = [] if said == "-" else said.split(" | ")
    proxies = TrustedProxies(PROXIES)
    address, source = proxies.client_ip(None if peer == "-" else peer, forwarded)
    assert address == expected
    alone, _ = TrustedProxies(()).client_ip(None if peer == "-" else peer, [])
    assert (source == "peer") == (address == alone)


def test_an_empty_address_is_none() -> None:
    assert TrustedProxies(PROXIES).client_ip("10.0.0.1", [""])[0] == "10.0.0.1"
    assert TrustedProxies(PROXIES).client_ip("", [])[0] == "unknown"


@pytest.mark.parametrize("text", ["10.0.0.0/33", "localhost", "10.0.0.1/8"])
def test_a_malformed_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_networks(text)


# One connection and its answers, cut and malformed as no real server would send them.

REPLIES = b"*3\r\n:1\r\n$5\r\nhello\r\n$-1\r\n+OK\r\n:-7\r\n"


class Transport(asyncio.Transport):
    aborted = False

    def write(self, data: Any) -> None:
        """Send it nowhere."""

    def abort(self) -> None:
        self.aborted = True


def connected() -> tuple[_Connection, Transport]:
    connection, transport = _Connection(), Transport()
    connection.connection_made(transport)
    return connection, transport


@pytest.mark.parametrize("size", range(1, len(REPLIES)))
async def test_answers_cut_anywhere_reach_their_callers_in_order(size: int) -> None:
    connection, _ = connected()
    heard: list[object] = []
    calls = [connection.call(heard.append, "GET", "x") for _ in range(3)]
    connection.data_received(REPLIES[:size])
    assert sum(call.done() for call in calls) == len(heard) < 3
    connection.data_received(REPLIES[size:])
    assert heard == [[1, b"hello", None], b"OK", -7]
    assert all(call.done() for call in calls)
    connection.fail(RedisUnavailable("over"))


async def test_an_error_reply_is_an_absence_for_all_who_wait() -> None:
    connection, transport = connected()
    calls = [connection.call(lambda _: None, "GET", "x") for _ in range(2)]
    connection.data_received(b"-LOADING Redis is loading the dataset in memory\r\n")
    assert [type(call.exception()) for call in calls] == [RedisUnavailable, RedisUnavailable]
    assert transport.aborted


@pytest.mark.parametrize(
    "answer", [b"!garbage\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*x\r\n"]
)
async def test_a_malformed_reply_counts_as_unavailable(answer: bytes) -> None:
    connection, transport = connected()
    call = connection.call(lambda _: None, "GET", "x")
    connection.data_received(answer)
    assert isinstance(call.exception(), RedisUnavailable)
    assert transport.aborted
