"""A contact is a person, a lead is one request (docs/decisions/0059-requests.md)."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from libs.common.messaging.broker import Message
from services.followups import messages
from services.followups.rules.fact_texts import wishes
from services.followups.store import acts, tables
from services.followups.store.conversations import Subject
from services.followups.store.sql import run
from tests.integration.followups.conftest import CONFIG, World
from tests.integration.followups.test_submissions import given

pytestmark = [pytest.mark.quick, pytest.mark.promise("P11", "P16")]

ANNA, PHONE = "anna@example.com", "600 700 800"
KITCHEN = f"Chcę remont kuchni 12 m2, 60 tys. zł, {ANNA}, {PHONE}"
BATHROOM = "Remont łazienki 6 m2, 40 tys. zł"
BATHROOM_FORM = {"wish": "Remont łazienki", "area": "6", "budget": "40 000 zł"}
MONTH = 31 * 24
Way = Callable[[World, str], Awaitable[Any]]


async def by_chat(world: World, contact: str = ANNA) -> None:
    await world.say(f"{BATHROOM}, {contact}", "autumn")


async def by_form(world: World, contact: str = ANNA) -> None:
    await world.forms.take(given(contact, facts=BATHROOM_FORM))


either_way = pytest.mark.parametrize("way", [by_chat, by_form])


async def change(world: World, *, hours: int = 0, **values: Any) -> None:
    """Change the leads, and let time pass."""
    past = {name: f"{name} - interval '{hours} hours'" for name in ("created_at", "updated_at")}
    changed = past | {name: f":{name}" for name in values}
    changes = ", ".join(f"{name} = {value}" for name, value in changed.items())
    await world.sql(f"UPDATE lead SET {changes}", **values)


async def win(world: World, *, hours: int = 0) -> None:
    await change(world, hours=hours, state="won", state_by="Jan Kos")


async def told(world: World) -> list[dict[str, Any]]:
    """Return what staff were told, in the order of the leads' versions."""
    await world.tell_staff(after=3600)
    rows = await world.rows(tables.outbox_table, "id")
    return [row["body"] for row in rows if row["type"].startswith("lead.")]


def is_kitchen(known: Any) -> bool:
    return "kuchni" in known["wish"] and (known["area"], known["budget"]) == (12, 60_000)


def is_bathroom(known: Any) -> bool:
    words = known["wish"]
    whole = (known["area"], known["budget"]) == (6, 40_000)
    return "łazienki" in words and "kuchni" not in words and whole


@either_way
async def test_an_open_lead_gets_another_wish_and_nothing_is_overwritten(
    world: World, way: Way
) -> None:
    await world.say(KITCHEN)
    await change(world, hours=29 * 24, state="taken", state_by="Jan Kos")
    await way(world, ANNA)
    [lead] = await world.leads()
    [also] = lead["known"]["also"]
    assert is_kitchen(lead["known"])
    assert is_bathroom(also)
    first, second = await told(world)
    assert second["is_update"]
    assert second["lead_id"] == first["lead_id"]
    for words in ("kuchni", "także", "łazienki", "6 m²", "40\N{NO-BREAK SPACE}000"):
        assert words in second["summary"]
    assert second["work"] == first["work"]


async def test_what_does_not_differ_is_added_and_a_wish_grows_with_its_conversation(
    world: World,
) -> None:
    await world.say(f"remont kuchni, {PHONE}")
    await world.say(f"budżet 60 tys. zł, {PHONE}", "friday")
    [lead] = await world.leads()
    assert lead["known"]["budget"] == 60_000
    assert wishes(lead["known"], "pl") == []
    await world.say("a do tego remont łazienki", "friday")
    await world.say("6 m2", "friday")
    [lead] = await world.leads()
    [also] = lead["known"]["also"]
    assert (lead["known"]["budget"], lead["known"].get("area")) == (60_000, None)
    assert (also["area"], "łazienki" in also["wish"]) == (6, True)


@either_way
async def test_an_open_lead_of_long_ago_is_followed_by_a_new_one(world: World, way: Way) -> None:
    await world.say(KITCHEN)
    await change(world, hours=MONTH)
    await way(world, ANNA)
    old, new = await world.leads()
    assert is_kitchen(old["known"])
    assert is_bathroom(new["known"])
    assert new["previous"] == {"id": str(old["id"]), "state": "new", "owner": None}
    _, event = await told(world)
    assert not event["is_update"]
    assert event["lead_id"] == str(new["id"])


