"""The rows and outbox messages that a chat creates."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from services.followups.store import conversations, steps, tables
from tests.integration.followups.conftest import CONFIG, GOOD_LEAD, World


async def test_many_tabs_of_one_session_make_one_conversation_and_one_lead(world: World) -> None:
    answers = await asyncio.gather(*(world.say(f"{GOOD_LEAD}, jan@example.com") for _ in range(20)))
    assert len({answer.conversation_id for answer in answers}) == 1
    assert len(await world.outbox("lead.qualified")) == 1
    assert (await world.conversations(), len(await world.said())) == (1, 40)


async def test_a_turn_makes_few_statements(world: World) -> None:
    """Each costs about 0.12 ms of CPU in this service; BEGIN and COMMIT are not counted."""
    made: list[str] = []
    sa.event.listen(
        world.engine.sync_engine, "before_cursor_execute", lambda *given: made.append(given[2])
    )
    counts = {}
    for said in (
        "Dzień dobry, chcę wyremontować kuchnię 12 m2",
        "budżet ok. 60 tys. zł, od marca",
        "Anna, anna@example.com, 600 700 800",
        "tak, zgadzam się",
        "dziękuję, miłego dnia",
    ):
        made.clear()
        await world.say(said)
        counts[said.partition(" ")[0]] = len(made)
    assert counts == {"Dzień": 2, "budżet": 2, "Anna,": 3, "tak,": 5, "dziękuję,": 4}


async def test_facts_said_in_different_tabs_all_survive(world: World) -> None:
    parts = ["80 m2", "250 tys. zł", "jan@example.com", "600 700 800", "od marca", "remont"]
    await asyncio.gather(*(world.say(part) for part in parts))
    [talk] = await world.rows(tables.chat_conversations)
    facts = {"area", "budget", "currency", "email", "phone", "start", "wish"}
    assert {*talk["state"]["facts"]} == facts


async def test_consent_is_recorded_once_with_the_wording_that_was_shown(world: World) -> None:
    asked = await world.say("remont 80 m2, 250 tys., od marca, jan@example.com")
    wording = CONFIG.texts["pl"]["consent_wording"]
    assert wording in asked.reply
    assert await world.outbox("grant.record") == []
    await world.say("Tak, zgadzam się")
    await world.say("tak")
    [grant] = await world.outbox("grant.record")
    assert grant["wording"] == wording
    assert grant["email"] == "jan@example.com"
    assert grant["ip_address"] == "203.0.113.7"


async def test_a_checkbox_that_a_page_repeats_is_one_consent(world: World) -> None:
    for message in ("dzień dobry", "jan@example.com", "remont kuchni"):
        await world.say(message, agreed="Zgadzam się na newsletter")
    [grant] = await world.outbox("grant.record")
    assert grant["wording"] == "Zgadzam się na newsletter"
    assert grant["email"] == "jan@example.com"


async def test_a_consent_with_an_address_enrols_a_lead_that_did_not_qualify(world: World) -> None:
    await world.say("dzień dobry", agreed="Zgadzam się", email="jan@example.com")
    assert await world.statuses("jan@example.com") == ["scheduled", "scheduled"]


async def test_the_delay_restarts_while_a_lead_is_talking(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    first = (await world.steps())[0]["due_at"]
    await world.say("a ile to potrwa?")
    rows = await world.steps()
    assert rows[0]["due_at"] > first
    assert {row["status"] for row in rows} == {"scheduled"}


async def test_a_reply_after_a_sent_step_cancels_the_rest(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    first, _ = await world.steps()
    await world.pretend_sent(str(first["id"]))
    await world.say("dziękuję, proszę o telefon")
    assert await world.statuses() == ["sent", "cancelled"]
    assert (await world.steps())[1]["reason"] == "reply"


async def test_a_reply_of_a_lead_enrolled_by_staff_cancels_the_sequence(world: World) -> None:
    await world.say("dzień dobry, jan@example.com")
    await world.enrol("jan@example.com", seconds=3600)
    await world.say("już nieaktualne")
    assert await world.statuses() == ["cancelled", "cancelled"]


async def test_a_turn_sees_steps_enrolled_while_it_waited_for_the_address_lock(
    world: World,
) -> None:
    await world.say("dzień dobry, jan@example.com")
    async with world.engine.begin() as tx:
        await steps.lock_address(tx, "jan@example.com")
        turn = asyncio.create_task(world.say("już nieaktualne"))
        await world.someone_waits()
        there = await conversations.conversation_of_address(tx, "jan@example.com")
        due = [datetime.now(UTC) + timedelta(hours=1)]
        await steps.enrol(tx, there, "jan@example.com", "default", due, "api", None)
    await turn
    assert await world.statuses() == ["cancelled"]


async def test_naming_someone_else_s_address_does_not_end_its_sequence(world: World) -> None:
    await world.enrol("jan@example.com", seconds=3600)
    before = await world.steps()
    await world.say("dzień dobry, jan@example.com, nadal nas to interesuje", "another session")
    await world.say("80 m2", "another session")
    assert await world.steps() == before


async def test_an_old_sequence_does_not_end_a_new_one(world: World) -> None:
    [old] = await world.enrol("jan@example.com", steps=1)
    await world.pretend_sent(str(old["id"]))
    await world.say(f"{GOOD_LEAD}, jan@example.com", "today")
    await world.say("a ile to potrwa?", "today")
    assert await world.statuses() == ["sent", "scheduled", "scheduled"]


async def test_a_refusal_ends_the_steps_of_an_earlier_grant_and_goes_to_consent(
    world: World,
) -> None:
    await world.enrol("jan@example.com", seconds=3600)
    asked = await world.say(f"{GOOD_LEAD}, jan@example.com", "another session")
    assert CONFIG.texts["pl"]["consent_wording"] in asked.reply
    refused = await world.say("nie", "another session")
    assert CONFIG.texts["pl"]["consent_refused"] in refused.reply
    [withdrawal] = await world.outbox("withdrawal.record")
    assert withdrawal["email"] == "jan@example.com"
    assert withdrawal["ip_address"] == "203.0.113.7"
    assert set(await world.statuses("jan@example.com")) == {"cancelled"}


async def test_a_withdrawal_in_any_turn_ends_what_was_agreed_before(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    await world.say("tak")
    assert await world.statuses() == ["scheduled", "scheduled"]
    await world.say("proszę nie pisać")
    assert await world.statuses() == ["cancelled", "cancelled"]
    assert len(await world.outbox("grant.record")) == 1
    assert len(await world.outbox("withdrawal.record")) == 1
    await world.say(f"{GOOD_LEAD}, jan@example.com", agreed="Zgadzam się")
    assert len(await world.outbox("grant.record")) == 1, "a repeated checkbox undoes nothing"
    assert await world.statuses() == ["cancelled", "cancelled"]


async def test_a_withdrawal_before_the_address_applies_to_it(world: World) -> None:
    where = await world.say("proszę do mnie nie pisać")
    assert CONFIG.texts["pl"]["withdraw_where"] in where.reply
    assert await world.outbox("withdrawal.record") == []
    await world.enrol("jan@example.com", seconds=3600)
    done = await world.say("jan@example.com")
    assert CONFIG.texts["pl"]["consent_refused"] in done.reply
    [withdrawal] = await world.outbox("withdrawal.record")
    assert withdrawal["email"] == "jan@example.com"
    assert set(await world.statuses()) == {"cancelled"}


async def test_a_refusal_withdraws_for_each_contact_that_was_given_by_then(world: World) -> None:
    async def withdrawn() -> list[str]:
        return sorted(each["email"] for each in await world.outbox("withdrawal.record"))

    await world.say(f"{GOOD_LEAD}, jan@example.com, 600 700 800")
    await world.say("nie chcę żadnych wiadomości")
    both = ["+48600700800", "jan@example.com"]
    assert await withdrawn() == both
    await world.say("proszę zadzwonić pod 602 345 678")
    assert await withdrawn() == both, "a later number is given to be called"
    await world.say("proszę do mnie nie pisać", "nothing but that")
    await world.say("601 234 567", "nothing but that")
    assert await withdrawn() == ["+48600700800", "+48601234567", "jan@example.com"]


async def test_every_withdrawal_is_sent_since_a_form_may_grant_in_between(world: World) -> None:
    await world.say("jan@example.com")
    await world.say("STOP")
    await world.say("STOP")
    assert len(await world.outbox("withdrawal.record")) == 2


async def test_a_corrected_address_gets_the_steps_and_voids_the_grant(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, ana@example.pl")
    await world.say("tak")
    answer = await world.say("literówka: anna@example.pl")
    [withdrawal] = await world.outbox("withdrawal.record")
    assert withdrawal["email"] == "ana@example.pl"
    assert await world.statuses("ana@example.pl") == []
    assert await world.statuses("anna@example.pl") == ["scheduled", "scheduled"]
    assert CONFIG.texts["pl"]["consent_wording"] in answer.reply, "nobody agreed for this mailbox"
    await world.say("tak")
    assert [each["email"] for each in await world.outbox("grant.record")] == [
        "ana@example.pl",
        "anna@example.pl",
    ]


async def test_a_retracted_address_gets_no_more_mail(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, ana@example.pl")
    answer = await world.say("oj, pomyłka w mailu")
    assert "Jaki jest dobry adres" in answer.reply
    assert set(await world.statuses()) == {"cancelled"}
    await world.say("anna@example.pl")
    assert set(await world.statuses("ana@example.pl")) == {"cancelled"}


async def test_a_page_that_repeats_its_fields_does_not_undo_a_correction(world: World) -> None:
    fields = {"phone": "+48601234567", "name": "Jan Kot", "email": "ana@example.pl"}
    await world.say(GOOD_LEAD, **fields)
    await world.say("literówka: anna@example.pl", **fields)
    await world.say("mój numer to jednak 602 345 678, nazywam się Jan Kos", **fields)
    await world.say("od kwietnia", **fields)
    lead = await world.lead()
    assert (lead["known"]["phone"], lead["known"]["name"]) == ("+48602345678", "Jan Kos")
    assert {row["email"] for row in await world.steps()} == {"anna@example.pl"}


async def test_a_refusal_holds_for_another_address_until_a_new_yes(world: World) -> None:
    box = {"agreed": "Zgadzam się"}
    await world.say(f"{GOOD_LEAD}, a@example.com", **box)
    await world.say("nie chcę żadnych maili", **box)
    await world.say("mój nowy adres to b@example.com", **box)
    assert [grant["email"] for grant in await world.outbox("grant.record")] == ["a@example.com"]
    await world.say("od kwietnia")
    await world.say("zmieniam zdanie", **box)  # the box was ticked anew
    emails = [grant["email"] for grant in await world.outbox("grant.record")]
    assert emails == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize(
    "said", ["to jest mail mamy: ola@example.com", "mam 11 lat, ola@example.com"]
)
async def test_no_consent_is_asked_for_a_mailbox_of_another_person(world: World, said: str) -> None:
    answer = await world.say(f"{GOOD_LEAD}. {said}")
    assert CONFIG.texts["pl"]["consent_wording"] not in answer.reply
    await world.say("tak, zgadzam się")
    await world.say("tak", agreed="Zgadzam się")
    assert await world.outbox("grant.record") == []
    assert await world.steps() == []
