"""No part of a secret is shown, in any spelling."""

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import pytest

from libs.common import beside
from services.alerts.channels.redact import EXCERPT, Redactor

SAID = beside.toml(__file__)
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
def test_a_secret_is_redacted_in_every_spelling(shown: str) -> None:
    said = Redactor((MARKER,))(f"before {shown} after")
    assert said.startswith("before ")
    assert said.endswith(" after")
    assert "***" in said
    assert not re.search("m4rk|s3cret|[0-9a-f]{8}", said)


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "\0user\0", "a longer text "])
def test_a_secret_inside_base64_is_redacted_at_any_offset(before: str) -> None:
    around = f"{before}{MARKER} and on".encode()
    for shown in (b64encode(around), urlsafe_b64encode(around), quote_plus(b64encode(around))):
        text = shown if isinstance(shown, str) else shown.decode()
        assert Redactor((MARKER,))(text).rstrip("=") == "***"


@pytest.mark.parametrize("shown", SAID["url"])
def test_the_secret_part_of_a_url_is_redacted(shown: str) -> None:
    said = Redactor((URL,))(f"{shown} was not found")
    assert "s3cret" not in said
    assert said.endswith("was not found")


@pytest.mark.parametrize("shown", SAID["plain_words"])
def test_a_secret_of_plain_words_is_redacted(shown: str) -> None:
    assert not re.search(
        "corr|rect|horse", Redactor(("correcthorse", "horse"))(shown), re.IGNORECASE
    )


@pytest.mark.parametrize("secret", ["json://u:p4ss@any.example/x", "tgram://123456:p4ss-token/9"])
def test_the_secret_of_an_apprise_url_is_redacted(secret: str) -> None:
    token = secret.partition("//")[2].partition("/")[0].partition("@")[0]
    assert "p4ss" not in Redactor((secret,))(f"refused {token.split(':')[1]} and {token}")


@pytest.mark.parametrize("said", SAID["kept"])
def test_words_that_explain_the_cause_are_kept(said: str) -> None:
    assert Redactor((MARKER, URL))(said) == said


def test_an_excerpt_is_short_without_addresses_and_control_characters() -> None:
    text = "bad\x00 for ala@example.com " + "x" * 10_000
    shown = Redactor(())(text)
    assert "ala@" not in shown
    assert "\x00" not in shown
    assert shown == "*** for *** ***"
    assert len(Redactor(())("word " * 1000)) <= EXCERPT


@pytest.mark.parametrize("before", range(0, 130, 7))
def test_a_secret_cut_by_the_bound_is_redacted(before: int) -> None:
    secret = "s3cret" * 20
    shown = Redactor((secret,))("x" * before + secret * 40)
    assert "s3c" not in shown
