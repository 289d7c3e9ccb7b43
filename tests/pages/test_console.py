"""The console on a desk and, without scripts, on a phone; by clicks and by keys."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from services.console.texts import TEXTS
from tests.pages.conftest import DESK, LOCALES, PHONE, photograph
from tests.support.identity import running_provider
from tests.support.ports import Ports
from tests.support.stack import Stack
from tests.support.staff import invitation
from tests.support.system import fresh_address

pytestmark = pytest.mark.pages

AXE = Path(__file__).parents[1] / "browsers/node_modules/axe-core/axe.min.js"
"""`make test-pages` installs it if npm is here."""


@pytest.fixture(scope="module")
def stack(console_stack: Stack) -> Stack:
    return console_stack


async def fits(page: Page, name: str) -> None:
    """Hold that nothing is wider than the screen, a thumb meets each button, and axe is content."""
    wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide, name
    least = 44 if page.viewport_size == PHONE else 32
    for button in await page.locator("main button:visible, main a.button:visible").all():
        box = await button.bounding_box()
        assert box is None or box["height"] >= least, name  # None: it refreshed meanwhile
    await photograph(page, name)
    if AXE.exists() and page.viewport_size == DESK:  # it needs scripts
        await page.evaluate(AXE.read_text(encoding="utf-8"))
        found = await page.evaluate("axe.run({resultTypes: ['violations']})")
        assert [(each["id"], each["nodes"]) for each in found["violations"]] == [], name


async def test_the_company_account_opens_the_door(
    browser: Browser, stack: Stack, ports: Ports
) -> None:
    t, email = TEXTS["pl"], fresh_address()
    context = await browser.new_context(
        viewport=PHONE, locale=LOCALES["pl"], java_script_enabled=False
    )
    page = await context.new_page()
    said: list[tuple[str, str]] = []
    page.on("console", lambda each: said.append((each.location["url"], each.text)))
    with running_provider(ports.take()) as provider:
        stack.changes["console"] = provider.settings
        await stack.kill9("console")
        await stack.start("console")
        try:
            link = await invitation(stack, email, "sales", language="pl")
            await provider.put("jan", email=email, email_verified=True)
            await page.goto(stack.url + link)
            await fits(page, "join-oidc")
            await page.get_by_role("button", name=t["oidc_button"]).click()
            await page.locator("input[name=sub]").fill("jan")
            await page.keyboard.press("Enter")
            await expect(page).to_have_url(f"{stack.url}/console/")
            # The provider's own page has `autofocus`, which may come after `fill` gave focus.
            own = [text for url, text in said if not url.startswith(provider.url)]
            assert [each for each in own if "Failed to load resource" not in each] == []
        finally:
            stack.changes["console"] = {}
            await stack.kill9("console")
            await stack.start("console")
    await context.close()