@either_way
@pytest.mark.parametrize("state", ["won", "lost", "not_a_lead"])
async def test_a_closed_lead_is_followed_by_a_new_one_that_names_its_owner(
    world: World, way: Way, state: str
) -> None:
    await world.say(KITCHEN)
    by = f"staff:{uuid.uuid4()} Jan Kos"
    await change(world, state=state, state_by=by)
    await way(world, ANNA)
    old, new = await world.leads()
    assert (old["state"], new["state"]) == (state, "new")
    assert is_kitchen(old["known"])
    assert is_bathroom(new["known"])
    previous = {"id": str(old["id"]), "state": state, "owner": "Jan Kos"}
    assert new["previous"] == previous
    first, event = await told(world)
    assert first["previous"] is None
    assert (event["previous"], event["is_update"]) == (previous, False)


async def test_the_owner_is_who_had_it_and_not_who_closed_it(world: World) -> None:
    office, jan = f"staff:{uuid.uuid4()} Ola Office", f"staff:{uuid.uuid4()} Jan Kos"
    for number, (changes, owner) in enumerate(
        [
            ([("taken", jan), ("won", office)], "Jan Kos"),
            ([("taken", jan), ("won", "key:1 website")], "Jan Kos"),
            ([("taken", jan), ("new", jan), ("lost", "key:1 website")], None),
            ([("taken", "key:1 website"), ("won", "key:1 website")], None),
            ([("won", office)], "Ola Office"),
            ([("won", "Ola")], "Ola"),
            ([("won", "service")], None),
        ]
    ):
        await world.say(f"remont kuchni, {number}@example.com", f"spring {number}")
        lead = (await world.leads())[-1]
        for state, by in changes:
            await world.set_state(lead["id"], state, by)
        await world.say(f"remont łazienki, {number}@example.com", f"autumn {number}")
        assert (await world.leads())[-1]["previous"]["owner"] == owner


async def test_who_took_its_case_and_gave_it_back(world: World) -> None:
    await world.say(KITCHEN)
    [lead] = await world.leads()
    async with world.engine.begin() as tx:
        await acts.follow(tx, lead["id"], "taken", "Jan Kos", datetime.now(UTC))
    assert (await world.leads())[0]["owner"] == "Jan Kos"
    async with world.engine.begin() as tx:
        await acts.follow(tx, lead["id"], "new", "Jan Kos", datetime.now(UTC))
    assert (await world.leads())[0]["owner"] is None


async def test_two_requests_of_one_conversation_have_each_its_forms(world: World) -> None:
    session, forms = "s" * 22, world.forms
    sent = [given(ANNA, facts={"wish": f"Remont {n}"}, session_id=session) for n in range(3)]
    await forms.take(sent[0])
    await world.sql("UPDATE lead_submission SET lead_id = NULL")  # of the release before
    await forms.take(sent[1])
    await win(world, hours=1)
    await forms.take(sent[2])
    for lead, known in zip(await world.leads(), (sent[:2], sent[2:]), strict=True):
        first, *ids = (await world.shown(lead["id"]))["alert_ids"]
        assert first == str(lead["id"])
        assert set(ids) == {str(each.id) for each in known}


async def test_a_cool_form_of_a_returning_customer_is_told_all_the_same(world: World) -> None:
    await world.say(KITCHEN)
    await win(world)
    submissions = world.forms
    form = submissions.forms["contact"].model_copy(update={"alert": "qualified"})
    submissions.forms["contact"] = form  # type: ignore[index]
    await submissions.take(given(ANNA))
    assert [each["is_update"] for each in await told(world)] == [False, False]


async def test_the_old_conversation_holds_one_request_after_the_other(world: World) -> None:
    conversation = (await world.say(KITCHEN)).conversation_id
    for number, (text, area) in enumerate([(BATHROOM, 6), ("Jeszcze salon, 30 m2", 30)], 1):
        await win(world, hours=1)
        await world.say(text)
        new = (await world.leads())[number]
        assert new["id"] == messages.lead_id(conversation, number=number)
        assert new["known"]["area"] == area
        assert new["known"]["email"] == ANNA
        assert "kuchni" not in new["known"]["wish"]
    assert is_kitchen((await world.leads())[0]["known"])
    assert await world.conversations() == 1


