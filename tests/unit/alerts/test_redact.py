"""What may be told of a secret: nothing, however it is spelled."""

import html
import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import pytest

from services.alerts.channels.redact import EXCERPT, Redactor

MARKER = 'm4rk/er+s3cret?"x=ł&y'
URL = "https://hooks.example/services/T0123456789/B0123/m4rkers3cretm4rker?key=an%2Fothers3cret"


@pytest.mark.parametrize(
    "shown",
    [
        MARKER,
        quote(MARKER),
        quote(MARKER, safe=""),
        quote(MARKER, safe="").lower(),
        quote_plus(MARKER),
        json.dumps(MARKER),
        json.dumps(MARKER, ensure_ascii=False),
        json.dumps(MARKER).replace("/", "\\/"),
        json.dumps(json.dumps(MARKER)),
        quote(quote(MARKER, safe=""), safe=""),
        quote(json.dumps(MARKER), safe=""),
        html.escape(MARKER),
        html.escape(MARKER).replace("/", "&#x2F;").replace("&quot;", "&#34;"),
        repr((1, f"'{MARKER}'")),
        repr(MARKER),
        repr(MARKER.encode()),
        MARKER.encode().hex(),
    ],
)
def test_a_secret_is_struck_out_in_every_spelling(shown: str) -> None:
    said = Redactor((MARKER,))(f"before {shown} after")
    assert said.startswith("before ")
    assert said.endswith(" after")
    assert said.removeprefix("before ").removesuffix(" after").strip("(1, '\"\\b=)") in {
        "***",
        "%22***%22",
        "&quot;***&quot;",
    }


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "\0user\0", "a longer text "])
def test_a_secret_inside_base64_is_struck_out_wherever_it_begins(before: str) -> None:
    around = f"{before}{MARKER} and on".encode()
    for shown in (b64encode(around), urlsafe_b64encode(around), quote_plus(b64encode(around))):
        text = shown if isinstance(shown, str) else shown.decode()
        said = Redactor((MARKER,))(text)
        left = [part for part in said.split("***") if part]
        assert len(left) <= 2, said
        # Of the secret at most one byte at each end, which shares a character with its neighbour.
        size = len(before.encode()) + len(" and on") + 2
        assert sum(map(len, left)) <= -(-size // 3) * 4 + 4, said


@pytest.mark.parametrize(
    "shown",
    [
        URL,
        URL.removeprefix("https://hooks.example"),
        "POST /services/T0123456789/B0123/m4rkers3cretm4rker HTTP/1.1",
        "no team m4rkers3cretm4rker",
        "key an/others3cret",
        "key an%2Fothers3cret",
        "url('https://hooks.example/services/T0123456789/B0123/m4rkers3cretm4rker')",
    ],
)
def test_of_a_url_also_what_makes_it_a_secret_is_struck_out(shown: str) -> None:
    said = Redactor((URL,))(f"{shown} in services of hooks.example")
    assert "s3cret" not in said
    assert said.endswith("in services of hooks.example")


@pytest.mark.parametrize("secret", ["json://u:p4ss@any.example/x", "tgram://123456:p4ss-token/9"])
def test_an_apprise_urls_password_or_token_is_struck_out(secret: str) -> None:
    token = secret.partition("//")[2].partition("/")[0].partition("@")[0]
    assert "p4ss" not in Redactor((secret,))(f"refused {token.split(':')[1]} and {token}")


def test_a_signing_key_is_struck_out_without_its_prefix_too() -> None:
    assert Redactor(("whsec_c2VjcmV0LXNlY3JldA==",))("c2VjcmV0LXNlY3JldA==") == "***"


def test_an_excerpt_shows_no_address_no_control_character_and_is_short() -> None:
    text = "bad\x00 for ala@example.com " + "x" * 10_000
    shown = Redactor(())(text)
    assert "ala@" not in shown
    assert "\x00" not in shown
    assert len(shown) == EXCERPT


@pytest.mark.parametrize("before", range(0, 130, 7))
def test_a_secret_that_the_bound_cuts_in_half_is_not_shown_by_half(before: int) -> None:
    secret = "s3cret" * 20
    shown = Redactor((secret,))("x" * before + secret * 40)
    assert "s3c" not in shown
