"""A person's way in: the mailed link, the second factor, one's own password, and the way out."""

import re
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from services.console.texts import TEXTS
from tests.pages.conftest import DESK, LOCALES, PHONE, unfold
from tests.pages.test_console import fits
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.staff import PASSWORD, code_of, earlier_code, invitation
from tests.support.system import fresh_address

pytestmark = pytest.mark.pages

NEW = "bardzo stare kalosze babci"


@pytest.fixture(scope="module")
def stack(console_stack: Stack) -> Stack:
    return console_stack


async def opened(browser: Browser, language: str, size: Any) -> Page:
    context = await browser.new_context(
        viewport=size, locale=LOCALES[language], java_script_enabled=size is DESK
    )
    return await context.new_page()


async def mailed(stack: Stack, address: str, text: str) -> str:
    """Return what this address was told in a mail that matches."""

    async def found() -> str | None:
        for mail in await stack.sandbox.mails(address):
            if match := re.search(text, mail["Text"]):
                return match[0]
        return None

    answer = await eventually(found, 30)
    assert answer is not None
    return answer


@pytest.mark.parametrize(("language", "size"), [("pl", PHONE), ("en", DESK)])
async def test_an_admin_sets_up_a_factor_and_lets_a_colleague_in(
    browser: Browser, stack: Stack, language: str, size: Any
) -> None:
    t, name, email = TEXTS[language], f"{language}-{size['width']}", fresh_address()
    page = await opened(browser, language, size)
    await page.goto(stack.url + await invitation(stack, email, "admin", language=language))
    await page.locator("#password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{stack.url}/console/factor")
    await fits(page, f"factor-{name}")
    secret = await page.locator("#secret").inner_text()
    await page.locator("#code").fill(await earlier_code(secret))
    await page.get_by_role("button", name=t["factor_confirm"]).click()
    await expect(page.get_by_text(t["factor_set"])).to_be_visible()
    await fits(page, f"factor-codes-{name}")
    recovery = await page.locator(".codes code").first.inner_text()
    await page.get_by_role("link", name=t["recovery_kept"]).click()
    await expect(page.get_by_text(t["told"])).to_be_visible()
    await fits(page, f"start-told-{name}")

    await page.goto(f"{stack.url}/console/staff")
    colleague = fresh_address()
    await unfold(page)
    form = page.locator("form[action='/console/staff']")
    await form.locator("#email").fill(colleague)
    await form.locator("#name").fill("Jan Kos")
    await form.locator("#language").select_option(language)
    await form.locator("[value=privacy]").check()
    await form.get_by_role("button").click()
    await expect(page.get_by_role("status")).to_contain_text(colleague)
    await fits(page, f"staff-{name}")
    link = await mailed(stack, colleague, rf"{stack.url}/console/invitation/[\w-]+")
    await mailed(stack, email, "Jan Kos")

    jan = await opened(browser, language, size)
    await jan.goto(link)
    await jan.locator("#password").fill("password1234")
    await jan.keyboard.press("Enter")
    await expect(jan.get_by_role("alert")).to_contain_text(t["too_weak"])
    await fits(jan, f"join-weak-{name}")
    await jan.locator("#password").fill(PASSWORD)
    await jan.keyboard.press("Enter")
    await expect(jan).to_have_url(f"{stack.url}/console/factor")  # privacy needs one, too

    await own_password(page, stack, email, t, name, recovery)
    await out_and_in(page, stack, email, t, name, secret)
    for each in (page, jan):
        await each.context.close()


async def own_password(
    page: Page, stack: Stack, email: str, t: dict[str, str], name: str, recovery: str
) -> None:
    await page.goto(f"{stack.url}/console/me")
    await fits(page, f"me-{name}")
    await page.locator("#password").fill(PASSWORD)
    await page.locator("#code").fill(recovery)
    await page.locator("#new").fill(NEW)
    await page.get_by_role("button", name=t["change_password"]).click()
    await expect(page).to_have_url(f"{stack.url}/console/me")
    await mailed(stack, email, re.escape(t["told_password"]))


async def out_and_in(
    page: Page, stack: Stack, email: str, t: dict[str, str], name: str, secret: str
) -> None:
    """Log out, find nothing by the button back, and log in with the new password and a code."""
    await page.locator(".account summary").click()
    await page.get_by_role("button", name=t["logout"]).click()
    await expect(page).to_have_url(f"{stack.url}/console/login")
    await page.go_back()
    await expect(page.locator("#password")).to_be_visible()
    await expect(page.get_by_text(email)).not_to_be_visible()
    await page.goto(f"{stack.url}/console/login")
    await page.locator("#email").fill(email)
    await page.locator("#password").fill(NEW)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text(t["refused"])
    await fits(page, f"login-{name}")
    await page.locator("#password").fill(NEW)
    await page.locator("#code").fill(code_of(secret))
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{stack.url}/console/")
