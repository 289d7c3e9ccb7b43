"""Taps through the API: one turn each, in the rows and messages of a message."""

import hashlib
import re
from typing import Any

import pytest

from tests.integration.followups.conftest import CONFIG, REFUSED, World

PATH = "/api/chatbot/chat"
LEAD = "Remont łazienki 8 m2, budżet 40 tys., od marca, jan@example.com"
SESSION = {"session_id": "abc"}
WORDING = CONFIG.texts["pl"]["consent_wording"]


async def tap(world: World, ask: dict[str, Any] | str, **given: Any) -> tuple[int, Any]:
    ask = ask if isinstance(ask, str) else ask["id"]
    return await world.post(PATH, SESSION | {"tap": {"ask": ask, **given}})


async def test_the_opening_offers_chips_in_each_language_and_stores_nothing(world: World) -> None:
    labels = []
    for language in ("pl", "en-GB", "fr"):
        opening = await world.get(PATH, language=language)
        assert 1 < len(opening["ask"]["choices"]) <= 5
        labels.append(opening["ask"]["choices"][0]["label"])
    assert labels == ["Wycena", "A quote", "Wycena"]
    assert await world.conversations() == 0


async def test_a_request_made_of_taps_is_a_lead_with_its_transcript(world: World) -> None:
    ask: Any = "opening-0"
    for given in (
        {"choice": "quote"}, {"choice": "whole"}, {"choice": "30-60"}, {"value": 45000},
        {"value": "2040-01"}, {"value": "600 700 800"},
    ):  # fmt: skip
        status, answer = await tap(world, ask, **given)
        if given.get("value") == "2040-01":
            assert status == 422
            assert [each["field"] for each in answer["errors"]] == ["tap.value"]
            status, answer = await tap(world, ask, choice="asap")
        assert status == 200
        ask = answer["ask"] or ask
    assert await world.said("lead") == [
        "Wycena", "Wykończenie całości", "30-60 m²", "45\xa0000\xa0zł", "jak najszybciej",
        "+48\xa0600\xa0700\xa0800",
    ]  # fmt: skip
    [lead] = await world.outbox("lead.qualified")
    assert lead["phone"] == "+48600700800"
    assert "30-60 m²" in lead["summary"]
    assert {"name": "area", "label": "Metraż", "value": 60, "text": "30-60 m²", "sure": True} in (
        answer["card"]
    )


async def test_a_tapped_consent_is_recorded_with_its_wording_and_a_no_withdraws_it(
    world: World,
) -> None:
    _, answer = await world.post(PATH, SESSION | {"message": LEAD})
    ask = answer["ask"]
    assert answer["reply"].endswith(WORDING)
    assert ask["wording"]["text"] == WORDING
    shown = hashlib.sha256(WORDING.encode()).hexdigest()
    assert ask["wording"]["sha256"] == shown
    for wording in ({}, {"wording": "0" * 64}):
        status, again = await tap(world, ask, choice="yes", **wording)
        assert (status, again["ask"]) == (200, ask)
    assert await world.outbox("grant.record") == []
    await tap(world, ask, choice="yes", wording=shown)
    assert [grant["wording"] for grant in await world.outbox("grant.record")] == [WORDING]
    await world.post(PATH, SESSION | {"message": "dziękuję"})
    assert await world.outbox("withdrawal.record") == []
    status, answer = await tap(world, ask, choice="no")
    assert (status, answer["ask"]) == (200, None)
    [withdrawal] = await world.outbox("withdrawal.record")
    assert withdrawal["email"] == "jan@example.com"


async def test_an_older_tap_leaves_the_conversation_as_it_is(world: World) -> None:
    _, answer = await world.post(PATH, SESSION | {"message": "Dzień dobry"})
    old = answer["ask"]
    _, now = await tap(world, old, choice="kitchen")
    before = await world.said("lead")
    for ask in (old["id"], "area-99", "nothing"):
        status, answer = await tap(world, ask, choice="kitchen")
        assert (status, answer["ask"], answer["card"]) == (200, now["ask"], now["card"])
        assert answer["reply"] == CONFIG.texts["pl"]["ask_area"]
    assert await world.said("lead") == before
    status, _ = await world.post(
        PATH, {"session_id": "new", "tap": {"ask": "area-9", "choice": "0-30"}}
    )
    assert (status, await world.conversations()) == (200, 1), (
        "a tap that is not taken stores nothing"
    )


async def test_a_consent_is_recorded_in_the_language_of_its_wording_whatever_the_page_says(
    world: World,
) -> None:
    _, answer = await world.post(PATH, SESSION | {"message": LEAD})
    wording = answer["ask"]["wording"]
    tapped = {"ask": answer["ask"]["id"], "choice": "yes", "wording": wording["sha256"]}
    await world.post(PATH, SESSION | {"language": "en", "tap": tapped})
    [grant] = await world.outbox("grant.record")
    assert (grant["language"], grant["wording"]) == ("pl", WORDING)


