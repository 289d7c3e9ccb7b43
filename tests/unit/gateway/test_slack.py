"""Slack's signature: only what Slack has signed, and lately, is passed on."""

import hashlib
import hmac
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from libs.common.http.application import Problem
from services.gateway.slack import payload_of

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
NOW = 1531420618
BODY = b"payload=%7B%22type%22%3A%22block_actions%22%7D"


def signed(body: bytes = BODY, at: str = str(NOW), secret: str = SECRET) -> dict[str, str]:
    message = b"v0:" + at.encode() + b":" + body
    digest = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={digest}"}


def payload(headers: dict[str, str], body: bytes = BODY, now: float = NOW) -> bytes:
    return payload_of(SECRET, CIMultiDictProxy(CIMultiDict(headers)), body, now)


def status(*given: Any, **more: Any) -> int:
    with pytest.raises(Problem) as caught:
        payload(*given, **more)
    return caught.value.status


def test_the_example_of_slack_s_documentation_is_signed() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&"
        b"channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&"
        b"command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
        b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015."
        b"47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    given = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    assert status(given, body) == 400  # signed, but no interaction
    assert status(given, body + b"0") == 401


@pytest.mark.parametrize("age", [-300, 0, 300])
def test_a_signed_form_gives_its_payload(age: int) -> None:
    assert payload(signed(), now=NOW + age) == b'{"type":"block_actions"}'


def test_while_the_secret_changes_both_sign() -> None:
    headers = CIMultiDictProxy(CIMultiDict(signed()))
    for secret in (f"new {SECRET}", f"{SECRET} old"):
        assert payload_of(secret, headers, BODY, NOW) == b'{"type":"block_actions"}'
    with pytest.raises(Problem):
        payload_of("new old", headers, BODY, NOW)


@pytest.mark.parametrize("age", [-301, 301, 10**9])
def test_an_old_or_future_request_is_refused(age: int) -> None:
    assert status(signed(), now=NOW + age) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Slack-Signature": signed()["X-Slack-Signature"]},
        {"X-Slack-Request-Timestamp": str(NOW)},
        signed(secret="another"),
        signed(b"payload=%7B%7D"),
        signed() | {"X-Slack-Request-Timestamp": str(NOW + 1)},
        signed() | {"X-Slack-Signature": signed()["X-Slack-Signature"].removeprefix("v0=")},
        signed() | {"X-Slack-Signature": "v0=\udcff"},
        signed(at=f"{NOW}.0"),
        signed(at=f" {NOW}"),
        signed(at="١٥٣١٤٢٠٦١٨"),
        signed(at="9" * 5000),
    ],
)
def test_what_is_not_signed_is_refused(headers: dict[str, str]) -> None:
    assert status(headers) == 401


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"payload=", b"\xff", b"payload=1&payload=2", b"&".join([b"a=1"] * 20)]
)
def test_a_signed_body_without_a_payload_is_refused(body: bytes) -> None:
    assert status(signed(body), body) == 400
