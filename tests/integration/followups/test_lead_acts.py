"""What staff do with a lead: notes, calls, corrections, assignment, and undoing it."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from services.followups.leads.staff import Announcer
from services.followups.store import tables
from tests.integration.followups.conftest import CONFIG, Client, World, link, submissions_of
from tests.integration.followups.test_leads import listed
from tests.integration.followups.test_submissions import given

ANNA = "anna@example.com"
BATH = f"remont łazienki, 6 m2, 40 tys., Gdynia, {ANNA}, 600 700 800"


async def act(
    client: Client,
    lead: str,
    path: str,
    body: Mapping[str, Any],
    status: int = 200,
    by: str = "Ola",
) -> dict[str, Any]:
    url, headers = f"/api/leads/{lead}/{path}", {"X-Operator": by}
    async with client.post(url, json=body, headers=headers) as answer:
        told: dict[str, Any] = await answer.json()
        assert answer.status == status, told
        return told


async def shown(client: Client, lead: str) -> dict[str, Any]:
    async with client.get(f"/api/leads/{lead}") as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def events(world: World, kind: str = "lead.updated") -> list[dict[str, Any]]:
    out = tables.outbox_table.c
    async with world.engine.begin() as tx:
        found = await tx.execute(sa.select(out.body).where(out.type == kind).order_by(out.id))
    return list(found.scalars())


@pytest.fixture
async def lead(world: World, client: Client) -> dict[str, Any]:
    await world.say(BATH)
    (found,) = await listed(client)
    return found


async def test_each_act_is_in_the_history_and_told_to_slack_and_the_crm(
    world: World, client: Client, lead: dict[str, Any]
) -> None:
    id_ = lead["id"]
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    note = await act(client, id_, "notes", {"text": "Woli po 16"})
    call = {"result": "no_answer", "at": later, "note": "poczta", "version": note["version"]}
    called = await act(client, id_, "calls", call)
    assert called["call_at"] is not None
    facts = {"budget": "45 000", "city": None, "version": called["version"]}
    edited = await act(client, id_, "facts", facts)
    assert (edited["budget"], edited["city"], edited["edited"]) == (45000, None, ["budget", "city"])
    owned = await act(client, id_, "owner", {"owner": "Ewa Lis", "version": edited["version"]})
    assert (owned["state"], owned["owner"]) == ("taken", "Ewa Lis")
    won = await act(client, id_, "state", {"state": "won", "order_value": 52000}, by="Ewa Lis")
    assert (won["order_value"], won["order_currency"]) == (52000, "PLN")
    assert (won["owner"], won["call_at"]) == ("Ewa Lis", None)
    stream = (await shown(client, id_))["stream"]
    assert [each["kind"] for each in stream] == [
        "lead", "bot", "note", "call", "edit", "owner", "state",
    ]  # fmt: skip
    assert [each["by"] for each in stream[2:]] == ["Ola"] * 4 + ["Ewa Lis"]
    assert (stream[4]["before"], stream[4]["after"]) == (
        {"budget": 40000, "city": "Gdynia"}, {"budget": 45000, "city": None},
    )  # fmt: skip
    told = [event["act"] for event in await events(world)]
    lines = [[line.replace("\N{NO-BREAK SPACE}", " ") for line in act] for act in told]
    assert lines[0] == ["Ola: notatka", "Woli po 16"]
    assert lines[1][0].startswith("Ola: nie odebrał(a), telefon zaplanowany na ")
    assert lines[2] == ["Ola: poprawione dane: 45 000 zł"]
    assert lines[3] == ["Ola: teraz ma to Ewa Lis"]
    assert lines[4] == ["Ewa Lis: wygrany, zamówienie: 52 000 zł"]
    assert (await events(world))[2]["changes"] == ["budget", "city"]


async def test_two_at_the_same_lead_never_overwrite_each_other(
    world: World, client: Client, lead: dict[str, Any], engine: AsyncEngine
) -> None:
    version = {"version": lead["version"]}
    bodies = [version | {"budget": 50_000 + n} for n in range(8)]
    url = f"/api/leads/{lead['id']}/facts"
    answers = await asyncio.gather(*(client.post(url, json=body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    conflict = await act(client, lead["id"], "owner", version | {"owner": "Ewa"}, 409)
    assert conflict["version"] == lead["version"] + 1
    (change,) = conflict["changes"]
    assert (change["kind"], change["by"], change["before"]) == ("edit", "Ola", {"budget": 40000})
    assert "Ola: edit" in conflict["detail"]
    assert (await shown(client, lead["id"]))["owner"] is None
    await world.say("jednak 60 tys.")  # the person
    version = {"version": conflict["version"]}
    conflict = await act(client, lead["id"], "facts", version | {"area": 7}, 409)
    assert conflict["changes"] == []
    # Notes are added beside each other.
    for n in range(2):
        await act(client, lead["id"], "notes", {"text": str(n)})


async def test_a_correction_stays_until_the_person_says_something_else(
    world: World, client: Client, lead: dict[str, Any]
) -> None:
    new = {"budget": 45_000, "name": "Anna Nowak", "wish": "Łazienka", "version": lead["version"]}
    await act(client, lead["id"], "facts", new)
    await world.say("od marca")
    (now,) = await listed(client)
    assert (now["budget"], now["name"], now["wish"]) == (45_000, "Anna Nowak", "Łazienka")
    assert now["start"] is not None
    await world.say("budżet jednak 60 tys.")
    (now,) = await listed(client)
    assert (now["budget"], now["name"]) == (60_000, "Anna Nowak")


async def test_a_corrected_budget_is_no_range(world: World, client: Client) -> None:
    await world.say(f"remont domu, budżet 350 000 - 400 000 zł, {ANNA}")
    (lead,) = await listed(client)
    assert (lead["budget_from"], lead["budget"]) == (350_000, 400_000)
    await act(client, lead["id"], "facts", {"budget": 400_000, "version": lead["version"]})
    await act(client, lead["id"], "facts", {"budget": 390_000, "version": lead["version"]})
    await world.say("od marca")
    (lead,) = await listed(client)
    assert (lead["budget_from"], lead["budget"]) == (None, 390_000)


async def test_closing_can_be_undone_but_not_once_another_request_follows(
    world: World, client: Client, lead: dict[str, Any]
) -> None:
    id_ = lead["id"]
    await act(client, id_, "undo", {}, 409)
    await act(client, id_, "owner", {"owner": "Ewa", "version": lead["version"]})
    await act(client, id_, "state", {"state": "won", "order_value": 1})
    back = await act(client, id_, "undo", {})
    assert (back["state"], back["owner"], back["order_value"]) == ("taken", "Ewa", None)
    await act(client, id_, "undo", {}, 409)
    await act(client, id_, "state", {"state": "lost", "reason": "za drogo"})
    await act(client, id_, "owner", {"owner": "Jan"}, 409)
    await world.say(f"remont kuchni, {ANNA}", "autumn")
    assert (await shown(client, id_))["next"] is not None
    await act(client, id_, "undo", {}, 409)


async def test_a_planned_call_is_an_alert_for_its_owner_once(
    world: World, client: Client, lead: dict[str, Any], engine: AsyncEngine
) -> None:
    later = (datetime.now(UTC) + timedelta(minutes=30)).isoformat()
    await act(client, lead["id"], "owner", {"owner": "Ewa Lis"})
    await act(client, lead["id"], "calls", {"at": later, "note": "o płytkach"})
    announcer = Announcer(engine, CONFIG, link)
    assert await announcer.remind(datetime.now(UTC)) == 0
    async with engine.begin() as tx:
        past = sa.func.now() - sa.text("interval '1 minute'")
        await tx.execute(sa.update(tables.lead).values(call_at=past))
    await asyncio.gather(*(announcer.remind(datetime.now(UTC)) for _ in range(4)))
    (alert,) = [each for each in await events(world, "alert.accepted") if "lead.call" in str(each)]
    assert alert["event_type"] == "lead.call"
    assert (alert["payload"]["asks_first"], alert["payload"]["act"]) == (
        "Ewa Lis", ["Ewa Lis", "o płytkach"],
    )  # fmt: skip
    found = await shown(client, lead["id"])
    assert alert["id"] in found["alert_ids"]
    mine = {"call_before": datetime.now(UTC).isoformat(), "owner": "Ewa Lis"}
    assert [each["id"] for each in await listed(client, **mine)] == [lead["id"]]
    called = await act(client, lead["id"], "calls", {"result": "reached"})
    assert called["call_at"] is None
    over = (await events(world, "alert.accepted"))[-1]  # nobody else is asked any more
    assert (over["resolved"], over["dedup_key"]) == (True, alert["dedup_key"])
    assert over["id"] != alert["id"]
    assert await listed(client, **mine) == []


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
    world: World, client: Client, lead: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    refused = await act(client, lead["id"], path, body, 422)
    assert refused["errors"]
    assert (await listed(client)) == [lead]


async def test_an_erasure_strikes_out_what_staff_noted(
    world: World, client: Client, lead: dict[str, Any], engine: AsyncEngine
) -> None:
    await world.say("remont kuchni, jan@example.com", "jan")
    (jan,) = await listed(client, email="jan@example.com")
    await act(client, jan["id"], "notes", {"text": f"Żona: {ANNA.title()}, proszę pisać"})
    await act(client, lead["id"], "notes", {"text": "Woli po 16"})
    await world.erase(ANNA)
    async with engine.begin() as tx:
        left = (await tx.execute(sa.select(tables.lead_act))).mappings().all()
        assert [row["text"] for row in left] == ["Żona: […], proszę pisać"]
    assert ANNA not in json.dumps([dict(row) for row in left], default=str).lower()


async def test_a_range_in_a_form_stays_one(world: World, client: Client) -> None:
    budget = "350 000-400 000"
    await submissions_of(world.engine).take(given(ANNA, facts={"budget": budget, "wish": "Dom"}))
    (lead,) = await listed(client)
    assert (lead["budget_from"], lead["budget"]) == (350_000, 400_000)
    (event,) = await events(world, "lead.submitted") + await events(world, "lead.qualified")
    assert "350\N{NO-BREAK SPACE}000-400\N{NO-BREAK SPACE}000" in event["summary"]


async def test_staff_read_also_what_the_eleventh_form_says(world: World, client: Client) -> None:
    forms = submissions_of(world.engine)
    for n in range(1, 13):
        await forms.take(given(ANNA, facts={"budget": f"{n}00 000", "area": f"{n}0"}))
    (lead,) = await listed(client)
    assert len(lead["also"]) == 10
    last = (await events(world, "lead.submitted"))[-1]
    assert "120 m²" in " ".join(last["said"])


async def test_the_number_of_another_person_stands_beside_the_own(
    world: World, client: Client
) -> None:
    await world.say("remont łazienki 6 m2, mój numer 501 502 503")
    await world.say("proszę kontaktować się z mężem Piotrem 602 333 444")
    (lead,) = await listed(client)
    assert lead["phone"] == "+48501502503"
    assert "mężem Piotrem 602 333 444" in lead["call_time"]


async def test_when_to_call_is_kept_in_the_persons_words(world: World, client: Client) -> None:
    await world.say("remont dachu, proszę dzwonić po 16, 600 700 800")
    (lead,) = await listed(client)
    assert "po 16" in lead["call_time"]