async def test_a_form_in_the_old_conversation_is_a_request_of_its_own(world: World) -> None:
    session = "s" * 22
    await world.say(KITCHEN, session)
    bathroom = given(ANNA, facts=BATHROOM_FORM, session_id=session)
    await world.forms.take(bathroom)
    await world.say("A kiedy ktoś zadzwoni?", session)
    [lead] = await world.leads()
    assert is_kitchen(lead["known"])
    [also] = lead["known"]["also"]
    assert is_bathroom(also)
    await win(world, hours=1)
    await world.forms.take(given(ANNA, facts=BATHROOM_FORM, session_id=session))
    _, new = await world.leads()
    assert is_bathroom(new["known"])


@either_way
async def test_after_a_month_the_old_conversation_begins_without_the_old_works(
    world: World, way: Way
) -> None:
    session = "autumn"
    await world.say(KITCHEN, session)
    await change(world, hours=MONTH)
    if way is by_chat:
        await by_chat(world)
    else:
        await world.forms.take(given(ANNA, facts=BATHROOM_FORM, session_id=session))
    old, new = await world.leads()
    assert is_kitchen(old["known"])
    assert is_bathroom(new["known"])


async def test_a_complaint_after_a_won_lead_stays_one(world: World) -> None:
    await world.say(KITCHEN)
    await win(world)
    await world.say("Reklamacja: odpada płytka")
    await world.say("Kabina prysznicowa przecieka przy drzwiach")
    kitchen, complaint = await world.leads()
    assert (kitchen["state"], complaint["topic"]) == ("won", "complaint")
    assert "przecieka" in complaint["said"][-1]


async def test_who_buys_elsewhere_after_a_won_lead_has_not_lost_that_one(world: World) -> None:
    await world.say(KITCHEN)
    await win(world)
    await world.say("Wybraliśmy inną firmę")
    [lead] = await world.leads()
    assert (lead["state"], lead["state_by"]) == ("won", "Jan Kos")
    assert "lost" not in lead["known"]
    _, update = await told(world)
    assert update["said"] == ["Wybraliśmy inną firmę"]


async def test_thanks_open_nothing(world: World) -> None:
    await world.say(KITCHEN)
    await win(world)
    await world.say("Dziękuję bardzo!")
    assert len(await world.leads()) == 1


async def test_who_chose_another_company_here_stays_lost_and_another_session_is_a_request(
    world: World,
) -> None:
    await world.say(KITCHEN)
    for said in ("Wybraliśmy inną firmę", "Powodzenia, może kiedyś coś u Państwa zamówimy"):
        await world.say(said)
        [lead] = await world.leads()
        assert (lead["state"], lead["known"]["lost"]) == ("lost", True)
    await by_chat(world)
    _, new = await world.leads()
    assert (new["state"], new["previous"]["owner"]) == ("new", None)


async def test_who_knows_a_number_closes_nothing_and_moves_nothing(world: World) -> None:
    await world.say(KITCHEN)
    await world.say(f"{PHONE}, wybraliśmy inną firmę", "stranger")
    await world.say(f"remont dachu, {PHONE}", "another stranger")
    await world.say("pomyłka, mój numer to 500 600 700", "another stranger")
    [lead] = await world.leads()
    assert lead["state"] == "new"
    assert lead["known"]["phone"] == "+48600700800"
    assert is_kitchen(lead["known"])
    await world.say(f"jeszcze łazienka, {PHONE}", "home")
    assert len(await world.leads()) == 1


async def test_who_began_a_request_with_the_number_of_another_cannot_take_it_from_them(
    world: World,
) -> None:
    await world.say(f"remont dachu, {PHONE}", "stranger")
    await world.say(f"{BATHROOM}, {PHONE}", "home")
    await world.say("pomyłka, mój numer to 500 600 700", "stranger")
    await world.say("wybraliśmy inną firmę", "stranger")
    [lead] = await world.leads()
    [home, stranger] = lead["known"]["also"]
    assert is_bathroom(home)
    assert home["phone"] == lead["known"]["phone"] == "+48600700800"
    assert stranger["phone"] == "+48500600700"
    assert lead["state"] == "new"
    update = (await told(world))[-1]
    assert {"also", "lost"} <= set(update["changes"])
    assert "500" in update["summary"]
    await world.say(f"a kiedy ktoś zadzwoni? {PHONE}", "later")
    assert len(await world.leads()) == 1


async def test_who_adds_only_a_contact_is_heard_too(world: World) -> None:
    await world.say(f"remont dachu 80 m2, {PHONE}", "stranger")
    await world.say(f"remont dachu 80 m2, {PHONE}", "home")
    await world.say("pomyłka, mój numer to 500 600 700", "stranger")
    [lead] = await world.leads()
    assert lead["known"]["phone"] == "+48600700800"


