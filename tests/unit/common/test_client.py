import pytest

from libs.common.http.client import build_request


def test_a_request_announces_its_body_and_nothing_without_one() -> None:
    line, fixed = "POST /x HTTP/1.1", "Host: a\r\n"
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nX: \xc4\x85\r\n"
    headers = {"X": "ą"}

    assert build_request(line, fixed, headers, b"ok") == head + b"Content-Length: 2\r\n\r\nok"
    assert build_request(line, fixed, headers, b"") == head + b"Content-Length: 0\r\n\r\n"
    assert build_request(line, fixed, headers, None) == head + b"\r\n"


@pytest.mark.parametrize("broken", ["a\r\nX-Forged: 1", "a\nX-Forged: 1", "a\rb", "\r", "\n"])
def test_no_line_break_gets_into_a_head(broken: str) -> None:
    line, fixed = "POST /x HTTP/1.1", "Host: a\r\n"
    for place in (
        (f"POST /{broken} HTTP/1.1", fixed, {"X": "a"}),
        (line, fixed, {"X": broken, "Y": "b"}),
        (line, fixed, {"X": "a", f"Y{broken}": "b"}),
    ):
        with pytest.raises(ValueError, match="line break"):
            build_request(*place, b"")
