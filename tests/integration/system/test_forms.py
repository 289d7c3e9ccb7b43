"""A form travels from a page to staff (L1 to L4), over real servers."""

import asyncio
import hashlib
import html
import re
import uuid
from typing import Any

import aiohttp
import pytest

from tests.support.eventually import eventually
from tests.support.forms import (
    CONTACT,
    SITE,
    agreed,
    alerts,
    arrived,
    new_key,
    stored,
    submit,
    suspected,
)
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.promise("L1")

RICH = {"area": "80", "budget": "250 000", "start": "jak najszybciej", "message": "Remont kuchni"}


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


async def trail(stack: Stack, email: str) -> list[Any]:
    found = await stack.http("GET", f"/api/consent/audit/{email}", key="admin")
    return [entry for entry in found.body["entries"] if entry["action"] == "opt-in"]


async def consented(stack: Stack, email: str) -> Any:
    async def recorded() -> Any:
        return await trail(stack, email)

    (entry,) = await eventually(recorded, 30)
    return entry


async def test_a_form_that_reaches_the_threshold_is_one_hot_lead(stack: Stack) -> None:
    email, key = fresh_address(), new_key()
    answers = [
        await submit(stack, {"email": email, "phone": "601 234 567"} | RICH, key=key)
        for _ in range(3)
    ]
    assert {answer.status for answer in answers} == {202}
    assert [answer.body for answer in answers] == [answers[0].body] * 3
    assert answers[0].body["consents_not_recorded"] == []
    (text,) = await arrived(stack, email)
    assert "250" in text
    (row,) = stored(stack, email)
    assert (str(row.id), row.state, row.form_version) == (answers[0].body["id"], "accepted", "1")
    assert {each.event_type for each in alerts(stack, answers[0].body["id"])} == {"lead.qualified"}
    items = (await stack.http("GET", f"/api/leads?email={email}", key="service")).body["items"]
    assert [(lead["area"], lead["budget"], lead["start"]) for lead in items] == [
        (80, 250_000, "asap")
    ]


async def test_the_same_person_who_sends_another_form_is_the_same_lead(stack: Stack) -> None:
    email = fresh_address()
    first = await submit(stack, {"email": email, "message": "Kuchnia"})
    await arrived(stack, email)
    assert {each.event_type for each in alerts(stack, first.body["id"])} == {"lead.submitted"}
    second = await submit(stack, {"email": email, "message": "I łazienka"})
    await arrived(stack, email, times=2)
    assert first.body["id"] != second.body["id"]
    assert len(stored(stack, email)) == 2
    items = (await stack.http("GET", f"/api/leads?email={email}", key="service")).body["items"]
    assert len(items) == 1


async def test_a_form_joins_the_chat_of_its_session(stack: Stack) -> None:
    session, email = uuid.uuid4().hex, fresh_address()
    said = {"message": "Chcę remont łazienki, 8 m2", "session_id": session, "language": "pl"}
    await stack.http("POST", "/api/chatbot/chat", said)
    await submit(stack, {"email": email, "budget": "40 000"}, session_id=session)
    await arrived(stack, email)
    (row,) = stack.query(
        "SELECT * FROM followups.chat_conversations WHERE session_id = %s", session
    )
    facts = row.state["facts"]
    assert (facts["area"], facts["budget"], facts["email"]) == (8, 40_000, email)


@pytest.mark.parametrize("language", ["pl", "en"])
async def test_the_trail_holds_the_hash_of_what_was_shown(stack: Stack, language: str) -> None:
    email = fresh_address()
    shown = (await stack.http("GET", f"/api/forms/contact?language={language}")).body
    (consent,) = shown["consents"]
    rendered = hashlib.sha256(consent["text"].encode()).hexdigest()
    answer = await submit(
        stack, {"email": email}, language=language, consents={"marketing": rendered}
    )
    assert answer.body["consents_not_recorded"] == []
    entry = await consented(stack, email)
    assert entry["evidence"]["wording_sha256"] == rendered
    assert entry["evidence"]["wording_version"] == "contact/2026-11"
    assert entry["evidence"]["language"] == language
    assert entry["evidence"]["submission"] == answer.body["id"]
    assert await eventually(lambda: steps_of(stack, email), 20)


async def steps_of(stack: Stack, email: str) -> list[Any]:
    return stack.query("SELECT * FROM followups.followup_event WHERE email = %s", email)


async def test_the_hosted_page_says_what_the_trail_holds(stack: Stack) -> None:
    email = fresh_address()
    page = (await stack.http("GET", "/forms/contact?language=pl")).body
    posted = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    (label,) = re.findall(r'<label for="consent.marketing">([^<]*)</label>', page)
    (value,) = re.findall(r'name="consent.marketing" value="(\w+)"', page)
    assert hashlib.sha256(html.unescape(label).encode()).hexdigest() == value
    assert " checked" not in page
    given = {**posted, "email": email, "name": "", "consent.marketing": value}
    headers = {"Origin": stack.url}
    answers = await asyncio.gather(
        *(stack.http("POST", "/api/leads", form=given, headers=headers) for _ in range(2))
    )
    assert {answer.status for answer in answers} == {303}
    assert {answer.headers["Location"] for answer in answers} == {CONTACT.success["pl"]}
    await arrived(stack, email)
    assert len(stored(stack, email)) == 1
    assert (await consented(stack, email))["evidence"]["wording_sha256"] == value


