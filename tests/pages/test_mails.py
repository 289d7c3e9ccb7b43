"""The follow-ups' mails as they are sent, read on a phone; SCREENSHOTS=folder keeps their looks."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from deploy.up.environment import EXAMPLE_CONFIG
from services.followups import commands
from services.followups.settings import FollowupsSettings
from tests.pages.conftest import PHONE, photograph

pytestmark = pytest.mark.pages

SETTINGS: dict[str, Any] = {
    "http_port": 0, "metrics_port": 0, "internal_api_key": "k" * 16, "amqp_url": "amqp://unused",
    "database_url": "unused", "token_keys": f"k1:{base64.b64encode(bytes(32)).decode()}",
    "public_base_url": "https://chat.example.com",
    "followups_config": EXAMPLE_CONFIG / "followups.toml",
    "company_config": EXAMPLE_CONFIG / "company.toml",
}  # fmt: skip
NARROW: Any = {**PHONE, "width": 375}
LOOK = Path(__file__).with_name("look.js").read_text(encoding="utf-8")


async def test_every_mail_is_as_wide_as_a_phone_legible_and_lets_its_reader_leave(
    browser: Browser,
) -> None:
    samples = commands.checked(FollowupsSettings(**SETTINGS)).samples("anna@example.com")
    mails = {name: mail for name, *_, mail in samples}
    assert len(mails) >= 12  # two steps, two languages, little, some and much known
    context = await browser.new_context(
        viewport=NARROW, device_scale_factor=2, is_mobile=True, offline=True
    )
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name, mail in mails.items():
        # What a mail program keeps: no style sheets, no scripts.
        assert not re.search(r"<style|<link|<script|<img", mail["html"])
        await page.set_content(mail["html"])
        await photograph(page, name)
        assert await page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name
        for part in await page.evaluate(LOOK):
            assert part["size"] >= 13, (name, part)
            assert part["left"] >= 16, (name, part)
            assert part["right"] <= NARROW["width"] - 16, (name, part)
        leave = page.get_by_role("link", name=re.compile("Rezygnuję|Unsubscribe"))
        assert "/unsubscribe?token=" in str(await leave.get_attribute("href"))
        for button in await page.locator("a.button").all():
            box = await button.bounding_box()
            assert box is not None
            assert box["height"] >= 44, name
    assert asked == []
    await context.close()