async def test_a_tap_that_says_what_is_not_offered_is_refused_and_nothing_changes(
    world: World,
) -> None:
    for body, field in REFUSED["tap"]:
        status, answer = await world.post(PATH, SESSION | body)
        assert (status, [each["field"] for each in answer["errors"]]) == (422, [field]), body
    assert await world.said("lead") == []
    assert await world.conversations() == 0


class Page:
    """A browser without scripts: it sends the fields of the form that a button stands in."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.html = ""

    async def open(self, **query: str) -> "Page":
        self.html = await self._world.get("/chat", **query)
        return self

    async def send(self, **fields: str) -> int:
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', self.html))
        kept = {name: hidden[name] for name in ("session", "language", "replies")}
        if "message" not in fields:
            kept |= {name: hidden[name] for name in ("ask", "wording") if name in hidden}
            ids = re.findall(r'name="ask" value="(?!card)([^"]*)"', self.html)
            kept["ask"] = ids[0] if ids else "card"
        self.fields = kept | fields
        return await self.again()

    async def again(self) -> int:
        """As the browser does where the page is loaded once more."""
        status, self.html = await self._world.call("POST", "/chat", data=self.fields)
        return status


async def test_a_request_is_made_without_a_script_and_what_is_sent_twice_is_one_turn(
    world: World,
) -> None:
    page = await Page(world).open()
    for fields in (
        {"choice": "quote"}, {"choice": "kitchen"}, {"number": "12,5"}, {"number": "60"},
        {"choice": "asap"}, {"choice": "email"}, {"value": "jan@example.com"},
    ):  # fmt: skip
        assert await page.send(**fields) == 200
    assert "60\xa0000\xa0zł" in page.html, "read as a message"
    assert 'name="wording"' in page.html
    assert await page.again() == 200
    assert await page.send(choice="yes") == 200
    await page.send(message="Proszę dzwonić po 16")
    await page.again()
    lines = await world.said("lead")
    assert len(lines) == 9
    assert (lines[2], lines[-2:]) == ("12,5 m²", ["Tak", "Proszę dzwonić po 16"])
    [grant] = await world.outbox("grant.record")
    assert (grant["email"], grant["wording"]) == ("jan@example.com", WORDING)


async def test_a_page_that_sends_nonsense_is_shown_again_and_nothing_changes(world: World) -> None:
    page = await Page(world).open(language="en")
    for fields in ({"choice": "pizza"}, {"message": " "}):
        assert await page.send(**fields) == 422
        assert "A quote" in page.html
    assert await world.conversations() == 0
    await page.send(choice="quote")
    await page.send(choice="kitchen")
    for fields in (
        {"number": "999999"}, {"choice": "pizza"}, {"message": ""},
        {"value": "<b>"}, {"language": "xx", "choice": "pizza"},
    ):  # fmt: skip
        assert await page.send(**fields) == 422, fields
        assert "Roughly what is the floor area?" in page.html or "Jaki" in page.html
    assert await world.said("lead") == ["A quote", "Kitchen"]


@pytest.mark.parametrize(
    "typed", [{"message": "Numer 600 700 800\n\ntak"}, {"value": "600 700 800"}]
)
async def test_what_is_typed_on_an_old_page_is_given_back_and_answers_nothing(
    world: World, typed: dict[str, str]
) -> None:
    page = await Page(world).open()
    await page.send(choice="human")
    old = page.html
    await page.send(choice="email")
    page.html = old
    typed = {name: text.replace("\n", "\r\n") for name, text in typed.items()}
    assert await page.send(**typed) == 200
    [text] = re.findall(r"<textarea[^>]*>([^<]*)</textarea>", page.html)
    assert [text] == [each.replace("\r", "") for each in typed.values()]
    assert 'role="alert"' in page.html
    assert "600" not in " ".join(await world.said("lead"))
    assert await page.send(message=text) == 200
    assert "600" in (await world.said("lead"))[-1]
    assert 'role="alert"' not in page.html


async def test_a_fact_of_the_card_that_is_tapped_and_loaded_once_more_is_one_turn(
    world: World,
) -> None:
    page = await Page(world).open()
    await page.send(message="remont kuchni 12 m2")
    await page.send(ask="card", choice="area")
    await page.again()
    assert len(await world.said("lead")) == 2


async def test_the_length_that_a_page_allows_is_taken_with_its_line_ends(world: World) -> None:
    page = await Page(world).open()
    assert await page.send(message="\r\n".join(["ab"] * 1300)) == 200


async def test_another_site_cannot_choose_the_conversation_of_a_visitor(world: World) -> None:
    page = await Page(world).open()
    await page.send(choice="quote")
    for site, kept in (("same-origin", True), ("cross-site", False), ("same-site", False)):
        headers = {"Sec-Fetch-Site": site}
        _, html = await world.call("POST", "/chat", data=page.fields, headers=headers)
        assert (page.fields["session"] in html) == kept


async def test_what_a_visitor_wrote_is_no_markup_on_the_page(world: World) -> None:
    page = await Page(world).open()
    await page.send(message="<script>alert(1)</script> remont kuchni <i>12 m2</i>")
    assert "<script>" not in page.html
    assert "<i>" not in page.html
