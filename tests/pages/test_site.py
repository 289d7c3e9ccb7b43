"""The web page of docs/clients.md, on a site of its own, in a browser."""

import re

import pytest
from playwright.async_api import Browser, expect

from tests.conftest import NewStack
from tests.pages.conftest import serving
from tests.support.ports import HOST, Ports
from tests.support.runbooks import CLIENTS, examples
from tests.support.system import fresh_address

pytestmark = pytest.mark.pages


async def test_a_page_of_an_allowed_site_chats_and_signs_up_and_of_another_it_cannot(
    browser: Browser, new_stack: NewStack, ports: Ports
) -> None:
    port = ports.take()
    allowed, other = f"http://{HOST}:{port}", f"http://localhost:{port}"
    stack = new_stack(CORS_ORIGINS=allowed, DOUBLE_OPT_IN="on")
    html = examples(CLIENTS)["html"]
    assert "https://ostoja.example.com" in html
    async with serving(html.replace("https://ostoja.example.com", stack.url), port):
        page = await browser.new_page()
        talk = page.locator("#talk p")
        message = page.get_by_label("Message")
        send = page.get_by_role("button", name="Send")

        await page.goto(other)
        await message.fill("Dzień dobry")
        await send.click()
        await expect(talk.last).to_have_text("Not sent: Failed to fetch")

        await page.goto(allowed)
        said = ("Dzień dobry, remont łazienki 8 m2", "od marca, budżet 40 tys.")
        for number, (text, answered) in enumerate(
            zip(said, ("Ostoja Wnętrza", "40 000"), strict=True)
        ):
            await message.fill(text)
            await send.click()
            await expect(talk).to_have_count(2 * number + 2)
            await expect(talk.last).to_contain_text(answered)
        assert not await message.input_value()

        address = fresh_address()
        await page.get_by_label("E-mail", exact=True).fill(address)
        await page.get_by_role("checkbox").check()
        await page.get_by_role("button", name="Sign up").click()
        await expect(page.locator("output")).to_have_text(re.compile("Please confirm"))
    await stack.confirm(address)
    assert (await stack.consents(address))["consents"] == {"marketing": True}
