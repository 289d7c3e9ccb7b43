"""What the system is for, from outside; it may be in use, so that tests know their own by name."""

import asyncio
import uuid
from functools import partial

import pytest

from tests.fullstack.conftest import Running
from tests.support.eventually import eventually
from tests.support.system import LEAD, fresh_address

pytestmark = [pytest.mark.fullstack, pytest.mark.promise("P1", "P4", "P6")]


async def _arrived(system: Running, texts: list[str]) -> bool:
    got = " ".join(await system.slack_texts())
    return all(text in got for text in texts)


async def _delivered(system: Running, alert_id: str) -> bool:
    return bool((await system.state(alert_id)).get("state") == "delivered")


async def test_a_chat_with_all_a_lead_needs_is_a_qualified_lead_in_slack_once(
    system: Running,
) -> None:
    address, session = fresh_address(), str(uuid.uuid4())
    body = {**LEAD, "session_id": session, "email": address}
    answers = await asyncio.gather(
        *(system.http("POST", "/api/chatbot/chat", body) for _ in range(3))
    )
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body["conversation_id"] for answer in answers}) == 1
    await eventually(lambda: _arrived(system, [address]), 30)

    async def in_monday() -> bool:
        return address in str(await system.sandbox.received("monday"))

    await eventually(in_monday, 30)
    assert sum(address in text for text in await system.slack_texts()) == 1


async def test_an_alert_is_delivered_and_its_way_can_be_read(system: Running) -> None:
    text = f"alert {uuid.uuid4()}"
    alert_id = await system.alert(text)
    await eventually(lambda: _delivered(system, alert_id), 30)
    assert await _arrived(system, [text])
    (delivery,) = (await system.state(alert_id))["deliveries"]
    assert [attempt["outcome"] for attempt in delivery["history"]] == ["delivered"]


async def test_an_unhealthy_slack_opens_only_its_breaker_and_then_gets_every_alert(
    system: Running,
) -> None:
    await system.sandbox.behave("slack", status=500)
    texts = [f"breaker {uuid.uuid4()}" for _ in range(12)]
    ids = [await system.alert(text) for text in texts]

    async def opened() -> bool:
        health = (await system.http("GET", "/api/health/deep", key="admin")).body
        return bool(health["circuit_breakers"]["slack"]["state"] == "open")

    await eventually(opened, 30)
    other = await system.alert("while slack is sick", event_type="webhook")
    await eventually(lambda: _delivered(system, other), 30)
    check = await system.ledger()
    assert check["pending"] >= len(texts)

    await system.sandbox.behave("slack", status=200)
    # What a person does who knows that it is well again; else the breaker tries after its minute.
    reset = await system.http("POST", "/api/breakers/slack/reset", key="admin")
    assert reset.status == 200
    await eventually(lambda: _arrived(system, texts), 90)
    for alert_id in ids:
        await eventually(partial(_delivered, system, alert_id), 30)


async def test_an_opted_in_person_gets_the_mail_and_after_one_click_no_further_one(
    system: Running,
) -> None:
    person, other = fresh_address(), fresh_address()
    await system.opt_in(person)
    await system.follow_up(person)
    (path,) = await eventually(lambda: system.links(person, "/unsubscribe"), 40)
    assert (await system.http("GET", path)).status == 200

    status = f"/api/unsubscribe/status/{person}"
    looked = await system.http("GET", status, key="service")
    assert looked.body["unsubscribed"] is False  # looking at the page changed nothing
    clicked = await system.http("POST", path, form={"List-Unsubscribe": "One-Click"})
    assert clicked.status == 200
    assert (await system.http("GET", status, key="service")).body["unsubscribed"] is True

    # Both are due at the same time; the one that may leave shows that the other had its chance.
    await system.opt_in(other)
    due = [(await system.follow_up(address))["items"] for address in (person, other)]
    await eventually(lambda: system.links(other, "/unsubscribe"), 40)

    async def ended() -> bool:
        listed = await system.http("GET", f"/api/followups?email={person}", key="service")
        states = {item["id"]: item["status"] for item in listed.body["items"]}
        return all(states[item["id"]] != "scheduled" for item in due[0])

    assert due[1]
    await eventually(ended, 40)
    assert len(await system.links(person, "/unsubscribe")) == 1


async def test_an_erased_person_is_gone_and_the_trail_still_holds(system: Running) -> None:
    address = fresh_address()
    await system.opt_in(address)
    erased = await system.http("POST", "/api/consent/erase", {"email": address}, key="admin")
    assert erased.status == 200
    audit = await system.http("GET", f"/api/consent/audit/{address}", key="admin")
    assert audit.body["entries"] == []
    verified = await system.http("GET", "/api/consent/audit/verify", key="admin")
    assert verified.body["ok"] is True


async def test_the_ledger_balances_and_nothing_is_stranded(system: Running) -> None:
    async def ok() -> bool:
        return bool((await system.ledger())["ok"])

    await eventually(ok, 60)
