"""Taking a lead tells followups, in the answer's transaction (docs/protocols.md, D, step 13)."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.rules.case import Verb
from tests.integration.alerts.cases import Cases, answer, with_policy


@pytest.fixture
def subject(engine: AsyncEngine) -> Cases:
    return Cases(engine)


async def events(subject: Cases) -> list[tuple[str, str, dict[str, Any]]]:
    found = await subject.rows(
        "SELECT exchange, routing_key, body FROM outbox WHERE type LIKE 'case.%' ORDER BY id"
    )
    return [tuple(row) for row in found]


async def leads(subject: Cases) -> list[UUID]:
    return [UUID(body["lead_id"]) for _, _, body in await events(subject)]


async def test_a_take_puts_one_event_without_the_leads_data_into_the_outbox(subject: Cases) -> None:
    case_id = await subject.accept()
    assert await events(subject) == []
    taking = answer()
    for given in (taking, taking, answer(), answer(Verb.WON)):
        await subject.answer(case_id, given)
    [(exchange, key, body)] = await events(subject)
    assert (exchange, key) == ("alerts.events", "case.answered")
    assert body.keys() == {"case_id", "lead_id", "at", "by"}
    assert body["case_id"] == body["lead_id"] == str(case_id)


@pytest.mark.parametrize("verb", [Verb.DONE, Verb.LOST, Verb.NOT_A_LEAD])
async def test_an_answer_that_closes_at_once_is_a_take(subject: Cases, verb: Verb) -> None:
    case_id = await subject.accept()
    await subject.answer(case_id, answer(verb))
    assert await leads(subject) == [case_id]


async def test_each_change_of_owner_is_an_event_in_the_order_of_their_times(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    await subject.answer(case_id, answer(Verb.RELEASE))
    await subject.take(case_id, "ewa")
    found = await events(subject)
    assert [key for _, key, _ in found] == ["case.answered", "case.released", "case.answered"]
    taken, released, again = [body for _, _, body in found]
    assert taken["by"] == released["by"] != again["by"]
    assert taken["at"] < released["at"] < again["at"]


async def test_an_update_of_a_lead_names_the_lead(engine: AsyncEngine) -> None:
    subject = Cases(engine)
    lead = uuid4()
    await subject.take(await subject.accept(payload={"lead_id": str(lead)}))
    assert await leads(subject) == [lead]


async def test_an_alert_of_others_is_no_lead(subject: Cases) -> None:
    await subject.take(await subject.accept(source="gateway"))
    assert await events(subject) == []


async def test_the_policy_may_leave_follow_ups_alone(engine: AsyncEngine) -> None:
    subject = Cases(engine, with_policy(stops_followups=False))
    await subject.take(await subject.accept())
    assert await events(subject) == []
