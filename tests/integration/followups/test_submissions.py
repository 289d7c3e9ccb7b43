"""What is sent with a form, in the tables of followups: one transaction, whatever meets it."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.domain.acts import Act
from services.followups import chat, retention
from services.followups.leads.submissions import NotHeld
from services.followups.messages import LeadSubmit, SubmittedConsent
from services.followups.store import conversations, tables
from services.followups.store.conversations import Subject
from services.followups.store.submissions import Erased
from tests.integration.followups.conftest import CONTACT, World

pytestmark = [pytest.mark.quick, pytest.mark.promise("P11")]

AGREED = SubmittedConsent(
    purpose="marketing", version="2026-11", language="pl", text="Zgadzam się na oferty."
)
SENT = tables.lead_submission
EMAIL = "anna@example.com"
ACT = Act.of({}, "submission.release", "submission", "1")
RICH = {"area": "80", "budget": "250 000 zł", "start": "jak najszybciej", "wish": "Remont"}


def given(email: str = EMAIL, *, facts: Any = (), **more: Any) -> LeadSubmit:
    known = {"email": email, **dict(facts)}
    told = {
        "id": uuid.uuid4(),
        "form": "contact",
        "form_version": "1",
        "language": "pl",
        "fields": known,
        "facts": known,
        "accepted_at": datetime.now(UTC),
    }
    return LeadSubmit.model_validate(told | more)


async def events(world: World) -> list[str]:
    rows = await world.rows(tables.outbox_table, "id")
    return [row["type"] for row in rows if row["type"].startswith("lead.")]


async def test_a_second_copy_changes_nothing(world: World) -> None:
    sent = given(consents=(AGREED,))
    await asyncio.gather(*(world.forms.take(sent) for _ in range(5)))
    assert len(await world.rows(SENT)) == 1
    assert await events(world) == ["lead.submitted"]
    assert len(await world.outbox("grant.record")) == 1


async def test_only_the_first_reach_of_the_threshold_is_qualified(world: World) -> None:
    await world.forms.take(given(facts=RICH))
    await world.forms.take(given(facts=RICH))
    await world.forms.take(given("ola@example.com"))
    assert await events(world) == ["lead.qualified", "lead.submitted", "lead.submitted"]


async def test_of_a_form_that_tells_of_hot_leads_only_the_others_are_listed(world: World) -> None:
    cool = replace(
        world.forms, forms={"contact": CONTACT.model_copy(update={"alert": "qualified"})}
    )
    await cool.take(given(facts={"wish": "Kuchnia"}))
    await world.tell_staff(after=3600)
    assert await events(world) == []
    assert (await world.lead()) is not None
    await cool.take(given("ola@example.com", facts=RICH))
    assert await events(world) == ["lead.qualified"]


async def test_a_form_that_is_no_longer_configured_is_a_lead_all_the_same(world: World) -> None:
    await replace(world.forms, forms={}).take(given(form="gone", fields={"colour": "red"}))
    (body,) = await world.outbox("lead.submitted")
    assert (body["form"], body["said"]) == ("gone", ["colour: red"])


async def test_mails_start_only_for_a_lead_that_agreed(world: World) -> None:
    await world.forms.take(given(facts=RICH))
    assert await world.steps() == []
    await world.forms.take(given("ola@example.com", consents=(AGREED,)))
    assert {row["email"] for row in await world.steps()} == {"ola@example.com"}


async def test_a_grant_counts_from_when_the_gateway_took_it(world: World) -> None:
    at = datetime.now(UTC) - timedelta(hours=2)
    sent = given(consents=(AGREED,), accepted_at=at, agreed_at=at - timedelta(days=2))
    await world.forms.take(sent)
    (body,) = await world.outbox("grant.record")
    assert datetime.fromisoformat(body["at"]) == at
    assert body["place"] == "form"
    assert datetime.fromisoformat(body["evidence"]["agreed_at"]) == at - timedelta(days=2)


async def test_a_form_does_not_undo_what_the_chat_knows(world: World) -> None:
    await world.say("Chcę remont łazienki, 8 m2", "s" * 22)
    await world.forms.take(given(facts={"budget": "40 000"}, session_id="s" * 22))
    lead = await world.lead()
    assert (lead["known"]["area"], lead["known"]["budget"]) == (8, 40_000)
    assert await world.conversations() == 1


async def test_another_address_in_a_session_takes_its_mails_along(world: World) -> None:
    first = given("old@example.com", session_id="s" * 22, consents=(AGREED,))
    await world.forms.take(first)
    await world.forms.take(given("new@example.com", session_id="s" * 22, consents=(AGREED,)))
    (withdrawn,) = await world.outbox("withdrawal.record")
    assert withdrawn["email"] == "old@example.com"
    waiting = [row["email"] for row in await world.steps() if row["status"] == "scheduled"]
    assert set(waiting) == {"new@example.com"}


async def test_a_suspected_form_is_kept_apart_until_a_person_decides(world: World) -> None:
    sent = given(consents=(AGREED,), suspicion="trap")
    await world.forms.take(sent)
    await world.forms.take(sent)
    assert await events(world) == []
    assert await world.outbox("grant.record") == []
    released = await asyncio.gather(
        *(world.forms.decide(sent.id, "released", "ola", ACT) for _ in range(3)),
        return_exceptions=True,
    )
    assert sorted(map(repr, released)) == ["None", "NotHeld()", "NotHeld()"]
    assert await events(world) == ["lead.submitted"]
    assert len(await world.outbox("grant.record")) == 1
    (row,) = await world.rows(SENT)
    assert (row["state"], row["taken_by"], row["held"]) == ("released", "ola", None)
    with pytest.raises(NotHeld):
        await world.forms.decide(sent.id, "discarded", "ola", ACT)


async def test_what_was_kept_apart_is_deleted_in_time_and_nothing_else(world: World) -> None:
    old = datetime.now(UTC) - timedelta(days=15)
    await world.forms.take(given(accepted_at=old, suspicion="trap"))
    await world.forms.take(given("ola@example.com", suspicion="fast"))
    await world.forms.take(given("ela@example.com", accepted_at=old))
    assert await retention.forget_suspected(world.engine, 14) == 1
    assert {row["email"] for row in await world.rows(SENT)} == {
        "ola@example.com",
        "ela@example.com",
    }


async def erase(world: World, subject: Subject) -> None:
    async with world.engine.begin() as tx:
        await world.forms.erased.lock(tx, subject.contacts)
        await world.forms.erased.mark(tx, subject.contacts)
        found = await conversations.trace(tx, subject)
        await conversations.erase(tx, subject, found.conversations, chat.named_in)


@pytest.mark.parametrize("suspicion", [None, "trap"])
@pytest.mark.parametrize("subject", [Subject(EMAIL), Subject(None, "+48601234567")])
async def test_an_erasure_leaves_no_form(
    world: World, subject: Subject, suspicion: str | None
) -> None:
    sent = given(facts={"phone": "+48601234567"}, suspicion=suspicion)
    await world.forms.take(sent)
    async with world.engine.begin() as tx:
        held = await conversations.held(tx, subject, "submissions", 0, 10)
    assert [row["id"] for row in held] == [sent.id]
    await erase(world, subject)
    assert await world.rows(SENT) == []
    assert await world.conversations() == 0


async def test_what_was_accepted_before_an_erasure_and_comes_after_it_is_not_stored(
    world: World,
) -> None:
    late, new = given(), given()
    held = given(suspicion="trap")
    await erase(world, Subject(EMAIL))
    await world.forms.take(late)
    await world.forms.take(held)
    assert await world.rows(SENT) == []
    assert await events(world) == []
    await world.forms.take(new.model_copy(update={"accepted_at": datetime.now(UTC)}))
    assert len(await world.rows(SENT)) == 1, "someone who writes again is a lead again"


async def test_a_form_in_flight_waits_for_an_erasure_and_is_not_stored(world: World) -> None:
    sent = given()
    async with world.engine.begin() as tx:
        await world.forms.erased.lock(tx, [f"email:{EMAIL}"])
        taking = asyncio.create_task(world.forms.take(sent))
        await world.someone_waits()
        await world.forms.erased.mark(tx, [f"email:{EMAIL}"])
        await conversations.erase(tx, Subject(EMAIL), [], chat.named_in)
    await taking
    assert await world.rows(SENT) == []


async def test_a_mark_is_recognised_after_the_keys_were_rotated(world: World) -> None:
    sent = given()
    await erase(world, Subject(EMAIL))
    await replace(world.forms, erased=Erased([b"n" * 32, b"k" * 32])).take(sent)
    assert await world.rows(SENT) == []
