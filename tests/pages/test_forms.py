"""The hosted form in a browser without scripts: a fault, its correction, and the way on."""

import hashlib
import re

import pytest
from playwright.async_api import Browser, expect

from tests.pages.conftest import COMPANY, PHONE, thanked
from tests.support.eventually import eventually
from tests.support.forms import CONTACT, arrived, stored
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = [pytest.mark.pages, pytest.mark.promise("P11")]

LABELS = {"pl": ("Wyślij", "poprawić zaznaczone"), "en": ("Send", "correct the marked fields")}


@pytest.mark.parametrize("language", ["pl", "en"])
async def test_a_form_is_sent_by_clicks_and_its_fault_corrected(
    browser: Browser, stack: Stack, language: str
) -> None:
    await stack.sandbox.reset()
    context = await browser.new_context(viewport=PHONE, java_script_enabled=False)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))

    await page.route(COMPANY, thanked)
    send, correct = LABELS[language]
    email = fresh_address()
    await page.goto(f"{stack.url}/forms/contact?language={language}")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await page.get_by_role("textbox", name=re.compile("^E-mail")).fill("anna")
    message = next(field for field in CONTACT.fields if field.name == "message").label or {}
    await page.get_by_label(message[language]).fill("Kuchnia\n12 m²")
    consent = page.get_by_role("checkbox")
    await expect(consent).not_to_be_checked()
    await consent.check()
    label = page.locator("label[for='consent.marketing']")
    read = hashlib.sha256((await label.inner_text()).encode()).hexdigest()
    await page.wait_for_timeout(3100)  # as long as the form says that a person needs
    await page.get_by_role("button", name=send).click()
    await expect(page.get_by_role("alert")).to_contain_text(correct)
    await expect(page.get_by_label(message[language])).to_have_value("Kuchnia\n12 m²")
    await expect(page.get_by_role("checkbox")).to_be_checked()
    await page.get_by_role("textbox", name=re.compile("^E-mail")).fill(email)
    await page.get_by_role("button", name=send).click()
    await page.wait_for_url(CONTACT.success[language])
    await page.go_back()
    await page.get_by_role("button", name=send).click()
    await page.wait_for_url(CONTACT.success[language])
    assert await context.cookies() == []
    assert [each for each in complaints if "422" not in each] == []
    await arrived(stack, email)
    (row,) = stored(stack, email)
    assert (row.state, row.language) == ("accepted", language)

    (entry,) = (await eventually(lambda: stack.audit(email), so=lambda it: it["entries"]))[
        "entries"
    ]
    assert entry["evidence"]["wording_sha256"] == read
    await context.close()