async def test_a_form_of_the_own_conversation_lets_it_correct_its_contact(world: World) -> None:
    session = "s" * 22
    await world.say(KITCHEN, session)
    bathroom = {"wish": "Remont łazienki", "area": "6"}
    await world.forms.take(given(ANNA, facts=bathroom, session_id=session))
    await world.say("pomyłka, mój numer to 500 600 700", session)
    [lead] = await world.leads()
    assert lead["known"]["phone"] == "+48500600700"


@pytest.mark.parametrize("is_told", [False, True])
async def test_who_adds_to_a_lead_cannot_have_it_erased(world: World, *, is_told: bool) -> None:
    await world.say(f"Jestem Anna, {KITCHEN}")
    await world.say(f"remont dachu 80 m2, {PHONE}, me@example.net, jestem Zenon", "stranger")
    terrace = {"wish": "Remont tarasu", "area": "9"}
    sent = given("me@example.net", facts=terrace, session_id="stranger")
    await world.forms.take(sent)
    await world.say(f"jeszcze salon 30 m2, {PHONE}", "friday")
    if is_told:
        await told(world)
    await world.erase("me@example.net")
    [lead] = await world.leads()
    assert is_kitchen(lead["known"])
    assert (lead["known"]["name"], lead["known"]["email"]) == ("Anna", ANNA)
    assert [each["area"] for each in lead["known"]["also"]] == [30]
    held = f"{lead['known']} {lead['notified']}"
    assert not [each for each in ("dach", "taras", "example.net", "Zenon") if each in held]
    kept = {row["contact"] for row in await world.rows(tables.lead_contact)}
    assert kept == {f"email:{ANNA}", "phone:+48600700800"}
    await change(world, state="won")
    await world.say("remont tarasu 9 m2")
    old, new = await world.leads()
    assert new["previous"]["id"] == str(old["id"])


@either_way
async def test_do_not_call_and_the_consent_of_an_address_come_along(world: World, way: Way) -> None:
    await world.say(f"{KITCHEN}, proszę nie dzwonić")
    at = datetime.now(UTC)
    heard = {"email": ANNA, "may_mail": "refused", "at": at, "patience": timedelta(0)}
    await run.alone(world.engine, "hear_consent", **heard)
    await win(world)
    await way(world, ANNA)
    await world.say(f"remont dachu, {PHONE}", "later")
    _, new = await world.leads()
    assert (new["known"]["no_calls"], new["known"]["may_mail"]) == (True, "refused")
    assert new["consent_at"] == at


async def test_who_asks_for_a_call_now_is_called(world: World) -> None:
    await world.say(f"{KITCHEN}, proszę nie dzwonić")
    await win(world)
    await world.say(f"{BATHROOM}, proszę o telefon: {PHONE}", "autumn")
    _, new = await world.leads()
    assert "no_calls" not in new["known"]


async def test_the_newest_open_one_of_all_contacts_wins(world: World) -> None:
    await world.say(f"remont kuchni, {ANNA}", "a")
    await world.say(f"remont łazienki, {PHONE}", "b")
    await world.say(f"remont salonu, {ANNA}, {PHONE}", "c")
    kitchen, bathroom = await world.leads()
    assert "also" not in kitchen["known"]
    assert "salonu" in bathroom["known"]["also"][0]["wish"]
    await world.sql("UPDATE lead SET state = 'won' WHERE id = :id", id=bathroom["id"])
    await world.say(f"remont tarasu, {ANNA}, {PHONE}", "d")
    kitchen, _ = await world.leads()
    assert "tarasu" in kitchen["known"]["also"][0]["wish"]


@pytest.mark.parametrize("contacts", [[f"{ANNA}, {PHONE}"], [ANNA, PHONE]], ids=["same", "either"])
async def test_sessions_of_a_returning_customer_at_once_make_one_lead(
    world: World, contacts: list[str]
) -> None:
    await world.say(KITCHEN)
    await win(world)
    texts = [f"Remont łazienki {n} m2, {contacts[n % len(contacts)]}" for n in range(1, 11)]
    await asyncio.gather(*(world.say(text, f"autumn {n}") for n, text in enumerate(texts)))
    _, new = await world.leads()
    assert len(new["known"]["also"]) == 9
    assert [each["is_update"] for each in await told(world)][:2] == [False, False]


