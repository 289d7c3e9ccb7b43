"""The console's pages of on-call and sales in a browser: on a phone and a desk, light and dark.

The pictures of docs/console.md are of tests/support/owners.py, which stands for the gateway.
"""

from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from services.console.texts import TEXTS
from tests.pages.conftest import DESK, LOCALES, PHONE, photograph
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.staff import PASSWORD, SILENCEABLE, invitation
from tests.support.system import fresh_address

pytestmark = pytest.mark.pages

SIZES: dict[str, Any] = {"phone": PHONE, "desk": DESK}
TITLES = ("cases", "alerts", "targets", "limits", "silences", "oncall", "followups", "heartbeats")


@pytest.fixture(scope="module")
def stack(console_stack: Stack) -> Stack:
    return console_stack


@pytest.fixture
async def troubled(stack: Stack) -> dict[str, str]:
    """Something on each page; return the paths of an alert that failed, and of a case."""
    await stack.sandbox.behave("slack", status=500)
    await stack.sandbox.behave("monday", status=400)
    for _ in range(6):
        await stack.alert("Formularz kontaktowy: nowe zapytanie")
    alert_id = await stack.alert("Anna Nowak, +48 600 700 800", target="monday")

    async def failed() -> bool:
        return bool((await stack.state(alert_id)).get("state") == "failed")

    await eventually(failed, 30)
    step = {"email": fresh_address(), "sequence": "default", "delay_seconds": 86_400}
    await stack.http("POST", "/api/followups", step, key="service")
    await stack.http("PUT", "/api/ratelimits", {"chat": "20 per minute"}, key="admin")
    job = {"name": "Nocna kopia sklepu", "every": "1d", "grace": "1h"}
    made = await stack.http("POST", "/api/heartbeats", job, key="admin")
    await stack.http("GET", urlsplit(made.body["url"]).path + "/3")
    case_id = await stack.alert("Kopia zapasowa się nie udała", event_type="lead.test")

    async def asked() -> bool:
        found = await stack.http("GET", f"/api/cases/{case_id}", key="service")
        return bool(found.body.get("steps"))

    await eventually(asked, 30)
    return {"alert": f"/console/alerts/{alert_id}", "case": f"/console/cases/{case_id}"}


@pytest.mark.parametrize("language", ["pl", "en"])
async def test_each_page_fits_a_phone_and_a_desk_in_both_schemes(
    stack: Stack, browser: Browser, troubled: dict[str, str], language: str
) -> None:
    link = await invitation(stack, fresh_address(), "ops", "sales", language=language)
    context = await browser.new_context(locale=LOCALES[language], java_script_enabled=False)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    await page.goto(stack.url + link)
    await page.fill("#password", PASSWORD)
    await page.click("main button")
    await silence(page, stack, TEXTS[language])
    await watch(page, stack, TEXTS[language])
    begun = await many(page, stack)
    for size, viewport in SIZES.items():
        await page.set_viewport_size(viewport)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            for title in (*TITLES, "alert", "case", "bulk"):
                path = (troubled | {"bulk": begun}).get(title, f"/console/{title}")
                await page.goto(stack.url + path)
                await expect(page.locator("h1")).to_contain_text(TEXTS[language][title])
                width = await page.evaluate("document.documentElement.scrollWidth")
                assert width <= viewport["width"], (title, size)
                await photograph(page, f"console-{title}-{language}-{size}-{scheme}", whole=True)
    assert complaints == []
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


async def many(page: Page, stack: Stack) -> str:
    """Retry all that wait, and return the path of the page that says how far it is."""
    await page.goto(f"{stack.url}/console/alerts?state=pending")
    await page.locator("main details summary").click()
    number = await page.locator("[name=expected]").get_attribute("value")
    await page.check("[value=retry]")
    await page.fill("#number", str(number))
    await page.fill("#reason-bulk", "remont serwera")
    await photograph(page, "console-many", whole=True)
    await page.click("main details button")
    await expect(page.locator("main")).to_contain_text("remont serwera")
    return page.url.removeprefix(stack.url)


async def watch(page: Page, stack: Stack, texts: dict[str, str]) -> None:
    """Make a heartbeat, see its URL, pause and delete it."""
    await page.goto(f"{stack.url}/console/heartbeats")
    for field, text in (("name", "Import cen"), ("when", "1h")):
        await page.fill(f"#{field}", text)
    await page.click("main form[action='/console/heartbeats'] button")
    mine = page.locator("li", has_text="Import cen")
    await mine.get_by_role("button", name=texts["beat_pause"]).click()
    await expect(mine).to_contain_text(texts["beat_paused"])
    await mine.get_by_role("button", name=texts["beat_resume"]).click()
    await mine.locator("summary").click()
    await expect(mine.locator("code")).to_contain_text("/ping/")
    await photograph(page, "console-heartbeats", whole=True)
    await mine.get_by_role("button", name=texts["beat_delete"]).click()
    await expect(page.locator("main")).not_to_contain_text("Import cen")


async def silence(page: Page, stack: Stack, texts: dict[str, str]) -> None:
    """Begin a silence by keyboard alone."""
    await page.goto(f"{stack.url}/console/silences")
    await page.focus("#matchers")
    await page.keyboard.type(f"event_type={SILENCEABLE}")
    for _ in range(4):
        await page.keyboard.press("Tab")
    await page.keyboard.type("remont biura")
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text("remont biura")
    await expect(page.get_by_role("button", name=texts["end_silence"]).first).to_be_visible()
