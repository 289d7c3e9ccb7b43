"""What the system is for, from outside; it may be in use, so that tests know their own by name."""

import asyncio
import uuid

import pytest

from tests.fullstack.conftest import Running
from tests.support.eventually import eventually
from tests.support.system import LEAD, fresh_address

pytestmark = [pytest.mark.fullstack, pytest.mark.promise("P1", "P4")]


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
    await system.in_slack(address)

    await eventually(
        lambda: system.sandbox.received("monday"), 30, so=lambda found: address in str(found)
    )
    assert sum(address in text for text in await system.slack_texts()) == 1


async def test_an_alert_is_delivered_and_its_way_can_be_read(system: Running) -> None:
    text = f"alert {uuid.uuid4()}"
    alert_id = await system.alert(text)
    await system.until(alert_id, "delivered")
    await system.in_slack(text)
    (delivery,) = (await system.state(alert_id))["deliveries"]
    assert [attempt["outcome"] for attempt in delivery["history"]] == ["delivered"]


async def test_an_opted_in_person_gets_the_mail_and_after_one_click_no_further_one(
    system: Running,
) -> None:
    person, other = fresh_address(), fresh_address()
    await system.opt_in(person)
    await system.follow_up(person)
    path = await system.link(person, "/unsubscribe")
    assert (await system.http("GET", path)).status == 200

    assert not (await system.consents(person))["unsubscribed"]  # a look at the page changes nothing
    clicked = await system.http("POST", path, form={"List-Unsubscribe": "One-Click"})
    assert clicked.status == 200
    assert (await system.consents(person))["unsubscribed"] is True

    # Both are due at the same time; the one that may leave shows that the other had its chance.
    await system.opt_in(other)
    due = [(await system.follow_up(address))["items"] for address in (person, other)]
    await system.link(other, "/unsubscribe")

    async def ended() -> bool:
        listed = await system.http("GET", f"/api/followups?email={person}", key="service")
        states = {item["id"]: item["status"] for item in listed.body["items"]}
        return all(states[item["id"]] != "scheduled" for item in due[0])

    assert due[1]
    await eventually(ended, 40)
    assert len(await system.links(person, "/unsubscribe")) == 1


async def test_the_ledger_balances_and_nothing_is_stranded(system: Running) -> None:
    await eventually(system.ledger, 60, so=lambda found: found["ok"])