@pytest.mark.parametrize(("bar", "is_written"), [("staff", True), ("bounce", False)])
async def test_a_new_request_clears_the_bar_of_staff_alone(
    world: World, bar: str, *, is_written: bool
) -> None:
    first = await world.say(KITCHEN)
    ending = {"conversation": first.conversation_id, "email": ANNA, "reason": bar}
    await run.alone(world.engine, "end_followups", **ending)
    await world.sql("DELETE FROM followup_event")
    await win(world)
    await world.say(f"{BATHROOM}, od marca, {ANNA}, {PHONE}", "autumn")
    assert bool(await world.steps()) is is_written


async def test_a_second_complaint_keeps_the_bar_of_staff(world: World) -> None:
    first = await world.say(KITCHEN)
    ending = {"conversation": first.conversation_id, "email": ANNA, "reason": "staff"}
    await run.alone(world.engine, "end_followups", **ending)
    await world.say("Reklamacja: odpada płytka")
    await world.sql("UPDATE lead SET state = 'not_a_lead' WHERE topic = 'complaint'")
    await world.say("Znowu reklamacja, odpada druga płytka")
    assert len(await world.leads()) == 3
    [talk] = await world.rows(tables.chat_conversations)
    assert talk["followups_ended_by"] == "staff"


@pytest.mark.parametrize("way_to_take", ["console", "case"])
async def test_a_request_keeps_its_mails_when_the_one_before_is_closed(
    world: World, way_to_take: str
) -> None:
    await world.say(KITCHEN)
    await change(world, hours=MONTH)
    await world.say(f"{BATHROOM}, od marca, {ANNA}, {PHONE}", "autumn")
    await world.say("tak", "autumn")
    old, _ = await world.leads()
    assert "scheduled" in await world.statuses()
    before = await world.statuses()
    if way_to_take == "case":
        body = {"case_id": str(old["id"]), "lead_id": str(old["id"]), "by": "Jan Kos"}
        at = datetime.now(UTC).isoformat()
        answered = Message(str(uuid.uuid4()), "case.answered", body | {"at": at})
        await world.consumers.outcomes(answered)
    else:
        await world.act(old["id"], "state", {"state": "lost"})
    assert (await world.leads())[0]["state"] == ("taken" if way_to_take == "case" else "lost")
    assert await world.statuses() == before


async def test_a_correction_leaves_the_lead_of_who_has_the_same_number(world: World) -> None:
    await world.say(f"Jestem Anna, {KITCHEN}")
    await world.say(f"jeszcze taras, {PHONE}, piotr@example.com", "stranger")
    await change(world, hours=29 * 24)
    right = {"name": "Piotr Lis", "phone": "+48500600700"}
    await world.forms.correct(Subject("piotr@example.com"), right, {})
    [lead] = await world.leads()
    assert (lead["known"]["name"], lead["known"]["phone"]) == ("Anna", "+48600700800")


async def test_a_correction_makes_no_old_lead_young(world: World) -> None:
    await world.say(KITCHEN)
    await change(world, hours=MONTH)
    await world.forms.correct(Subject(ANNA), {"name": "Anna Nowak"}, {})
    update = (await told(world))[-1]
    assert (update["is_update"], update["name"]) == (True, "Anna Nowak")
    await by_chat(world)
    assert len(await world.leads()) == 2


async def test_a_correction_waits_for_the_contacts_before_it_locks_a_lead(world: World) -> None:
    await world.say(KITCHEN)
    async with world.engine.begin() as turn:
        name = f"email:{ANNA}"
        locks = "SELECT pg_advisory_xact_lock(hashtext('followups.contact'), hashtext(:name))"
        await turn.execute(sa.text(locks), {"name": name})
        right = world.forms.correct(Subject(ANNA), {"name": "Anna Lis"}, {})
        correcting = asyncio.create_task(right)
        await world.someone_waits()
        await turn.execute(sa.select(tables.lead.c.id).with_for_update(nowait=True))
    await correcting
    [lead] = await world.leads()
    assert lead["known"]["name"] == "Anna Lis"


async def test_a_complaint_after_the_last_one_was_closed_asks_again(world: World) -> None:
    await world.say(f"Reklamacja: odpada płytka, {PHONE}")
    await change(world, state="not_a_lead", state_by="Jan Kos")
    await world.say("Znowu reklamacja, odpada druga płytka")
    first, second = [each["payload"] for each in await world.outbox("alert.accepted")]
    assert (first["is_update"], second["is_update"]) == (False, False)
    assert first["lead_id"] != second["lead_id"]


def test_a_wait_of_thirty_days_is_the_default() -> None:
    assert CONFIG.lead.reopens_after.days == 30
