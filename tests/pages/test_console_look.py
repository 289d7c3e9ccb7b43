"""The console's pages in a browser, over a company that tests/support/owners.py makes up: they fit
each screen, axe is content, keys work, and everyday tasks take few clicks.
"""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from services.console.texts import TEXTS
from tests.pages.conftest import photograph
from tests.pages.test_console import AXE
from tests.support.owners import EWA, Owners, lead
from tests.unit.console.test_look import (  # noqa: F401 - fixtures
    ONE,
    PAGES,
    nothing_stored,
    served,
)

pytestmark = pytest.mark.pages

PL = TEXTS["pl"]
SCREENS = ((320, "light"), (768, "dark"), (1280, "light"), (1280, "dark"))
MINE = next(one["id"] for one in map(lead, range(300)) if one["owner"] == EWA)


@pytest.fixture
async def page(
    browser: Browser,
    served: tuple[Owners, str],  # noqa: F811
) -> AsyncIterator[Page]:
    owners, url = served
    owners.leads = [lead(n) for n in range(300)]
    context = await browser.new_context(
        viewport={"width": 1280, "height": 900}, base_url=url, locale="pl-PL"
    )
    opened = await context.new_page()
    await opened.goto("/console/")
    yield opened
    await context.close()


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
async def test_each_page_fits_and_axe_is_content(page: Page, width: int, scheme: Any) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for path in (*PAGES, f"leads/{MINE}", f"leads/{MINE}?did=taken"):
        await page.goto(f"/console/{path}")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
        name = re.sub(r"\W+", "-", path.replace(ONE, "one").replace(MINE, "mine"))
        await photograph(page, f"look-{name}-{width}-{scheme}")
        await axe_is_content(page, path)


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
async def test_each_form_that_opens_fits_and_axe_is_content(
    page: Page, width: int, scheme: Any
) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for path in ("oncall", "silences", "staff", "keys", "heartbeats", f"leads/{MINE}"):
        await page.goto(f"/console/{path}")
        await page.evaluate(
            "for (const each of [...document.querySelectorAll('main details')].reverse())"
            " each.open = true"  # of a list's menus, one is open at a time: the first, here
        )
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
        await axe_is_content(page, path)


MOVED = """Promise.race([
    Promise.all(document.getAnimations().map((each) => each.finished.catch(() => {}))),
    new Promise((done) => setTimeout(done, 2000))
]).then(() => {})"""


async def axe_is_content(page: Page, path: str) -> None:
    if AXE.exists():
        await page.evaluate(MOVED)  # a colour that is still changing has another contrast
        await page.evaluate(AXE.read_text(encoding="utf-8"))
        found = await page.evaluate("axe.run({resultTypes: ['violations']})")
        assert [(each["id"], each["nodes"]) for each in found["violations"]] == [], path


async def take_the_oldest_and_call(page: Page, click: Callable[..., Any]) -> None:
    await click(page.get_by_role("button", name=PL["do_taken"], exact=True).first)


async def find_somebody_by_half_a_number(page: Page, click: Callable[..., Any]) -> None:
    await page.locator("[type=search]").fill("088 6")
    await click(page.get_by_role("button", name=PL["find"]))
    await click(page.locator(".t a", has_text="+48").first)
    await expect(page.get_by_text(PL["who_it_is"])).to_be_visible()


async def see_why_slack_is_silent(page: Page, click: Callable[..., Any]) -> None:
    await click(page.get_by_role("link", name=PL["inbox_breakers"].partition(":")[0]))
    await expect(page.get_by_text("invalid_token")).to_be_visible()


async def see_who_is_on_call_on_saturday(page: Page, click: Callable[..., Any]) -> None:
    await click(page.get_by_role("link", name=PL["group_alerts"]).first)
    await click(page.get_by_role("link", name=PL["oncall"]))
    await expect(page.locator(".week li", has_text="sob.").first).to_contain_text("Lis")


async def get_to_erase_somebody(page: Page, click: Callable[..., Any]) -> None:
    await click(page.get_by_role("link", name=PL["group_people"]).first)
    await expect(page.locator("#who")).to_be_visible()


@pytest.mark.parametrize(
    ("task", "most"),
    [
        (take_the_oldest_and_call, 2),  # and one to call
        (find_somebody_by_half_a_number, 3),
        (see_why_slack_is_silent, 2),
        (see_who_is_on_call_on_saturday, 2),
        (get_to_erase_somebody, 2),  # then: look, erase
    ],
)
async def test_an_everyday_task_takes_few_clicks(
    page: Page, task: Callable[..., Any], most: int
) -> None:
    clicks = 0

    async def click(what: Any) -> None:
        nonlocal clicks
        clicks += 1
        await what.click()

    await task(page, click)
    assert 0 < clicks <= most


async def test_keys_go_from_row_to_row_open_one_search_and_say_so(page: Page) -> None:
    rows = page.locator(".t a")
    for key, focused in (("j", 0), ("j", 1), ("k", 0)):
        await page.keyboard.press(key)
        await expect(rows.nth(focused)).to_be_focused()
    await page.keyboard.press("?")
    await expect(page.get_by_text(PL["keys_3"])).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("/")
    await expect(page.locator("[type=search]")).to_be_focused()
    await page.keyboard.type("jkt?")  # in a field they are letters
    await expect(page.locator("[type=search]")).to_have_value("jkt?")
    await rows.first.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text(PL["who_it_is"])).to_be_visible()
