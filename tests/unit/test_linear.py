"""P17: what reads a stranger's bytes is linear in them, and takes 20 ms at most for a request.

A new parser joins by a line in `PARSERS`. The routes have tests/integration/system/test_linear.py.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, get_args
from urllib.parse import parse_qs, quote

import altcha
import pytest
from aiohttp import web
from aiohttp._cookie_helpers import parse_cookie_header
from aiohttp.test_utils import make_mocked_request
from pydantic import BaseModel

from libs.common.http import plain_form
from libs.common.http.application import MOST_BYTES, Problem, check_json, media_type, validate
from libs.domain import email_address, forms, mentions, phone_number
from libs.domain.acts import without_addresses
from libs.domain.signed_links import InvalidToken, Tokens
from services.alerts.channels.redact import Redactor
from services.alerts.channels.responses import retry_after
from services.alerts.config.texts import without_diacritics
from services.alerts.rules.subjects import Subjects
from services.consent.rules import preferred_language
from services.console.pages.door import next_page
from services.followups.dialogue.state import State
from services.followups.http.chat import MESSAGE_LENGTH, ChatMessage
from services.followups.http.leads import Wanted
from services.followups.leads import submissions
from services.followups.reading import starts
from services.followups.rules import facts
from services.followups.rules.facts import Question
from services.gateway import slack
from services.gateway.door.clients import TrustedProxies, network_of, parse_networks
from services.gateway.intake import idempotency, sessions
from services.gateway.intake.forms.submission import (
    LeadRequest,
    of_plain_form,
    posted,
    without_query,
)
from services.gateway.intake.messages import AlertRequest
from tests.support import effort
from tests.support.dialogues import answer
from tests.support.pumped import FORMS, JSON, MULTIPARTS, NAMED, SAID, TEXTS, a_part, in_bytes
from tests.support.shipped import EXAMPLE

pytestmark = pytest.mark.promise("P17")

BODY = 64 * 1024
LINE = 8190
"""aiohttp's own limit, of the request line and of headers without a bound."""
TODAY = date(2026, 11, 30)
KEYS = f"k:{base64.b64encode(bytes(32)).decode()}"
FORM = forms.load(EXAMPLE / "forms.toml")["contact"]
PROXIES = TrustedProxies(parse_networks("10.0.0.0/8"))
PROXY_LIST = ",".join(f"10.0.{number >> 8}.{number & 255}" for number in range(1000))
MULTIPART = f"{plain_form.MULTIPART}; boundary=x"
CHAT = {"message": "x", "session_id": "s"}
LEAD = {"form": "contact", "language": "pl", "fields": {}}
HEADER_TEXTS = {name: make for name, make in TEXTS.items() if make(100).isprintable()}


def each(model: type[BaseModel], given: Mapping[str, Any]) -> Callable[[str], object]:
    """Return a parser of the model's JSON with a text in one field after the other."""

    def parse(text: str) -> None:
        for field in model.model_fields:
            with suppress(Problem):
                body = json.dumps({**given, field: text}, ensure_ascii=False)
                validate(body.encode(), model)

    return parse


def header(name: str, read: Callable[[web.Request], object]) -> Callable[[str], object]:
    """Return a reader of a request with this header."""
    return lambda text: read(make_mocked_request("POST", "/", {name: text}))


def chat(asking: Question | None) -> Callable[[str], object]:
    """Return a reader of a message, after this question."""
    return lambda text: answer(State(asking=asking), text)


def lead(text: str) -> None:
    FORM.read({field.name: text for field in FORM.fields}, None)
    FORM.read({f"field_{number}": text for number in range(40)}, "0")


def lead_facts(text: str) -> None:
    names = ("name", "wish", "area", "budget", "start")
    submissions._facts(dict.fromkeys(names, text[: forms.SHORT]), TODAY)
    submissions._facts({"wish": text[: forms.LONG]}, TODAY)


def link(text: str) -> None:
    for token in (text, f"k.{text}", f"k.{text}.{text}", f"{text}.{text}"):
        with suppress(InvalidToken):
            Tokens(KEYS).verify(token, "unsubscribe", datetime.now(UTC))


def query(text: str) -> object:
    return make_mocked_request("GET", f"/x?{quote(text, safe='&=;%/?+')}").query.get("token")


def slack_signature(body: bytes) -> None:
    sent = {"X-Slack-Request-Timestamp": "1", "X-Slack-Signature": "v0="}
    slack.payload_of("secret", make_mocked_request("POST", "/", sent).headers, body, 1)


def most(name: str) -> int:
    return MOST_BYTES[name.lower().encode()]


