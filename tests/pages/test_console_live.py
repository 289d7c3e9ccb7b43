"""A page of the console that refreshes itself, in a browser with scripts."""

import re

import pytest
from playwright.async_api import Browser, expect

from services.console.texts import TEXTS
from tests.integration.console.conftest import Console, idle_console  # noqa: F401 - a fixture
from tests.integration.console.test_live import Owners, owners  # noqa: F401 - a fixture
from tests.integration.console.test_people import invite
from tests.pages.conftest import DESK
from tests.pages.test_console import fits
from tests.support.staff import PASSWORD

pytestmark = pytest.mark.pages
EN = TEXTS["en"]


async def test_an_open_page_shows_what_changes_but_not_to_somebody_who_writes(
    browser: Browser,
    owners: Owners,  # noqa: F811
    idle_console: Console,  # noqa: F811
) -> None:
    console = idle_console
    console.environment["PUBLIC_BASE_URL"] = console.url
    await console.start()
    key = {"X-Internal-Key": console.key}
    context = await browser.new_context(viewport=DESK, extra_http_headers=key)
    page, said = await context.new_page(), []
    context.on("console", lambda message: said.append(message.text))
    await page.goto(console.url + await invite(console, roles=["ops"]))
    await page.locator("input[type=password]").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{console.url}/console/")
    writing = await context.new_page()
    await writing.goto(f"{console.url}/console/targets")
    await page.goto(f"{console.url}/console/targets")
    delivered = f"{EN['state_delivered']}: "
    await expect(page.locator("main")).to_contain_text(f"{delivered}1")
    await writing.evaluate("document.dispatchEvent(new Event('input'))")
    await fits(page, "targets-live")
    owners.delivered = 777
    await expect(page.locator("main")).to_contain_text(f"{delivered}777", timeout=30_000)
    await expect(writing.locator("main")).to_contain_text(f"{delivered}1")
    console.query("UPDATE staff_session SET ended_at = now()")
    await expect(page).to_have_url(re.compile("/console/login"), timeout=30_000)
    assert said == []
    await context.close()
