"""A person's browser: a headless Chromium as wide as a phone, with scripts turned off."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, Route, async_playwright, expect

from deploy.up.machine import chromium
from tests.conftest import WholeSystem
from tests.support.ports import HOST
from tests.support.stack import Stack
from tests.support.staff import NEED_FACTOR, PASSWORD, earlier_code, invitation, on_call_config
from tests.support.system import fresh_address

expect.set_options(timeout=30_000)  # a busy machine is slow
PHONE: Any = {"width": 390, "height": 844}
DESK: Any = {"width": 1280, "height": 900}
COMPANY = "https://www.ostoja-wnetrza.example/**"
LOCALES = {"pl": "pl-PL", "en": "en-GB"}


class Visitor(Protocol):
    def __call__(
        self, language: str = "pl", *, scheme: Any = "light"
    ) -> AbstractAsyncContextManager[Page]: ...


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    found = chromium()
    assert found, "no Chromium here: make test-pages installs it"
    # Its sandbox wants rights that root in a container has not; the pages are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=found, args=arguments)
        yield opened
        await opened.close()


@pytest.fixture(scope="session")
def console_stack(
    tmp_path_factory: pytest.TempPathFactory, whole_system: WholeSystem
) -> Iterator[Stack]:
    """Run one system for all tests of the console."""
    config = on_call_config(tmp_path_factory.mktemp("config"))
    with whole_system({"ALERTS_CONFIG": str(config)}) as running:
        yield running


@pytest.fixture
def visitor(browser: Browser, stack: Stack) -> Visitor:
    """Open a page in the visitor's language; at its end it must have asked nobody else."""

    @asynccontextmanager
    async def open_page(language: str = "pl", *, scheme: Any = "light") -> AsyncIterator[Page]:
        context = await browser.new_context(
            viewport=PHONE,
            device_scale_factor=2,
            is_mobile=True,
            locale=LOCALES[language],
            color_scheme=scheme,
            java_script_enabled=False,
        )
        page = await context.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        yield page
        assert all(url.startswith(stack.url) for url in asked), asked
        # A failed load is told on the console too; the rest would be the policy's refusals.
        assert [each for each in complaints if "Failed to load resource" not in each] == []
        assert await context.cookies() == []
        await context.close()

    return open_page


@asynccontextmanager
async def serving(app: web.Application | str, port: int) -> AsyncIterator[None]:
    """:param site: or the text of its only page"""
    if not isinstance(app, web.Application):
        html, app = app, web.Application()

        async def page(_: web.Request) -> web.Response:
            return web.Response(text=html, content_type="text/html")

        app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def thanked(route: Route) -> None:
    """Answer for the company's own page, to which a form leads on."""
    await route.fulfill(body="Thanks", content_type="text/html")


async def photograph(page: Page, name: str, *, whole: bool = False) -> None:
    """Keep what it looks like, where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        path = Path(folder) / f"{name}.png"
        await page.screenshot(path=path, scale="css", full_page=whole)


async def unfold(page: Page) -> None:
    """Open the form for what is new, which is folded where there is something already."""
    for button in await page.locator(".fresh:not([open]) > summary").all():
        await button.click()


async def entered(
    browser: Browser, stack: Stack, language: str, scheme: Any, size: Any, *roles: str
) -> tuple[Page, list[str]]:
    """Let a new person in by their invitation; return a page, and what its console said."""
    context = await browser.new_context(
        viewport=size,
        locale=LOCALES[language],
        color_scheme=scheme,
        java_script_enabled=size is DESK,  # for axe; the pages have no script
        is_mobile=size is PHONE,
    )
    page = await context.new_page()
    said: list[str] = []

    def asked(url: str) -> None:
        if not url.startswith(stack.url):
            said.append(url)

    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked(request.url))
    link = await invitation(stack, fresh_address(), *roles, language=language)
    await page.goto(stack.url + link)
    await page.locator("input[type=password]").fill(PASSWORD)
    await page.keyboard.press("Enter")
    if NEED_FACTOR & {*roles}:
        await enrol(page)
    await expect(page).to_have_url(f"{stack.url}/console/")
    return page, said


async def enrol(page: Page) -> str:
    """Set up a second factor, for roles that need one; return its secret."""
    secret = await page.locator("#secret").inner_text()
    await page.locator("#code").fill(await earlier_code(secret))
    await page.locator("main button").click()
    await page.locator("main a.button").click()
    return secret
