"""The console on a desk and, without scripts, on a phone; by clicks and by keys."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from services.console.texts import TEXTS
from tests.pages.conftest import DESK, LOCALES, PHONE, entered, photograph
from tests.support.eventually import eventually
from tests.support.forms import submit
from tests.support.identity import running_provider
from tests.support.ports import Ports
from tests.support.stack import Stack
from tests.support.staff import invitation
from tests.support.system import LEAD, fresh_address

pytestmark = pytest.mark.pages

AXE = Path(__file__).parents[1] / "browsers/node_modules/axe-core/axe.min.js"
"""`make test-pages` installs it if npm is here."""

LOOKS = pytest.mark.parametrize(
    ("language", "scheme", "size"),
    [("pl", "light", PHONE), ("pl", "dark", DESK), ("en", "dark", PHONE), ("en", "light", DESK)],
)


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


@LOOKS
async def test_a_seller_takes_a_lead_and_closes_it(
    browser: Browser, stack: Stack, language: str, scheme: str, size: Any
) -> None:
    t, name = TEXTS[language], f"{language}-{scheme}-{size['width']}"
    email, phone = fresh_address(), f"+48600{abs(hash((language, scheme))) % 10**6:06}"
    text = f"{LEAD['message']} Jestem Jan Kowalski, Kraków. {email} {phone}"
    said = {**LEAD, "message": text, "session_id": email}
    assert (await stack.http("POST", "/api/chatbot/chat", said)).status == 200
    (lead,) = (await stack.http("GET", f"/api/leads?email={email}", key="service")).body["items"]
    path = f"/api/cases/{lead['id']}"

    async def asked() -> bool:
        return (await stack.http("GET", path, key="service")).status == 200

    await eventually(asked, 30)
    await submit(stack, {"email": fresh_address(), "name": "Jan"}, trap="x")
    page, complaints = await entered(browser, stack, language, scheme, size, "sales")
    await fits(page, f"inbox-{name}")
    await page.get_by_role("link", name=t["inbox_leads"].partition(":")[0]).click()
    await fits(page, f"leads-{name}")
    await page.locator(f"main a[href='/console/leads/{lead['id']}']").click()
    await fits(page, f"lead-new-{name}")
    await expect(page.locator(f".bar-acts a[href='tel:{phone}']")).to_be_visible()
    await page.get_by_role("button", name=t["do_taken"], exact=True).focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text(t["what_came_of_it"])).to_be_visible()
    await fits(page, f"lead-taken-{name}")
    await page.locator("summary", has_text=t["do_lost"]).click()
    await page.locator("#reason-lost").fill("wybrał inną firmę")
    await fits(page, f"lead-reason-{name}")
    await page.locator("details button[value=lost]").click()
    await expect(page.get_by_role("button", name=t["do_reopen"])).to_be_visible()
    await page.goto(f"{stack.url}/console/leads/suspected")
    await fits(page, f"suspected-{name}")
    assert complaints == []
    await page.context.close()


@LOOKS
async def test_somebody_who_asks_is_looked_up_and_erased(
    browser: Browser, stack: Stack, language: str, scheme: str, size: Any
) -> None:
    t, name = TEXTS[language], f"{language}-{scheme}-{size['width']}"
    email = fresh_address()
    await stack.opt_in(email)
    page, complaints = await entered(browser, stack, language, scheme, size, "privacy")
    await page.goto(f"{stack.url}/console/person")
    await fits(page, f"person-ask-{name}")
    await page.locator("#who").fill(email)
    await page.keyboard.press("Enter")
    await expect(page.get_by_text(t["trail_opt-in"], exact=True)).to_be_visible()
    assert page.url == f"{stack.url}/console/person"
    await fits(page, f"person-{name}")
    async with page.expect_download() as saved:
        await page.get_by_role("button", name=t["do_export"]).click()
    assert (await saved.value).suggested_filename == "person.json"
    await page.locator("#again").fill(email)
    await page.get_by_role("button", name=t["do_erase"]).click()
    await expect(page.get_by_text(t["person_erasing"])).to_be_visible()
    await fits(page, f"person-erased-{name}")
    assert complaints == []
    await page.context.close()


async def test_the_inbox_names_the_parts_that_are_away(browser: Browser, stack: Stack) -> None:
    page, _ = await entered(browser, stack, "pl", "light", PHONE, "sales", "ops")
    await stack.kill9("followups")
    try:
        await page.reload()
        await expect(page.get_by_text(TEXTS["pl"]["part_away"])).to_be_visible()
        await fits(page, "inbox-away")
    finally:
        await stack.start("followups")


async def test_the_company_account_opens_the_door(
    browser: Browser, stack: Stack, ports: Ports
) -> None:
    t, email = TEXTS["pl"], fresh_address()
    context = await browser.new_context(
        viewport=PHONE, locale=LOCALES["pl"], java_script_enabled=False
    )
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
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
            assert [each for each in said if "Failed to load resource" not in each] == []
        finally:
            stack.changes["console"] = {}
            await stack.kill9("console")
            await stack.start("console")
    await context.close()
