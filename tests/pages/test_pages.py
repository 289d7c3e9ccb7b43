"""From the link in a mail to "done", as a person does it on a phone, in both languages."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.integration.system.test_person import done
from tests.pages.conftest import PHONE, Visitor, photograph
from tests.support.stack import Stack
from tests.support.system import WORDING as FORM
from tests.support.system import fresh_address

pytestmark = pytest.mark.pages

WORDING = FORM.text
AXE = Path(__file__).parents[1] / "browsers/node_modules/axe-core/axe.min.js"
LANGUAGES = pytest.mark.parametrize("language", ["pl", "en"])
WORDS: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_name("words.toml").read_text(encoding="utf-8")
)
CONTRASTS = Path(__file__).with_name("contrasts.js").read_text(encoding="utf-8")
OTHER = {"pl": "en", "en": "pl"}


async def subscriber(stack: Stack) -> tuple[str, str]:
    """Return an address that has agreed, and the unsubscribe link of the mail it got."""
    address = fresh_address()
    answer = await stack.http(
        "POST", "/api/opt-in", {"email": address, "text": WORDING, "language": "pl"}
    )
    assert answer.status == 200, answer
    await stack.follow_up(address)
    return address, stack.url + await stack.link(address, "/unsubscribe")


async def returning(stack: Stack, language: str) -> tuple[str, str]:
    """Return an address that withdrew and agrees anew, and the link that confirms it."""
    address = fresh_address()
    await stack.http("POST", "/api/unsubscribe", {"email": address})
    agreed = {"email": address, "text": WORDING, "language": language}
    await stack.http("POST", "/api/opt-in", agreed)
    return address, stack.url + await stack.link(address, "/opt-in/confirm")


async def agrees(stack: Stack, address: str) -> bool:
    return bool((await stack.consents(address))["consents"]["marketing"])


async def is_well_made(page: Page, language: str) -> None:
    """One heading, its language, nothing wider than the phone, targets that a thumb hits."""
    await expect(page.locator("html")).to_have_attribute("lang", language)
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert await page.title() == await page.get_by_role("heading", level=1).inner_text()
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    for target in await page.locator("a, button").all():
        box = await target.bounding_box()
        assert box is not None
        assert box["height"] >= 44, await target.inner_text()
    for line in await page.evaluate(CONTRASTS):
        assert line["ratio"] >= 4.5, line


async def press(page: Page, label: str) -> None:
    obvious = page.get_by_role("button").first
    await expect(obvious).to_have_accessible_name(label)
    await obvious.click()


async def says(page: Page, title: str) -> None:
    await expect(page.get_by_role("heading", level=1)).to_have_text(title)


@LANGUAGES
async def test_unsubscribing_from_the_mail_s_link_to_done(
    stack: Stack, visitor: Visitor, language: str
) -> None:
    address, link = await subscriber(stack)
    words = WORDS[language]
    async with visitor(language) as page:
        await page.goto(link)
        await is_well_made(page, language)
        await expect(page.get_by_text(address)).to_be_visible()
        await photograph(page, f"unsubscribe-{language}")
        assert await agrees(stack, address)
        await press(page, words["unsubscribe"])
        await says(page, words["done"])
        await is_well_made(page, language)
        await photograph(page, f"unsubscribed-{language}")
    assert not await agrees(stack, address)


@LANGUAGES
async def test_looking_at_the_preferences_and_withdrawing_there(
    stack: Stack, visitor: Visitor, language: str
) -> None:
    address, link = await subscriber(stack)
    words = WORDS[language]
    async with visitor(language) as page:
        await page.goto(link)
        await page.get_by_role("link", name=words["more"]).click()
        await is_well_made(page, language)
        quote = page.get_by_text(WORDING)
        await expect(quote).to_be_visible()
        await expect(quote).to_have_attribute("lang", "pl")  # read out as it was written
        await photograph(page, f"preferences-{language}")
        await page.get_by_label(words["often"]).select_option("weekly")
        await page.get_by_label(words["pause"], exact=True).select_option("30")
        await page.get_by_role("button", name=words["save"]).click()
        await says(page, words["saved"])
        await is_well_made(page, language)
        await page.get_by_role("link", name=words["more"]).click()
        await expect(page.get_by_label(words["often"])).to_have_value("weekly")
        await expect(page.get_by_label(words["pause"], exact=True)).to_have_value("keep")
        await press(page, words["withdraw"])
        await says(page, words["done"])
        await is_well_made(page, language)
        await page.get_by_role("link", name=words["more"]).click()
        await expect(page.get_by_role("button")).to_have_count(1)  # to agree again
        await is_well_made(page, language)
        await photograph(page, f"preferences-none-{language}")
    assert not await agrees(stack, address)


@LANGUAGES
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_preferences_fit_every_screen_and_axe_finds_nothing(
    stack: Stack, browser: Browser, language: str, scheme: Any
) -> None:
    _, link = await subscriber(stack)
    for width in (320, 390, 1280):
        has_scripts = width == 1280  # for axe; the page has none
        async with await browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            java_script_enabled=has_scripts,
        ) as context:
            page = await context.new_page()
            await page.goto(link.replace("/unsubscribe?", "/preferences?") + f"&lang={language}")
            await expect(page.locator("select")).to_have_count(2)
            wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not wide, width
            await photograph(page, f"preferences-{language}-{scheme}-{width}", whole=True)
            if has_scripts and AXE.exists():
                await page.evaluate(AXE.read_text(encoding="utf-8"))
                found = await page.evaluate("axe.run({resultTypes: ['violations']})")
                assert [(each["id"], each["nodes"]) for each in found["violations"]] == []


@LANGUAGES
async def test_confirming_an_opt_in_from_the_mail_s_link_to_done(
    stack: Stack, visitor: Visitor, language: str
) -> None:
    address, link = await returning(stack, language)
    words = WORDS[language]
    async with visitor(language) as page:
        await page.goto(link)
        await is_well_made(page, language)
        await expect(page.get_by_text(WORDING)).to_be_visible()
        await photograph(page, f"opt-in-{language}")
        assert not await agrees(stack, address)
        await press(page, words["agree"])
        await says(page, words["agreed"])
        await is_well_made(page, language)
        assert await agrees(stack, address)
        await page.goto(link)
        await is_well_made(page, language)
        await expect(page.get_by_role("button", name=words["agree"])).to_have_count(0)
        await photograph(page, f"opt-in-used-{language}")


@LANGUAGES
async def test_refusing_an_opt_in_from_the_mail_s_link_ends_the_asking(
    stack: Stack, visitor: Visitor, language: str
) -> None:
    address, link = await returning(stack, language)
    words = WORDS[language]
    async with visitor(language) as page:
        await page.goto(link)
        await page.get_by_role("button", name=words["refuse"]).click()
        await says(page, words["refused"])
        await is_well_made(page, language)
        await photograph(page, f"opt-in-refused-{language}")
    before = len(await stack.sandbox.mails(address))
    await stack.http(
        "POST", "/api/opt-in", {"email": address, "text": WORDING, "language": language}
    )
    assert not await agrees(stack, address)
    assert len(await stack.sandbox.mails(address)) == before


@LANGUAGES
async def test_confirming_an_erasure_from_the_mail_s_link_to_done(
    stack: Stack, visitor: Visitor, language: str
) -> None:
    address = fresh_address()
    await stack.opt_in(address)
    await stack.http("POST", "/api/revoke-consent", {"email": address})
    link = stack.url + await stack.link(address, "/erasure/confirm")
    words = WORDS[language]
    async with visitor(language) as page:
        await page.goto(link)
        await is_well_made(page, language)
        await photograph(page, f"erasure-{language}")
        await press(page, words["erase"])
        await says(page, words["erased"])
        await is_well_made(page, language)
        await photograph(page, f"erasure-done-{language}")

    await done(stack, address)
    assert (await stack.audit(address))["entries"] == []


@LANGUAGES
async def test_the_switch_of_language_keeps_the_link_and_its_button_acts(
    stack: Stack, visitor: Visitor, language: str
) -> None:
    address, link = await returning(stack, language)
    other = OTHER[language]
    async with visitor(language) as page:
        await page.goto(link)
        await page.get_by_role("link", name=WORDS[language]["other"]).click()
        await is_well_made(page, other)
        await press(page, WORDS[other]["agree"])
        await says(page, WORDS[other]["agreed"])
    assert await agrees(stack, address)


async def test_the_keyboard_alone_is_enough_and_shows_where_it_is(
    stack: Stack, visitor: Visitor
) -> None:
    address, link = await subscriber(stack)
    async with visitor("en") as page:
        await page.goto(link)
        focused = page.locator(":focus")
        for name in ("Polski", "Unsubscribe", "See what you agreed to"):
            await page.keyboard.press("Tab")
            await expect(focused).to_have_accessible_name(name)
            style = await focused.evaluate(
                "e => [getComputedStyle(e).outlineStyle, getComputedStyle(e).outlineWidth]"
            )
            assert style == ["solid", "3px"]
        await photograph(page, "focus")
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await says(page, "Done: no more marketing messages")
    assert not await agrees(stack, address)
