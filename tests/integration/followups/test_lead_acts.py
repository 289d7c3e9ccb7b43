"""What staff do with a lead: notes, calls, corrections, assignment, and undoing it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.followups.leads.staff import Announcer
from services.followups.store import tables
from tests.integration.followups.conftest import CONFIG, World, link
from tests.integration.followups.test_submissions import given

ANNA = "anna@example.com"
BATH = f"remont łazienki, 6 m2, 40 tys., Gdynia, {ANNA}, 600 700 800"


@pytest.fixture
async def lead(world: World) -> dict[str, Any]:
    await world.say(BATH)
    (found,) = await world.listed()
    return found


async def test_each_act_is_in_the_history_and_told_to_slack_and_the_crm(
    world: World, lead: dict[str, Any]
) -> None:
    id_ = lead["id"]
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    note = await world.act(id_, "notes", {"text": "Woli po 16"})
    call = {"result": "no_answer", "at": later, "note": "poczta", "version": note["version"]}
    called = await world.act(id_, "calls", call)
    assert called["call_at"] is not None
    facts = {"budget": "45 000", "city": None, "version": called["version"]}
    edited = await world.act(id_, "facts", facts)
    assert (edited["budget"], edited["city"], edited["edited"]) == (45000, None, ["budget", "city"])
    owned = await world.act(id_, "owner", {"owner": "Ewa Lis", "version": edited["version"]})
    assert (owned["state"], owned["owner"]) == ("taken", "Ewa Lis")
    won = await world.act(id_, "state", {"state": "won", "order_value": 52000}, by="Ewa Lis")
    assert (won["order_value"], won["order_currency"]) == (52000, "PLN")
    assert (won["owner"], won["call_at"]) == ("Ewa Lis", None)
    stream = (await world.shown(id_))["stream"]
    assert [each["kind"] for each in stream] == [
        "lead", "bot", "note", "call", "edit", "owner", "state",
    ]  # fmt: skip
    assert [each["by"] for each in stream[2:]] == ["Ola"] * 4 + ["Ewa Lis"]
    assert (stream[4]["before"], stream[4]["after"]) == (
        {"budget": 40000, "city": "Gdynia"}, {"budget": 45000, "city": None},
    )  # fmt: skip
    told = [event["act"] for event in await world.outbox("lead.updated")]
    lines = [[line.replace("\N{NO-BREAK SPACE}", " ") for line in act] for act in told]
    assert lines[0] == ["Ola: notatka", "Woli po 16"]
    assert lines[1][0].startswith("Ola: nie odebrał(a), telefon zaplanowany na ")
    assert lines[2] == ["Ola: poprawione dane: 45 000 zł"]
    assert lines[3] == ["Ola: teraz ma to Ewa Lis"]
    assert lines[4] == ["Ewa Lis: wygrany, zamówienie: 52 000 zł"]
    assert (await world.outbox("lead.updated"))[2]["changes"] == ["budget", "city"]


async def test_two_at_the_same_lead_never_overwrite_each_other(
    world: World, lead: dict[str, Any]
) -> None:
    version = {"version": lead["version"]}
    bodies = [version | {"budget": 50_000 + n} for n in range(8)]
    url = f"/api/leads/{lead['id']}/facts"
    answers = await asyncio.gather(*(world.post(url, body) for body in bodies))
    assert sorted(status for status, _ in answers) == [200] + [409] * 7
    conflict = await world.act(lead["id"], "owner", version | {"owner": "Ewa"}, 409)
    assert conflict["version"] == lead["version"] + 1
    (change,) = conflict["changes"]
    assert (change["kind"], change["by"], change["before"]) == ("edit", "Ola", {"budget": 40000})
    assert "Ola: edit" in conflict["detail"]
    assert (await world.shown(lead["id"]))["owner"] is None
    await world.say("jednak 60 tys.")  # the person
    version = {"version": conflict["version"]}
    conflict = await world.act(lead["id"], "facts", version | {"area": 7}, 409)
    assert conflict["changes"] == []
    # Notes are added beside each other.
    for n in range(2):
        await world.act(lead["id"], "notes", {"text": str(n)})


async def test_a_correction_stays_until_the_person_says_something_else(
    world: World, lead: dict[str, Any]
) -> None:
    new = {"budget": 45_000, "name": "Anna Nowak", "wish": "Łazienka", "version": lead["version"]}
    await world.act(lead["id"], "facts", new)
    await world.say("od marca")
    (now,) = await world.listed()
    assert (now["budget"], now["name"], now["wish"]) == (45_000, "Anna Nowak", "Łazienka")
    assert now["start"] is not None
    await world.say("budżet jednak 60 tys.")
    (now,) = await world.listed()
    assert (now["budget"], now["name"]) == (60_000, "Anna Nowak")


async def test_a_corrected_budget_is_no_range(world: World) -> None:
    await world.say(f"remont domu, budżet 350 000 - 400 000 zł, {ANNA}")
    (lead,) = await world.listed()
    assert (lead["budget_from"], lead["budget"]) == (350_000, 400_000)
    await world.act(lead["id"], "facts", {"budget": 400_000, "version": lead["version"]})
    await world.act(lead["id"], "facts", {"budget": 390_000, "version": lead["version"]})
    await world.say("od marca")
    (lead,) = await world.listed()
    assert (lead["budget_from"], lead["budget"]) == (None, 390_000)


async def test_closing_can_be_undone_but_not_once_another_request_follows(
    world: World, lead: dict[str, Any]
) -> None:
    id_ = lead["id"]
    await world.act(id_, "undo", {}, 409)
    await world.act(id_, "owner", {"owner": "Ewa", "version": lead["version"]})
    await world.act(id_, "state", {"state": "won", "order_value": 1})
    back = await world.act(id_, "undo", {})
    assert (back["state"], back["owner"], back["order_value"]) == ("taken", "Ewa", None)
    await world.act(id_, "undo", {}, 409)
    await world.act(id_, "state", {"state": "lost", "reason": "za drogo"})
    await world.act(id_, "owner", {"owner": "Jan"}, 409)
    await world.say(f"remont kuchni, {ANNA}", "autumn")
    assert (await world.shown(id_))["next"] is not None
    await world.act(id_, "undo", {}, 409)


async def test_a_planned_call_is_an_alert_for_its_owner_once(
    world: World, lead: dict[str, Any]
) -> None:
    later = (datetime.now(UTC) + timedelta(minutes=30)).isoformat()
    await world.act(lead["id"], "owner", {"owner": "Ewa Lis"})
    await world.act(lead["id"], "calls", {"at": later, "note": "o płytkach"})
    announcer = Announcer(world.engine, CONFIG, link)
    assert await announcer.remind(datetime.now(UTC)) == 0
    await world.sql("UPDATE lead SET call_at = now() - interval '1 minute'")
    await asyncio.gather(*(announcer.remind(datetime.now(UTC)) for _ in range(4)))
    (alert,) = [each for each in await world.outbox("alert.accepted") if "lead.call" in str(each)]
    assert alert["event_type"] == "lead.call"
    assert (alert["payload"]["asks_first"], alert["payload"]["act"]) == (
        "Ewa Lis", ["Ewa Lis", "o płytkach"],
    )  # fmt: skip
    found = await world.shown(lead["id"])
    assert alert["id"] in found["alert_ids"]
    mine = {"call_before": datetime.now(UTC).isoformat(), "owner": "Ewa Lis"}
    assert [each["id"] for each in await world.listed(**mine)] == [lead["id"]]
    called = await world.act(lead["id"], "calls", {"result": "reached"})
    assert called["call_at"] is None
    over = (await world.outbox("alert.accepted"))[-1]  # nobody else is asked any more
    assert (over["resolved"], over["dedup_key"]) == (True, alert["dedup_key"])
    assert over["id"] != alert["id"]
    assert await world.listed(**mine) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("notes", {}), ("notes", {"text": ""}), ("notes", {"text": "a" * 4001}),
        ("calls", {}), ("calls", {"result": "sold"}), ("calls", {"at": "2020-01-01T00:00:00Z"}),
        ("calls", {"at": "2126-01-01T00:00:00Z"}), ("facts", {}), ("facts", {"email": ANNA}),
        ("facts", {"budget": "dużo"}), ("facts", {"start": "kiedyś"}), ("owner", {}),
        ("owner", {"owner": " "}), ("state", {"state": "lost", "order_value": 5}),
        ("state", {"state": "won", "order_value": -5}), ("undo", {"version": -1}),
    ],
    ids=str,
)  # fmt: skip
async def test_bad_input_changes_nothing(
    world: World, lead: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    refused = await world.act(lead["id"], path, body, 422)
    assert refused["errors"]
    assert (await world.listed()) == [lead]


async def test_an_erasure_strikes_out_what_staff_noted(world: World, lead: dict[str, Any]) -> None:
    await world.say("remont kuchni, jan@example.com", "jan")
    (jan,) = await world.listed(email="jan@example.com")
    await world.act(jan["id"], "notes", {"text": f"Żona: {ANNA.title()}, proszę pisać"})
    await world.act(lead["id"], "notes", {"text": "Woli po 16"})
    await world.erase(ANNA)
    left = await world.rows(tables.lead_act)
    assert [row["text"] for row in left] == ["Żona: […], proszę pisać"]
    assert ANNA not in json.dumps([dict(row) for row in left], default=str).lower()


async def test_a_range_in_a_form_stays_one(world: World) -> None:
    budget = "350 000-400 000"
    await world.forms.take(given(ANNA, facts={"budget": budget, "wish": "Dom"}))
    (lead,) = await world.listed()
    assert (lead["budget_from"], lead["budget"]) == (350_000, 400_000)
    (event,) = await world.outbox("lead.submitted") + await world.outbox("lead.qualified")
    assert "350\N{NO-BREAK SPACE}000-400\N{NO-BREAK SPACE}000" in event["summary"]


async def test_staff_read_also_what_the_eleventh_form_says(world: World) -> None:
    forms = world.forms
    for n in range(1, 13):
        await forms.take(given(ANNA, facts={"budget": f"{n}00 000", "area": f"{n}0"}))
    (lead,) = await world.listed()
    assert len(lead["also"]) == 10
    last = (await world.outbox("lead.submitted"))[-1]
    assert "120 m²" in " ".join(last["said"])


async def test_the_number_of_another_person_stands_beside_the_own(world: World) -> None:
    await world.say("remont łazienki 6 m2, mój numer 501 502 503")
    await world.say("proszę kontaktować się z mężem Piotrem 602 333 444")
    (lead,) = await world.listed()
    assert lead["phone"] == "+48501502503"
    assert "mężem Piotrem 602 333 444" in lead["call_time"]


async def test_when_to_call_is_kept_in_the_persons_words(world: World) -> None:
    await world.say("remont dachu, proszę dzwonić po 16, 600 700 800")
    (lead,) = await world.listed()
    assert "po 16" in lead["call_time"]