async def test_a_fault_of_a_plain_form_is_a_page_that_keeps_what_was_written(stack: Stack) -> None:
    given = {
        "form": "contact",
        "language": "en",
        "email": "anna",
        "name": '"><script>alert(1)</script>',
        "message": "A kitchen",
        "consent.marketing": (await agreed(stack, "en"))["marketing"],
    }
    answer = await stack.http("POST", "/api/leads", form=given, headers={"Origin": SITE})
    assert answer.status == 422
    assert answer.headers["Content-Type"].startswith("text/html")
    assert 'value="anna"' in answer.body
    assert "A kitchen" in answer.body
    assert "does not look like an e-mail address" in answer.body
    assert " checked" in answer.body
    assert "<script" not in answer.body
    assert 'name="key"' not in answer.body, "another key would make its repetition another lead"
    assert (
        "form-action 'self' https://www.ostoja-wnetrza.example"
        in (answer.headers["Content-Security-Policy"])
    )


async def test_a_hand_made_form_sent_twice_is_one_lead(stack: Stack) -> None:
    email = fresh_address()
    given = {"form": "contact", "language": "pl", "email": email, "message": "Remont"}
    with_file = aiohttp.FormData(given)
    for data in (given, given, aiohttp.FormData(given, default_to_multipart=True)):
        answer = await stack.http("POST", "/api/leads", form=data, headers={"Origin": SITE})
        assert answer.status == 303
    await arrived(stack, email)
    assert len(stored(stack, email)) == 1
    with_file.add_field("file", b"%PDF", filename="plan.pdf")
    refused = await stack.http("POST", "/api/leads", form=with_file, headers={"Origin": SITE})
    assert refused.status == 422
    assert refused.headers["Content-Type"].startswith("text/html")


async def test_other_pages_are_refused(stack: Stack) -> None:
    email = fresh_address()
    for origin in ("https://evil.example", "null", SITE.replace("https", "http"), SITE + ":8443"):
        refused = await submit(stack, {"email": email}, headers={"Origin": origin})
        assert refused.status == 403, origin
    sent = {"form": "contact", "language": "pl", "fields": {"email": email}}
    bare = await stack.http("POST", "/api/leads", sent, headers={"Idempotency-Key": new_key()})
    assert bare.status == 403
    assert stored(stack, email) == []


async def test_a_browser_may_ask_from_pages_with_a_form_and_from_no_others(stack: Stack) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    allowed = await stack.http("OPTIONS", "/api/leads", headers={"Origin": SITE, **asked})
    assert allowed.status == 204
    assert allowed.headers["Access-Control-Allow-Origin"] == SITE
    assert "Idempotency-Key" in allowed.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in allowed.headers
    other = {"Origin": "https://evil.example", **asked}
    refused = await stack.http("OPTIONS", "/api/leads", headers=other)
    assert "Access-Control-Allow-Origin" not in refused.headers


async def test_a_key_of_another_body_is_refused_and_a_fault_names_its_field(stack: Stack) -> None:
    key, email = new_key(), fresh_address()
    assert (await submit(stack, {"email": email}, key=key)).status == 202
    other = await submit(stack, {"email": email, "name": "Anna"}, key=key)
    assert other.status == 422
    short = await submit(stack, {"email": email}, key="short")
    assert short.status == 422
    fault = await submit(stack, {"email": "anna", "colour": "red"}, language="en")
    assert {each["field"] for each in fault.body["errors"]} == {"fields.email", "fields.colour"}
    unknown = await submit(stack, {"email": email}, form="other")
    assert unknown.status == 404
    purpose = await submit(stack, {"email": email}, consents={"newsletter": "0" * 64})
    assert purpose.status == 422
    await arrived(stack, email)


async def test_an_unknown_wording_costs_no_lead(stack: Stack) -> None:
    email = fresh_address()
    answer = await submit(stack, {"email": email}, consents={"marketing": "0" * 64})
    assert (answer.status, answer.body["consents_not_recorded"]) == (202, ["marketing"])
    await arrived(stack, email)
    (row,) = stored(stack, email)
    assert row.consents_not_recorded == ["marketing"]
    assert await trail(stack, email) == []


async def test_a_program_sends_without_an_origin_and_says_where_the_person_agreed(
    stack: Stack,
) -> None:
    email, consents = fresh_address(), await agreed(stack)
    body = {
        "form": "contact",
        "language": "pl",
        "fields": {"email": email},
        "consents": consents,
        "agreed_at": "2026-11-20T10:00:00+01:00",
    }
    headers = {"Idempotency-Key": new_key()}
    missing = await stack.http("POST", "/api/leads", body, key="service", headers=headers)
    assert missing.body["errors"][0]["field"] == "source"
    body["source"] = "fair in Poznań"
    taken = await stack.http("POST", "/api/leads", body, key="service", headers=headers)
    assert taken.status == 202
    entry = await consented(stack, email)
    assert entry["evidence"]["source"] == "fair in Poznań"
    assert entry["evidence"]["agreed_at"] == "2026-11-20T10:00:00+01:00"
    assert entry["ip_address"] is None


async def test_a_form_sent_faster_than_anyone_writes_is_kept_apart(stack: Stack) -> None:
    form = (await stack.http("GET", "/api/forms/timed")).body
    for issued, suspicion in (
        (form["issued"], "fast"),
        (form["issued"][:-2] + "xx", "issued"),
        (None, "issued"),
    ):
        email = fresh_address()
        await submit(stack, {"email": email}, form="timed", issued=issued)
        assert (await suspected(stack, email))["suspicion"] == suspicion
