"""Notifications of staff: no promise without a message, and one lead per person."""

import asyncio
from datetime import UTC, datetime

from services.followups.rules.fact_texts import describe_phone, filled
from tests.integration.followups.conftest import CONFIG, World

PAST_THE_WINDOW = 3600.0


def closing(contact: str, text: str = "closing") -> str:
    told = CONFIG.texts["pl"][text].replace("{contact}", contact)
    return CONFIG.said(told, "pl", datetime.now(UTC))


async def test_a_wish_with_a_phone_number_reaches_staff_whatever_its_score(world: World) -> None:
    answer = await world.say("Chcę odnowić łazienkę, 600 700 800")
    assert answer.score < CONFIG.lead.threshold
    [lead] = await world.outbox("lead.qualified")
    assert (lead["phone"], lead["hot"], lead["email"]) == ("+48600700800", False, None)
    assert lead["said"] == ["Chcę odnowić łazienkę, 600 700 800"]


async def test_a_question_asked_before_the_contact_reaches_staff_with_it(world: World) -> None:
    question = "Czy robicie też sauny parowe?"
    reply = (await world.say(question)).reply
    text = filled(CONFIG.texts["pl"]["question_unreachable"], {"said": question})
    assert CONFIG.said(text, "pl", datetime.now(UTC)) in reply
    await world.say("jan@example.com")
    [lead] = await world.outbox("lead.qualified")
    assert question in lead["said"]


async def test_a_bare_contact_reaches_staff_after_a_wait(world: World) -> None:
    await world.say("jan@example.com")
    await world.tell_staff()
    assert await world.outbox("lead.qualified") == []
    await world.tell_staff(after=CONFIG.lead.contact_only_after.total_seconds())
    [lead] = await world.outbox("lead.qualified")
    assert lead["email"] == "jan@example.com"


async def test_later_messages_make_one_update_of_the_lead(world: World) -> None:
    await world.say("remont kuchni, 600 700 800")
    for later in ("jednak 80 metrów", "jan@example.com", "proszę nie dzwonić przed 16"):
        await world.say(later)
    assert await world.outbox("lead.updated") == []
    await world.tell_staff(after=PAST_THE_WINDOW)
    [lead] = await world.outbox("lead.qualified")
    [update] = await world.outbox("lead.updated")
    assert update["lead_id"] == lead["lead_id"]
    assert update["id"] != lead["id"]
    assert {"area", "email"} <= set(update["changes"])
    assert update["email"] == "jan@example.com"
    assert update["said"] == ["proszę nie dzwonić przed 16"]


async def test_each_update_is_announced_once(world: World) -> None:
    await world.say("remont kuchni, 600 700 800")
    await world.say("80 m2")
    for _ in range(3):
        await world.tell_staff(after=PAST_THE_WINDOW)
    await world.say("dziękuję")
    await world.tell_staff(after=PAST_THE_WINDOW)
    assert len(await world.outbox("lead.updated")) == 1
    await world.say("90 m2")
    await world.tell_staff(after=PAST_THE_WINDOW)
    first, second = await world.outbox("lead.updated")
    assert (first["changes"], second["changes"]) == (["area"], ["area"])
    assert first["id"] != second["id"]


async def test_two_announcers_publish_an_update_once(world: World) -> None:
    await world.say("remont kuchni, 600 700 800")
    await world.say("80 m2")
    await asyncio.gather(*(world.tell_staff(after=PAST_THE_WINDOW) for _ in range(4)))
    assert len(await world.outbox("lead.updated")) == 1


async def test_two_concurrent_sessions_of_one_person_are_one_lead(world: World) -> None:
    said = "remont kuchni, jan@example.com, 600 700 800"
    await asyncio.gather(*(world.say(said, f"s{n}") for n in range(10)))
    assert len(await world.outbox("lead.qualified")) == 1
    assert await world.lead()


async def test_a_promise_is_made_only_after_staff_were_notified(world: World) -> None:
    replies = [
        (await world.say(said)).reply
        for said in ("remont kuchni", "12 m2", "60 tys.", "od marca", "nie powiem", "nie")
    ]
    assert CONFIG.texts["pl"]["closing_unreachable"] in replies[-2]
    assert replies[-1] == CONFIG.texts["pl"]["thanks"], "a refused contact is not asked for again"
    assert await world.outbox("lead.qualified") == []
    last = (await world.say("600 700 800")).reply
    assert closing(describe_phone("+48600700800")) in last
    assert len(await world.outbox("lead.qualified")) == 1


async def test_a_corrected_address_no_longer_identifies_the_lead(world: World) -> None:
    await world.say("remont kuchni, anna@exmaple.pl")
    await world.say("literówka, ma być anna@example.pl")
    await world.tell_staff(after=PAST_THE_WINDOW)
    [update] = await world.outbox("lead.updated")
    assert update["email"] == "anna@example.pl"
    await world.say("remont łazienki, anna@exmaple.pl", "the owner of the other mailbox")
    assert len(await world.outbox("lead.qualified")) == 2


async def test_a_double_tap_is_not_an_update(world: World) -> None:
    for _ in range(3):
        await world.say("Chcę nową kuchnię z wyspą, 600 700 800")
    await world.tell_staff(after=PAST_THE_WINDOW)
    assert len(await world.outbox("lead.qualified")) == 1
    assert await world.outbox("lead.updated") == []
