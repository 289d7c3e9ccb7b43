"""Leads over HTTP: the list and the states."""

import csv
import io
from typing import Any
from uuid import uuid4

import pytest

from services.followups.http.leads import COLUMNS
from tests.integration.followups.conftest import World


async def put(world: World, lead: str, state: str, **more: Any) -> dict[str, Any]:
    return await world.act(lead, "state", {"state": state} | more)


async def three(world: World) -> None:
    await world.say("remont kuchni 12 m2, 60 tys., 600 700 801", "one")
    await world.say("remont łazienki, jan@example.com", "two")
    await world.say("chcę zgłosić reklamację, 600 700 803", "three")


async def test_leads_are_listed_newest_first_in_pages(world: World) -> None:
    await three(world)
    everything = await world.listed()
    assert [lead["topic"] for lead in everything] == ["complaint", "lead", "lead"]
    pages, cursor = [], None
    for _ in range(3):
        query = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = await world.get("/api/leads", **query)
        pages += page["items"]
        cursor = page["next_cursor"]
    assert pages == everything
    assert "reklam" in everything[0]["words"]
    assert cursor is None


async def test_each_filter_narrows_the_list(world: World) -> None:
    await three(world)
    now = "2020-01-01T00:00:00+00:00"
    for query, count in (
        ({"topic": "lead"}, 2), ({"topic": "complaint"}, 1), ({"email": "Jan@Example.com"}, 1),
        ({"phone": "600 700 801"}, 1), ({"min_score": "70"}, 1), ({"state": "won"}, 0),
        ({"since": now}, 3), ({"until": now}, 0),
        ({"since": now[:19]}, 3), ({"until": now[:19]}, 0), ({"since": now[:10]}, 3),
    ):  # fmt: skip
        assert len(await world.listed(**query)) == count, query


@pytest.mark.parametrize(
    "query",
    [{"state": "sold"}, {"limit": "0"}, {"limit": "x"}, {"cursor": "x"}, {"colour": "red"},
     {"since": "soon"}, {"until": "2026-13-01"}, {"until": "1764000000"},
     {"email": "x"}, {"person": "x"}, {"format": "xml"}],
    ids=str,
)  # fmt: skip
async def test_an_invalid_filter_is_named(world: World, query: dict[str, str]) -> None:
    status, told = await world.call("GET", "/api/leads", params=query)
    assert (status, [fault["field"] for fault in told["errors"]]) == (422, [*query])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r="])
async def test_csv_cells_are_never_formulas(world: World, start: str) -> None:
    await world.say("remont kuchni, 600 700 800")
    wish = f'{start}HYPERLINK("http://evil.example")'
    await world.sql(
        "UPDATE lead SET known = jsonb_set(known, '{wish}', to_jsonb(CAST(:wish AS text)))",
        wish=wish,
    )
    async with world.client.get("/api/leads", params={"format": "csv"}) as answer:
        assert answer.content_type == "text/csv"
        [row] = csv.DictReader(io.StringIO(await answer.text(), newline=""))
    assert tuple(row) == COLUMNS
    assert row["phone"] == "+48600700800"
    assert row["wish"] == f"'{wish}"


async def test_a_taken_lead_records_who_why_and_when_and_its_follow_ups_end(world: World) -> None:
    await world.say("remont kuchni 12 m2, 60 tys., od marca, jan@example.com")
    assert set(await world.statuses()) == {"scheduled"}
    [lead] = await world.listed()
    taken = await put(world, lead["id"], "taken", reason="dzwonię dziś")
    assert (taken["state"], taken["state_by"], taken["state_reason"]) == (
        "taken", "Ola", "dzwonię dziś",
    )  # fmt: skip
    assert taken["state_at"] > lead["state_at"]
    assert set(await world.statuses()) == {"cancelled"}
    assert [each["id"] for each in await world.listed(state="taken")] == [lead["id"]]


async def test_the_requests_of_a_person_are_listed_and_name_each_other(world: World) -> None:
    await world.say("remont kuchni, 600 700 800, jan@example.com")
    [lead] = await world.listed()
    await put(world, lead["id"], "lost", reason="za drogo")
    await world.say("jednak wracam: remont salonu, 600 700 800", "another day")
    await world.say("a jeszcze =taras 20 m2, 600 700 800", "yet another day")
    await world.say("remont dachu, 600 700 801", "somebody else")
    table = await world.get("/api/leads", person="600 700 800", format="csv")
    rows = list(csv.DictReader(io.StringIO(table)))
    again, old = await world.listed(person="600 700 800")
    assert [old] == await world.listed(person="Jan@Example.com")
    assert (again["state"], old["state"], old["state_reason"]) == ("new", "lost", "za drogo")
    assert again["previous"] == {"id": old["id"], "state": "lost", "owner": "Ola"}
    assert (old["previous"], old["next"]) == (None, again["id"])
    assert again["also"][0].startswith("także: ")
    assert [row["previous"] for row in rows] == [old["id"], ""]
    assert "taras" in rows[0]["also"]


async def test_an_unknown_lead_is_404_and_a_wrong_state_422(world: World) -> None:
    for path, body, status in (
        (f"/api/leads/{uuid4()}/state", {"state": "won"}, 404),
        ("/api/leads/x/state", {"state": "won"}, 404),
        (f"/api/leads/{uuid4()}/state", {"state": "sold"}, 422),
        (f"/api/leads/{uuid4()}/state", {"state": "won", "by": "me"}, 422),
    ):
        assert (await world.post(path, body))[0] == status, path
    assert (await world.call("GET", f"/api/leads/{uuid4()}"))[0] == 404


