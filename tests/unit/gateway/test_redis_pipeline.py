"""One connection and its answers, cut and malformed as no real server would send them."""

import asyncio
from typing import Any

import pytest

from libs.common.database.redis_pipeline import RedisUnavailable, _Connection

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
