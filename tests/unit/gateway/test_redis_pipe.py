import pytest

from services.gateway.redis_pipe import RedisAway, _decode, _encode, _Incomplete

REPLIES = b"*3\r\n:1\r\n$5\r\nhello\r\n$-1\r\n+OK\r\n:-7\r\n"


def decode_all(data: bytes) -> list[object]:
    values, at, buffer = [], 0, bytearray(data)
    while at < len(buffer):
        value, at = _decode(buffer, at)
        values.append(value)
    return values


def test_replies_are_read_in_their_order() -> None:
    assert decode_all(REPLIES) == [[1, b"hello", None], b"OK", -7]


@pytest.mark.parametrize("size", range(len(b"*3\r\n:1\r\n$5\r\nhello\r\n$-1\r\n")))
def test_a_reply_cut_anywhere_waits_for_its_rest(size: int) -> None:
    with pytest.raises(_Incomplete):
        _decode(bytearray(REPLIES[:size]), 0)


def test_an_error_reply_is_an_absence() -> None:
    (answer,) = decode_all(b"-LOADING Redis is loading the dataset in memory\r\n")
    assert isinstance(answer, RedisAway)


def test_arguments_are_counted_in_bytes() -> None:
    assert (
        _encode(["GET", "łąka", 7]) == b"*3\r\n$3\r\nGET\r\n$6\r\n\xc5\x82\xc4\x85ka\r\n$1\r\n7\r\n"
    )
