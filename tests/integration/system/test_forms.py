"""A form travels from a page to staff (P11), over real servers."""

import hashlib
from typing import Any

import pytest

from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.forms import SITE, agreed, alerts, arrived, new_key, stored, submit, suspected
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.promise("P11")

RICH = {"area": "80", "budget": "250 000", "start": "jak najszybciej", "message": "Remont kuchni"}


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


async def trail(stack: Stack, email: str) -> list[Any]:
    return [each for each in (await stack.audit(email))["entries"] if each["action"] == "opt-in"]


async def consented(stack: Stack, email: str) -> Any:
    (entry,) = await eventually(lambda: trail(stack, email), 30)
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
    (lead,) = (await stack.http("GET", f"/api/leads?email={email}", key="service")).body["items"]
    shown = await stack.http("GET", f"/api/leads/{lead['id']}", key="service")
    mail = shown.body["marketing"]["email"]
    assert (mail["state"] in {"granted", "waiting"}, mail["wording"]) == (True, "contact/2026-11")
    steps = "SELECT * FROM followups.followup_event WHERE email = %s"
    await until(lambda: stack.query(steps, email), 20)


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