Parser = tuple[Callable[[Any], object], Mapping[str, Callable[[int], Any]], int]
PARSERS: dict[str, Parser] = {  # with its inputs, and the most bytes that reach it
    "JSON": (check_json, in_bytes(JSON), BODY),
    "JSON of an alert": (each(AlertRequest, {"event_type": "x", "payload": {}}), TEXTS, BODY),
    "JSON of a chat": (each(ChatMessage, CHAT), TEXTS, BODY),
    "JSON of a lead": (each(LeadRequest, LEAD), TEXTS, BODY),
    "a chat's session": (sessions.issued, in_bytes(JSON), BODY),
    "a key's holder": (partial(sessions.holder_of, key="k"), in_bytes(JSON), BODY),
    "multipart": (partial(posted, content_type=MULTIPART), in_bytes(MULTIPARTS | TEXTS), BODY),
    "multipart of a page": (
        partial(plain_form.fields, content_type=MULTIPART), in_bytes(MULTIPARTS), BODY),
    "a part's value": (
        lambda text: posted(f"{a_part(NAMED, text)}--x--".encode(), MULTIPART), TEXTS, BODY),
    "urlencoded": (
        partial(posted, content_type=plain_form.URLENCODED), in_bytes(FORMS | TEXTS), BODY),
    "urlencoded of a page": (
        partial(plain_form.fields, content_type=plain_form.URLENCODED), in_bytes(FORMS), BODY),
    "a boundary": (partial(plain_form.fields, b"--x--"), TEXTS, most("Content-Type")),
    "the media type": (header("Content-Type", lambda request: media_type(request.headers)),
                       HEADER_TEXTS, most("Content-Type")),
    "a plain form": (
        lambda text: of_plain_form({"name": text, text: "", "key": text}, "pl", "2026-11-30"),
        TEXTS, BODY // 3),
    "a lead's fields": (lead, TEXTS, BODY),
    "a lead's facts": (lead_facts, TEXTS, BODY),
    "a page's URL": (
        lambda text: [without_query(start + text) for start in ("", "https://", "https://a@")],
        TEXTS, most("Referer")),
    "an e-mail address": (email_address.normalise, TEXTS, BODY),
    "a phone number": (phone_number.normalise, TEXTS, BODY),
    "a name": (lambda text: facts.person_name(text[:200]), TEXTS, BODY),
    "addresses in a text": (mentions.emails, TEXTS, BODY),
    "numbers in a text": (mentions.phones, TEXTS, BODY),
    "a mention in an alert": (
        lambda text: Subjects(KEYS).strike({text: ""}, []), TEXTS, BODY // 4),
    "what an alert names": (
        lambda text: Subjects(KEYS).named_by({"payload": [text]}), TEXTS, BODY // 2),
    **{f"a chat, asked for {asking}": (chat(asking), TEXTS | SAID, MESSAGE_LENGTH)
       for asking in (None, *get_args(Question))},
    "a start, without the bound of a message": (
        lambda text: starts.find(text, TODAY, "start"), TEXTS | SAID, MESSAGE_LENGTH),
    "the leads' list": (
        lambda text: [Wanted.model_validate({name: text}) for name in Wanted.model_fields],
        TEXTS, LINE),
    "a page after the login": (next_page, TEXTS, BODY),
    "Accept-Language": (preferred_language, TEXTS, most("Accept-Language")),
    "X-Forwarded-For": (
        lambda text: PROXIES.client_ip("10.0.0.1", [text] * 8),
        TEXTS | {"proxies": lambda size: PROXY_LIST[:size]}, most("X-Forwarded-For")),
    "an IP address": (network_of, TEXTS, LINE),
    "Cookie": (parse_cookie_header, TEXTS, most("Cookie")),
    "If-None-Match": (header("If-None-Match", lambda request: list(request.if_none_match or ())),
                      HEADER_TEXTS, most("If-None-Match")),
    "Idempotency-Key": (
        header("Idempotency-Key", idempotency.key_of), HEADER_TEXTS, most("Idempotency-Key")),
    "X-Proof": (
        lambda text: altcha.Payload.from_base64(base64.b64encode(text.encode()).decode()),
        TEXTS | JSON, most("X-Proof") * 3 // 4),
    "a link's token": (link, TEXTS, LINE),
    "a query": (query, TEXTS, LINE // 3),
    "Slack's signature": (slack_signature, in_bytes(FORMS), BODY),
    "Slack's form": (
        lambda body: parse_qs(body.decode(), max_num_fields=10), in_bytes(FORMS), BODY),
    "a record's text": (without_addresses, TEXTS, BODY),
    "an SMS": (without_diacritics, TEXTS, BODY),
    "a target's answer": (Redactor(["https://secret-of-slack"]), TEXTS, BODY),
    "Retry-After": (retry_after, TEXTS, LINE),
}  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_is_linear_and_takes_no_time_worth_mentioning(name: str) -> None:
    parse, inputs, size = PARSERS[name]
    costs = [(kind, effort.of(make, parse)) for kind, make in inputs.items()]
    assert effort.faults(costs, size) == []


@pytest.mark.control("P17")
def test_the_measure_tells_a_quadratic_parser_from_a_linear_one() -> None:
    quadratic = re.compile(";*x").search
    for parse, is_linear in ((quadratic, False), (str.split, True)):
        fault = effort.fault(effort.of(lambda size: ";" * size, parse), 20_000)
        assert (fault is None) is is_linear
