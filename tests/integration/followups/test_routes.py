"""Routes precede the form: each one answers and notifies its recipient."""

from typing import Any

from services.followups.rules.fact_texts import describe_phone
from tests.integration.followups.conftest import CONFIG, World

PAST_THE_WINDOW = 3600.0


def answer(route: str) -> str:
    found = CONFIG.routes.named(route)
    assert found is not None
    return found.answer["pl"]


async def visitors(world: World) -> list[dict[str, Any]]:
    return [
        alert
        for alert in await world.outbox("alert.accepted")
        if alert["event_type"].startswith("visitor.")
    ]


async def test_an_emergency_gets_advice_and_is_announced_at_once(world: World) -> None:
    reply = (await world.say("Pomocy, czuć gaz w kuchni!")).reply
    assert reply.startswith(answer("gas"))
    assert "992" in reply
    [alert] = await visitors(world)
    assert (alert["event_type"], alert["severity"]) == ("visitor.emergency", "critical")
    assert alert["payload"]["said"] == ["Pomocy, czuć gaz w kuchni!"]
    assert await world.outbox("lead.qualified") == []


async def test_a_phone_number_given_in_an_emergency_is_announced_at_once(world: World) -> None:
    await world.say("zalało nas")
    await world.say("600 700 800")
    first, second = await visitors(world)
    assert (first["payload"]["phone"], second["payload"]["phone"]) == (None, "+48600700800")
    assert first["id"] != second["id"]
    assert second["payload"]["lead_id"] == first["payload"]["lead_id"]


async def test_a_complaint_reaches_the_service_team_and_no_salesperson(world: World) -> None:
    await world.say("Pęka fuga w łazience, którą robiliście w marcu. ul. 3 Maja 15")
    reply = (await world.say("jan@example.com, 600 700 800")).reply
    assert describe_phone("+48600700800") in reply
    await world.tell_staff(after=PAST_THE_WINDOW)
    first, more = await visitors(world)
    assert first["event_type"] == more["event_type"] == "visitor.complaint"
    assert more["payload"]["is_update"]
    assert await world.outbox("lead.qualified") == []
    assert await world.steps() == []


async def test_works_requested_within_a_complaint_also_reach_sales(world: World) -> None:
    await world.say("Pęka fuga w łazience, którą robiliście w marcu")
    await world.say("też proszę o wycenę malowania salonu 25 m2, budżet 3-4 tys.")
    await world.say("600 700 800")
    await world.tell_staff(after=PAST_THE_WINDOW)
    assert {each["event_type"] for each in await visitors(world)} == {"visitor.complaint"}
    [lead] = await world.outbox("lead.qualified")
    assert lead["phone"] == "+48600700800"
    assert "25 m²" in lead["summary"]
    assert "3\N{NO-BREAK SPACE}000-4\N{NO-BREAK SPACE}000" in lead["summary"]


async def test_a_visitor_who_wants_a_human_is_asked_for_a_contact(world: World) -> None:
    reply = (await world.say("chcę porozmawiać z człowiekiem")).reply
    assert "Pod jakim numerem telefonu albo adresem e-mail doradca" in reply
    assert CONFIG.texts["pl"]["notice"] in reply
    assert await world.outbox("lead.qualified") == []
    await world.say("600 700 800")
    [lead] = await world.outbox("lead.qualified")
    assert (lead["wants_call"], lead["phone"]) == (True, "+48600700800")


async def test_an_erasure_request_goes_to_consent_and_to_staff(world: World) -> None:
    await world.say("remont kuchni, jan@example.com")
    await world.say("Proszę usunąć moje dane")
    [record] = await world.outbox("withdrawal.record")
    assert (record["email"], record["erase"], record["language"]) == ("jan@example.com", True, "pl")
    [alert] = await visitors(world)
    assert alert["event_type"] == "visitor.privacy"
    await world.say("dziękuję")
    assert len(await world.outbox("withdrawal.record")) == 1


async def test_an_erasure_request_waits_for_the_address(world: World) -> None:
    reply = (await world.say("usuńcie moje dane")).reply
    assert "adres e-mail" in reply
    await world.say("jan@example.com")
    [record] = await world.outbox("withdrawal.record")
    assert (record["email"], record["erase"]) == ("jan@example.com", True)


async def test_a_visitor_who_chose_another_company_is_a_lost_lead(world: World) -> None:
    await world.say("remont kuchni 12 m2, 60 tys., od marca, jan@example.com")
    await world.say("dziękuję, wybraliśmy inną firmę")
    lead = await world.lead()
    assert (lead["state"], lead["state_by"]) == ("lost", "chat")
    assert set(await world.statuses()) == {"cancelled"}
    await world.tell_staff(after=PAST_THE_WINDOW)
    [update] = await world.outbox("lead.updated")
    assert "lost" in update["changes"]


async def test_a_number_that_follows_a_refusal_makes_a_lost_lead(world: World) -> None:
    await world.say("wybraliśmy inną firmę, proszę już nie dzwonić")
    await world.say("600 700 800")
    lead = await world.lead()
    assert (lead["state"], lead["state_by"]) == ("lost", "chat")
    await world.tell_staff(after=PAST_THE_WINDOW)
    [told] = await world.outbox("lead.qualified")
    assert told["changes"] == ["lost"]


async def test_naming_a_number_does_not_end_the_lead_of_another_session(world: World) -> None:
    await world.say("remont kuchni, 600 700 800", "theirs")
    await world.say("600 700 800, proszę o telefon", "a stranger's")
    await world.say("wybrałem inną firmę", "a stranger's")
    lead = await world.lead()
    assert lead["state"] == "new"