async def test_one_lead_shows_why_it_has_its_score_and_what_was_said(world: World) -> None:
    await world.say("remont kuchni 12 m2, 60 tys., 600 700 801", "one")
    (lead,) = await world.listed()
    shown = await world.shown(lead["id"])
    assert shown["alert_ids"] == [lead["id"]]
    first = shown["conversation"][0]
    assert (first["author"], first["text"]) == ("lead", "remont kuchni 12 m2, 60 tys., 600 700 801")
    points = [int(reason.rpartition("(")[2].rstrip(")")) for reason in shown["score_reasons"]]
    assert points
    assert min(100, sum(points)) == shown["score"]


async def stats(world: World, **headers: str) -> dict[str, Any]:
    status, found = await world.call("GET", "/api/leads/stats", headers=headers)
    assert status == 200, found
    return dict(found)


async def test_stats_count_what_waits_who_has_it_and_how_fast_it_was_answered(world: World) -> None:
    empty = await stats(world)
    none: dict[str, Any] = {
        "leads": 0, "answered": 0, "due": 0, "within_hour": 0, "median_answer_seconds": None,
        "won": 0, "lost": 0, "won_values": {}, "lost_values": {},
    }  # fmt: skip
    assert empty["this_week"] == empty["week_before"] == none
    assert (empty["waiting"], empty["waiting_since"], len(empty["days"])) == (0, None, 14)
    await three(world)
    await world.say("remont dachu, 600 700 804", "four")
    await world.say("remont tarasu, 50 tys., 600 700 805", "five")
    leads = {lead["phone"] or "jan": lead["id"] for lead in await world.listed(topic="lead")}
    past = (("+48600700801", 2, 30), ("jan", 24 * 8, 90), ("+48600700804", 2, 0))
    for phone, hours, took in past:
        await backdate(world, leads[phone], hours)
        if took:
            await put(world, leads[phone], "taken")
            await backdate(world, leads[phone], hours, answered=took)
    await put(world, leads["jan"], "won", order_value=60_000)
    await put(world, leads["+48600700805"], "lost")
    ola = await stats(world, **{"X-Operator": "staff:7 Ola"})
    assert (ola["waiting"], ola["taken"], ola["mine"]) == (1, 1, 1)
    assert (await stats(world, **{"X-Operator": "staff:8 Ewa"}))["mine"] == 0
    assert ola["topics"] == {"complaint": 1}
    waiting = {lead["id"]: lead["state_at"] for lead in await world.listed(state="new")}
    assert ola["waiting_since"] == waiting[leads["+48600700804"]]
    assert ola["this_week"].pop("median_answer_seconds") in range(900, 960)
    del none["median_answer_seconds"]
    assert ola["this_week"] == none | {
        "leads": 3, "answered": 2, "due": 3, "within_hour": 2,
        "won": 1, "lost": 1, "won_values": {"PLN": 60_000}, "lost_values": {"PLN": 50_000},
    }  # fmt: skip
    assert ola["week_before"] == none | {
        "leads": 1, "answered": 1, "due": 1, "median_answer_seconds": 5400,
    }  # fmt: skip
    assert sum(day["leads"] for day in ola["days"]) == 4
    assert ola["days"][-1]["won"] == 1


async def backdate(world: World, lead: str, hours: int, *, answered: int | None = None) -> None:
    """Let a lead have come hours ago, and have been answered minutes later."""
    came = f"now() - make_interval(hours => {hours})"
    await world.sql(
        f"UPDATE lead SET created_at = {came}, "
        "state_at = CASE WHEN state = 'new' THEN created_at ELSE state_at END, "
        f"answered_at = {came} + make_interval(mins => CAST(:minutes AS integer))"
        " WHERE id = CAST(:lead AS uuid)",
        minutes=answered,
        lead=lead,
    )


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("zolc", ["one"]), ("ŻÓŁĆ", ["one"]), ("700 801", ["one"]), ("7008", ["three", "one"]),
        ("two@EXAMPLE", ["two"]), ("lazienki", ["two"]), ("płytki heksagonalne", ["two"]),
        ("heksa lazien", ["two"]), ("heksa kuchni", []), ("100%", []), ("a_b", []),
    ],
)  # fmt: skip
async def test_leads_are_found_by_parts_of_names_numbers_addresses_and_words(
    world: World, q: str, found: list[str]
) -> None:
    await world.say("remont kuchni 12 m2, nazywam się Jan Żółć, 600 700 801", "one")
    await world.say("remont łazienki, two@example.com", "two")
    await world.say("marzą mi się płytki heksagonalne", "two")
    await world.say("chcę zgłosić reklamację, 600 700 803", "three")
    await world.tell_staff(after=60)
    contacts = {"+48600700801": "one", "two@example.com": "two", "+48600700803": "three"}
    items = await world.listed(q=q)
    assert [contacts[item["phone"] or item["email"]] for item in items] == found


@pytest.mark.parametrize("q", ["", "ab", "a b c", "..."])
async def test_too_little_to_search_for_is_refused(world: World, q: str) -> None:
    assert (await world.call("GET", "/api/leads", params={"q": q}))[0] == 422


async def test_an_erasure_leaves_no_word_of_who_added_to_a_lead(world: World) -> None:
    await world.say("remont kuchni, 600 700 801", "one")
    await world.say("jeszcze pergola, 600 700 801, two@example.com", "two")
    await world.tell_staff(after=60)
    assert len(await world.listed(q="pergola")) == 1
    await world.erase("two@example.com")
    assert await world.listed(q="pergola") == []
    assert len(await world.listed(q="kuchni")) == 1
