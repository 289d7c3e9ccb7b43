"""The console's pages of on-call on a phone without scripts, over a whole system."""

import pytest
from playwright.async_api import Browser, Page, expect

from services.console.texts import TEXTS
from tests.pages.conftest import LOCALES, PHONE, photograph, unfold
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.staff import PASSWORD, SILENCEABLE, invitation
from tests.support.system import fresh_address

pytestmark = pytest.mark.pages


@pytest.fixture(scope="module")
def stack(console_stack: Stack) -> Stack:
    return console_stack


async def test_a_silence_is_made_by_keys_and_a_heartbeat_by_clicks(
    stack: Stack, browser: Browser
) -> None:
    texts = TEXTS["pl"]
    context = await browser.new_context(
        viewport=PHONE, locale=LOCALES["pl"], java_script_enabled=False
    )
    page = await context.new_page()
    await page.goto(stack.url + await invitation(stack, fresh_address(), "ops", language="pl"))
    await page.fill("#password", PASSWORD)
    await page.click("main button")
    await silence(page, stack, texts)
    await watch(page, stack, texts)
    await context.close()


async def test_a_case_that_breaks_the_timer_says_so_until_it_moves_again(
    stack: Stack, browser: Browser
) -> None:
    case_id = await stack.alert("Kopia zapasowa się nie udała", event_type=SILENCEABLE)
    texts, link = TEXTS["pl"], f"/console/cases/{case_id}"

    async def opened() -> bool:
        return (await stack.http("GET", f"/api/cases/{case_id}", key="service")).status == 200

    await eventually(opened, 30)
    this = "UPDATE alerts.alert_case SET next_at = now(){} WHERE alert_id = %s RETURNING failures"
    (before,) = stack.query(
        "SELECT chain::text FROM alerts.alert_case WHERE alert_id = %s", case_id
    )
    context = await browser.new_context(
        viewport=PHONE, locale=LOCALES["pl"], java_script_enabled=False
    )
    page = await context.new_page()
    await page.goto(stack.url + await invitation(stack, fresh_address(), "ops", language="pl"))
    await page.fill("#password", PASSWORD)
    await page.click("main button")
    said = page.locator(".said", has_text=texts["case_fails"])
    paths = ("/console/cases", link)

    async def shown(*, fails: bool) -> None:
        for path in paths:
            await page.goto(stack.url + path)
            await expect(page.locator(f"a[href='{link}'], h1").first).to_be_visible()
            await expect(said).to_have_count(int(fails))

    await shown(fails=False)
    stack.query(this.format(""", chain = '[{"step": "of a release that is to come"}]'"""), case_id)

    async def failed() -> bool:
        (row,) = stack.query(this.format(""), case_id)
        return bool(row.failures > 1)

    await eventually(failed, 30)
    await shown(fails=True)
    await photograph(page, "console-case-fails-pl", whole=True)
    stack.query(this.format(f", chain = '{before.chain}'"), case_id)

    async def moves() -> bool:
        (row,) = stack.query("SELECT failures FROM alerts.alert_case WHERE alert_id = %s", case_id)
        return bool(row.failures == 0)

    await eventually(moves, 30)
    await shown(fails=False)
    await context.close()


async def watch(page: Page, stack: Stack, texts: dict[str, str]) -> None:
    """Make a heartbeat, see its URL, pause and delete it."""
    await page.goto(f"{stack.url}/console/heartbeats")
    await unfold(page)
    for field, text in (("name", "Import cen"), ("when", "1h")):
        await page.fill(f"#{field}", text)
    await page.click("main form[action='/console/heartbeats'] button")
    mine = page.locator("li", has_text="Import cen")
    for button in ("beat_pause", "beat_resume"):
        await mine.locator("summary").click()
        await mine.get_by_role("button", name=texts[button]).click()
        await expect(mine.locator("details[open]")).to_have_count(0)
    await mine.locator("summary").click()
    await expect(mine.locator("code")).to_contain_text("/ping/")
    await photograph(page, "console-heartbeats", whole=True)
    await mine.get_by_role("button", name=texts["beat_delete"]).click()
    await expect(page.locator("main")).not_to_contain_text("Import cen")


async def silence(page: Page, stack: Stack, texts: dict[str, str]) -> None:
    """Begin a silence by keyboard alone."""
    await page.goto(f"{stack.url}/console/silences")
    await unfold(page)
    await page.focus("[name=value]")
    await page.keyboard.type(SILENCEABLE)
    while not await page.evaluate("document.activeElement.name === 'reason'"):
        await page.keyboard.press("Tab")
    await page.keyboard.type("remont biura")
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text("remont biura")
    await expect(page.get_by_role("button", name=texts["end_silence"]).first).to_be_visible()
