"""The form and the chat of the script tag, on examples/site, as a visitor uses them.

The page is served from an origin of its own, with the policy that docs/widget.md advises, and
reaches the gateway through a proxy that cuts. Each test ends with what the system has stored.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from playwright.async_api import Browser, Locator, Page, Route, expect
from playwright.async_api import TimeoutError as TooLate

from deploy.sandbox import site as example
from services.gateway.pages import widget
from tests.conftest import WholeSystem
from tests.pages.conftest import (
    COMPANY,
    DESK,
    LOCALES,
    PHONE,
    photograph,
    serving,
    thanked,
)
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.proxy import DOWN, UP, Proxy
from tests.support.shipped import whole
from tests.support.stack import Stack
from tests.support.system import fresh_address
from tests.support.toml import write_toml

pytestmark = [pytest.mark.pages, pytest.mark.promise("P11")]

CUTS = 20
OFFLINE_SECONDS = 60
SENT = {"pl": "Dziękujemy, zgłoszenie dotarło", "en": "Thank you, we have your request"}
WAITING = "Zgłoszenie czeka na połączenie"


@pytest.fixture(scope="module")
def page_port(ports: Ports) -> int:
    return ports.take()


@dataclass
class FormsFile:
    path: Path
    config: dict[str, Any]

    def write(self, config: dict[str, Any]) -> None:
        write_toml(self.path, config)


@pytest.fixture(scope="module")
def forms(private_folder: Path, page_port: int) -> FormsFile:
    """The shipped forms.toml, for pages of this port and for visitors in a hurry."""
    config = whole("forms")
    config["forms"]["contact"] |= {
        "origins": [f"http://{HOST}:{page_port}"],
        "minimum_seconds": 0,
        "limits": {"address": "100000 per hour", "form": "100000 per hour"},
    }
    config["forms"]["proved"] = config["forms"]["contact"] | {"proof": "on"}
    made = FormsFile(private_folder / "widget-forms.toml", config)
    made.write(config)
    return made


@pytest.fixture(scope="module")
def stack(whole_system: WholeSystem, forms: FormsFile) -> Iterator[Stack]:
    with whole_system({"FORMS_CONFIG": str(forms.path)}) as running:
        yield running


@dataclass
class Site:
    url: str
    proxy: Proxy
    stack: Stack

    @property
    def gateway(self) -> str:
        return f"http://{HOST}:{self.proxy.port}"

    async def leads(self, address: str) -> list[Any]:
        """Return the stored submissions of an address, once they have been handled."""
        statement = "select * from followups.lead_submission where fields->>'email' = %s"
        return self.stack.query(statement, address)

    async def one_lead(self, address: str) -> None:
        """Wait for it to arrive, and see one row and one alert."""
        await self.stack.in_slack(address)
        assert len(await self.leads(address)) == 1
        assert len(await self.alerts(address)) == 1

    async def recorded(self, address: str, shown: str) -> None:
        """See that the trail holds the hash of this text as what the address agreed to."""
        found = await eventually(lambda: self.stack.audit(address), so=lambda it: it["entries"])
        (entry,) = found["entries"]
        assert hashlib.sha256(shown.encode()).hexdigest() in json.dumps(entry)

    async def alerts(self, address: str) -> list[str]:
        return [text for text in await self.stack.slack_texts() if address in text]


@pytest.fixture
async def site(stack: Stack, page_port: int) -> AsyncIterator[Site]:
    async with Proxy(int(stack.values["GATEWAY_PORT"])) as proxy:
        app, gateway = web.Application(), f"http://{HOST}:{proxy.port}"
        example.add_routes(app, gateway)
        for build in widget.builds():
            app.router.add_get(f"/page-{build.name}", _pinning(build, gateway))
        async with serving(app, page_port):
            yield Site(f"http://{HOST}:{page_port}/", proxy, stack)


def _pinning(build: widget.Build, gateway: str) -> Handler:
    """Serve a page that names a build by its hash, as docs/widget.md says."""
    tag = f'src="{gateway}/widget/{build.name}" integrity="{build.integrity}" crossorigin'
    text = (example.FOLDER / "index.html").read_text(encoding="utf-8")
    text = text.replace(f'src="{example.NAMED}/widget.js"', tag)
    assert tag in text

    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    return handle


@asynccontextmanager
async def visit(
    browser: Browser, site: Site, *, language: str = "pl", **more: Any
) -> AsyncIterator[Page]:
    """Open the page in a fresh browser; nothing may complain, and no cookie may be set."""
    context = await browser.new_context(
        **{"viewport": PHONE, "locale": LOCALES[language], "reduced_motion": "reduce", **more}
    )
    page = await context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(site.url)
    if language != "pl":
        await page.locator("ostoja-form").evaluate(
            "(it, to) => it.setAttribute('language', to)", language
        )
    yield page
    assert [each for each in complaints if "Failed to load resource" not in each] == []
    assert all(url.startswith((site.url, site.gateway)) for url in asked), asked
    assert await context.cookies() == []
    await context.close()


@pytest.fixture
async def page(browser: Browser, site: Site) -> AsyncIterator[Page]:
    async with visit(browser, site) as opened:
        yield opened


def form(page: Page) -> Locator:
    return page.locator("ostoja-form")


async def fill(page: Page, address: str, *, agree: bool = False) -> None:
    await form(page).get_by_role("textbox", name="E-mail").fill(address)
    if agree:
        await form(page).get_by_role("checkbox").check()


async def send(page: Page) -> None:
    await form(page).get_by_role("button", name=re.compile("^(Wyślij|Send)$")).click()


async def send_in_vain(page: Page, site: Site) -> None:
    """Send it while nothing answers, from now on: it waits."""
    await site.proxy.refuse()
    await send(page)
    await says(page, WAITING)


async def open_chat(page: Page) -> Locator:
    chat = page.locator("ostoja-chat")
    await chat.get_by_role("button", name="Otwórz czat").click()
    return chat


async def send_now(page: Page) -> None:
    """Press the button of what waits, unless it has been sent by itself meanwhile."""
    with suppress(TooLate):
        await form(page).get_by_role("button", name="Wyślij teraz").click(timeout=5_000)


async def says(page: Page, title: str) -> None:
    await expect(form(page).get_by_role("heading", name=title)).to_be_visible(timeout=30_000)


async def stored(page: Page) -> list[str]:
    kept: list[str] = await page.evaluate(
        "() => [...Object.keys(localStorage), ...Object.keys(sessionStorage)]"
    )
    return kept


@pytest.mark.parametrize("language", ["pl", "en"])
async def test_a_visitor_s_consent_is_recorded_with_the_hash_of_what_the_page_showed(
    browser: Browser, site: Site, language: str
) -> None:
    address = fresh_address()
    async with visit(browser, site, language=language) as page:
        box = form(page).get_by_role("checkbox")
        await expect(box).not_to_be_checked()
        shown = await form(page).locator(".consent label").inner_text()
        await page.evaluate(
            "() => document.addEventListener('ostoja:sent', (e) => window.told = e.detail)"
        )
        await fill(page, address, agree=True)
        assert await stored(page) == []
        await send(page)
        await says(page, SENT[language])
        assert await page.evaluate("window.told") == {"form": "contact"}
        assert await stored(page) == []
    await site.one_lead(address)
    await site.recorded(address, shown)


@pytest.mark.parametrize(("days", "counts"), [(29, True), (31, False)])
async def test_a_form_that_changed_while_the_page_was_open_is_taken_as_it_was_shown(
    page: Page, site: Site, forms: FormsFile, days: int, *, counts: bool
) -> None:
    address = fresh_address()
    shown = await form(page).locator(".consent label").inner_text()
    await fill(page, address, agree=True)
    await form(page).get_by_label("Budżet").fill("40 000")
    config = deepcopy(forms.config)
    contact = config["forms"]["contact"]
    street = {"name": "street", "type": "text", "required": True, "label": contact["title"]}
    kept = [field for field in contact["fields"] if field["name"] != "budget"]
    contact |= {"version": "2", "fields": [*kept, street]}
    (consent,) = contact["consents"]
    (old,) = consent["versions"]
    ended = (datetime.now(UTC).date() - timedelta(days)).isoformat()
    new = {"version": "next", "pl": "Zgadzam się na nowe.", "en": "I agree to the new."}
    consent["versions"] = [old | {"ended": ended}, new]
    forms.write(config)
    await site.stack.stop("gateway")
    await site.stack.start("gateway")
    try:
        await send(page)
        await says(page, SENT["pl"])
        told = form(page).get_by_text("Zgoda nie została zapisana")
        await expect(told).to_have_count(0 if counts else 1)
    finally:
        forms.write(forms.config)
        await site.stack.stop("gateway")
        await site.stack.start("gateway")
    await site.one_lead(address)
    (lead,) = await site.leads(address)
    assert (lead.form_version, lead.fields["budget"]) == ("1", "40 000")
    if counts:
        await site.recorded(address, shown)
    else:
        assert (await site.stack.audit(address))["entries"] == []


@pytest.mark.parametrize(
    ("direction", "at", "included"),
    [
        (UP, b"POST /api/leads", False),
        (UP, b'"form_version"', True),
        (DOWN, b"HTTP/1.1 202", False),
        (DOWN, b'"status": "acc', True),
    ],
    ids=["before the request", "within it", "before the answer", "within it"],
)
async def test_a_submission_that_was_cut_off_is_one_lead(
    browser: Browser, site: Site, direction: Any, at: bytes, *, included: bool
) -> None:
    addresses = [fresh_address() for _ in range(CUTS)]
    async with visit(browser, site, viewport=DESK) as page:
        for address in addresses:
            await fill(page, address)
            trap = site.proxy.cut_after if included else site.proxy.cut_before
            reached = trap(direction, at)
            await send(page)
            await says(page, SENT["pl"])
            assert reached.is_set()
            assert await stored(page) == []
            await form(page).get_by_role("button", name="Wyślij kolejne zgłoszenie").click()
    for address in addresses:
        await site.one_lead(address)


async def test_a_submission_waits_without_a_network_over_a_reload_and_in_two_tabs(
    page: Page, site: Site
) -> None:
    address = fresh_address()
    await fill(page, address)
    await send_in_vain(page, site)
    await photograph(page, "widget-waiting")
    (name,) = await stored(page)
    assert re.fullmatch(r"ostoja\.lead\.[\w-]{22}", name)
    await site.proxy.resume()
    stalled = site.proxy.stall_before(UP, b"POST /api/leads")
    await page.reload()  # the script comes, but no answer
    await says(page, WAITING)
    await stalled.wait()
    await site.proxy.refuse()
    await site.proxy.resume()
    other = await page.context.new_page()
    await other.goto(site.url)
    await says(page, SENT["pl"])
    assert await stored(other) == []
    await site.one_lead(address)


async def test_a_submission_made_offline_leaves_when_the_network_is_back(
    page: Page, site: Site
) -> None:
    address = fresh_address()
    await fill(page, address)
    await page.context.set_offline(offline=True)
    await send(page)
    await says(page, WAITING)
    await asyncio.sleep(OFFLINE_SECONDS)  # some tries; the longest pause between two
    assert await site.leads(address) == []
    await says(page, WAITING)
    await page.context.set_offline(offline=False)
    await says(page, SENT["pl"])
    await site.one_lead(address)


async def test_a_form_that_asks_for_proof_is_solved_unseen_and_anew_where_it_no_longer_counts(
    page: Page, site: Site
) -> None:
    addresses, proofs = [fresh_address(), fresh_address()], list[str]()

    async def as_if_expired(route: Route) -> None:
        headers = route.request.headers
        if not proofs:
            headers["x-proof"] = "x"
        proofs.append(headers.get("x-proof", ""))
        await route.continue_(headers=headers)

    await page.clock.install()
    await page.reload()
    await page.route("**/api/leads", as_if_expired)
    await form(page).evaluate("(it) => it.setAttribute('form', 'proved')")
    await fill(page, addresses[0], agree=True)
    await send(page)
    await says(page, SENT["pl"])
    assert [proof == "x" for proof in proofs] == [True, False]

    await form(page).get_by_role("button", name="Wyślij kolejne zgłoszenie").click()
    await fill(page, addresses[1])
    reached = site.proxy.cut_before(UP, b"POST /api/leads")
    await send(page)
    await reached.wait()
    await site.proxy.refuse()
    await says(page, WAITING)
    await page.clock.fast_forward("18:00")  # it lives for twenty minutes
    await site.proxy.resume()
    await page.evaluate("dispatchEvent(new Event('online'))")
    sent = form(page).get_by_role("heading", name=SENT["pl"])
    await expect(sent).to_be_visible(timeout=90_000)
    assert proofs[1] != proofs[2] != proofs[-1], "one for each lead; old ones are solved anew"
    for address in addresses:
        await site.one_lead(address)


async def test_a_gateway_killed_amid_a_submission_makes_it_one_lead(page: Page, site: Site) -> None:
    address = fresh_address()
    await fill(page, address)
    stalled = site.proxy.stall_before(DOWN, b"HTTP/1.1 202")
    await send(page)
    await stalled.wait()
    await site.stack.kill9("gateway")
    await site.proxy.refuse()
    await site.stack.start("gateway")
    await site.proxy.resume()
    await says(page, SENT["pl"])
    await site.one_lead(address)


async def test_a_browser_without_storage_keeps_a_submission_while_the_page_is_open(
    page: Page, site: Site
) -> None:
    address = fresh_address()
    blocked = """for (const name of ['localStorage', 'sessionStorage']) {
        Object.defineProperty(window, name, {get() { throw new DOMException('', 'SecurityError') }})
    }"""
    await page.add_init_script(blocked)
    await page.reload()
    await fill(page, address)
    await site.proxy.refuse()
    await send(page)
    await expect(form(page).get_by_text("Nie zamykaj tej strony")).to_be_visible()
    await site.proxy.resume()
    await send_now(page)
    await says(page, SENT["pl"])
    await site.one_lead(address)


async def test_five_wait_in_a_browser_and_a_sixth_while_its_page_is_open(
    page: Page, site: Site
) -> None:
    addresses = [fresh_address() for _ in range(6)]

    async def lost(route: Route) -> None:
        await route.abort()

    await page.context.route("**/api/leads", lost)
    await fill(page, addresses[0])
    await send(page)
    await says(page, WAITING)
    # Four more, as of a visitor who has sent from other pages of the site.
    await page.evaluate(
        """(addresses) => {
            const [name] = Object.keys(localStorage)
            const entry = JSON.parse(localStorage[name])
            addresses.forEach((email, number) => {
                const key = entry.key.slice(0, -1) + number
                const body = entry.body.replace(JSON.parse(entry.body).fields.email, email)
                localStorage['ostoja.lead.' + key] = JSON.stringify({...entry, key, body})
            })
        }""",
        addresses[1:5],
    )
    other = await page.context.new_page()
    await other.goto(site.url)
    await says(other, WAITING)
    await form(other).evaluate("(it) => it.setAttribute('form', 'proved')")
    await fill(other, addresses[5])
    await send(other)
    await expect(form(other).get_by_text("Nie zamykaj tej strony")).to_be_visible()
    assert len(await stored(other)) == 5
    await page.context.unroute("**/api/leads")
    await send_now(other)
    await says(other, SENT["pl"])
    await says(page, SENT["pl"])
    for address in addresses:
        await site.one_lead(address)


async def test_a_visitor_can_delete_what_waits(page: Page, site: Site) -> None:
    address = fresh_address()
    await fill(page, address)
    await site.proxy.refuse()
    await send(page)
    await form(page).get_by_role("button", name="Usuń zgłoszenie").click()
    assert await stored(page) == []
    await site.proxy.resume()
    await page.reload()
    await expect(form(page).get_by_role("textbox", name="E-mail")).to_be_visible()
    assert await site.leads(address) == []


async def test_what_was_refused_or_too_old_on_an_earlier_page_is_told_on_the_next_and_not_shown(
    page: Page, site: Site
) -> None:
    """Somebody else may sit at the screen then."""
    address = fresh_address()
    await fill(page, address)
    await form(page).get_by_label("Telefon").fill("1234567")  # seven digits, but no number
    await send_in_vain(page, site)
    await site.proxy.resume()
    await page.reload()
    told = form(page).get_by_text("nie udało się wysłać i zostało usunięte")
    await expect(told).to_be_visible()
    for label in ("E-mail", "Telefon"):
        await expect(form(page).get_by_role("textbox", name=label)).to_have_value("")
    assert await stored(page) == []
    await fill(page, address)
    await send_in_vain(page, site)
    await page.evaluate("""() => {
        const [name] = Object.keys(localStorage)
        const entry = JSON.parse(localStorage[name])
        localStorage[name] = JSON.stringify({...entry, at: entry.at - 24.1 * 3600e3})
    }""")
    await site.proxy.resume()
    await page.reload()
    await expect(told).to_be_visible()
    assert await stored(page) == []


async def test_what_was_refused_leaves_storage_at_once_and_stays_on_its_page(
    page: Page, site: Site
) -> None:
    address = fresh_address()
    other = await page.context.new_page()
    await other.goto(site.url)
    await fill(page, address)
    await form(page).get_by_label("Telefon").fill("1234567")
    await send_in_vain(page, site)
    (name,) = await stored(page)
    assert address in await page.evaluate("(name) => localStorage[name]", name)
    await other.reload()
    await site.proxy.resume()
    await send_now(page)
    phone = form(page).get_by_label("Telefon")
    await expect(phone).to_have_value("1234567", timeout=60_000)
    await expect(form(page).get_by_role("textbox", name="E-mail")).to_have_value(address)
    assert await stored(page) == []
    await other.reload()
    await expect(form(other).get_by_role("textbox", name="E-mail")).to_have_value("")
    assert await site.leads(address) == []


async def test_the_next_visitor_at_a_shared_screen_gets_an_empty_form_and_both_are_leads(
    page: Page, site: Site
) -> None:
    first, second = fresh_address(), fresh_address()
    await fill(page, first)
    await send_in_vain(page, site)
    await site.proxy.resume()
    await form(page).get_by_role("button", name="Wyślij kolejne zgłoszenie").click()
    email = form(page).get_by_role("textbox", name="E-mail")
    await expect(email).to_have_value("")
    await fill(page, second)
    await send(page)
    await says(page, SENT["pl"])
    await site.one_lead(first)
    assert await stored(page) == []
    await site.one_lead(second)


async def test_the_chat_says_what_becomes_of_data_before_the_first_message_on_every_page(
    page: Page, site: Site
) -> None:
    for privacy in ("/prywatnosc", None):
        if privacy is None:  # a page that names none
            await page.evaluate(
                """() => {
                    const chat = document.createElement('ostoja-chat')
                    document.querySelector('ostoja-chat').replaceWith(chat)
                }"""
            )
        chat = await open_chat(page)
        await expect(chat.get_by_text("Dane z rozmowy służą")).to_be_visible()
        link = await chat.get_by_role("link", name="Prywatność").evaluate("(it) => it.href")
        assert await stored(page) == []
        await page.keyboard.press("Escape")
    assert link == f"{site.gateway}/privacy?language=pl"


async def test_a_conversation_left_for_half_an_hour_is_not_shown_to_the_next_visitor(
    page: Page, site: Site
) -> None:
    await page.clock.install()
    await page.reload()
    chat = await open_chat(page)
    await chat.get_by_label("Wiadomość").fill("Mam na imię Anna")
    await page.keyboard.press("Enter")
    await expect(chat.locator(".turn")).to_have_count(3, timeout=15_000)
    await page.keyboard.press("Escape")
    await page.clock.fast_forward("31:00")
    await chat.get_by_role("button", name="Otwórz czat").click()
    await expect(chat.locator(".turn")).to_have_count(1)
    assert await stored(page) == []


async def test_a_visitor_of_a_spent_chat_is_led_to_a_form_that_reaches_staff(
    browser: Browser, site: Site
) -> None:
    address = fresh_address()
    budget = {"chat_budget": "1 per day"}
    assert (await site.stack.http("PUT", "/api/ratelimits", budget, key="admin")).status == 200
    try:
        async with visit(browser, site) as page:
            chat = await open_chat(page)
            text = chat.get_by_label("Wiadomość")
            await text.fill("Remont łazienki")
            await text.press("Enter")
            await expect(chat.locator(".turn")).to_have_count(3, timeout=30_000)
            await text.fill("od marca")
            await text.press("Enter")
            link = chat.get_by_role("link", name="/forms/contact")
            await expect(link).to_be_visible(timeout=30_000)
            await photograph(page, "widget-spent")
            shown = await link.evaluate("(it) => it.href")
    finally:
        await site.stack.http("PUT", "/api/ratelimits", {"chat_budget": None}, key="admin")
    assert shown == f"{site.stack.url}/forms/contact?language=pl"
    page = await browser.new_page(locale="pl-PL")
    await page.route(COMPANY, thanked)
    await page.goto(shown)
    await page.get_by_role("textbox", name=re.compile("^E-mail")).fill(address)
    await page.get_by_role("button", name="Wyślij").click()
    await page.wait_for_url(COMPANY)
    await page.close()
    await site.one_lead(address)


async def test_faults_stand_at_their_fields_and_keep_what_was_written(
    page: Page, site: Site
) -> None:
    address = fresh_address()
    email = form(page).get_by_role("textbox", name="E-mail")
    await send(page)
    await expect(email).to_be_focused()
    await expect(email).to_have_accessible_description(re.compile("lub numer telefonu"))
    await photograph(page, "widget-faults")
    await fill(page, address)
    await form(page).get_by_label("Telefon").fill("1234567")
    await form(page).get_by_label("W czym").fill("Łazienka")
    await send(page)  # the gateway's own fault
    phone = form(page).get_by_label("Telefon")
    await expect(phone).to_be_focused()
    await expect(phone).to_have_accessible_description(re.compile("numer telefonu"))
    await expect(form(page).get_by_label("W czym")).to_have_value("Łazienka")
    assert await stored(page) == []
    await phone.fill("600 700 800")
    await send(page)
    await says(page, SENT["pl"])
    await site.one_lead(address)


async def test_without_the_gateway_the_page_s_own_content_is_shown(page: Page, site: Site) -> None:
    await expect(form(page).get_by_role("textbox", name="E-mail")).to_be_visible()
    await page.evaluate(
        "() => document.addEventListener('ostoja:unavailable', (e) => window.told = e.detail)"
    )
    await site.proxy.refuse()
    await form(page).evaluate("(it) => it.setAttribute('language', 'en')")
    await expect(page.get_by_text("Formularz nie chce się otworzyć?")).to_be_visible()
    assert await page.evaluate("window.told") == {"form": "contact"}
    await photograph(page, "widget-unavailable")
    await site.proxy.resume()
    await expect(form(page).get_by_label("Phone")).to_be_visible(timeout=20_000)


@pytest.mark.parametrize("build", widget.builds(), ids=lambda build: build.name)
async def test_every_build_that_pages_may_name_works_with_today_s_gateway(
    page: Page, site: Site, build: widget.Build
) -> None:
    """Yesterday's, in an open tab or a page nobody has touched for a year, and the newest."""
    addresses = {"contact": fresh_address(), "proved": fresh_address()}

    await page.goto(f"{site.url}page-{build.name}")
    for name, address in addresses.items():
        await form(page).evaluate("(it, to) => it.setAttribute('form', to)", name)
        shown = await form(page).locator(".consent label").inner_text()
        await fill(page, address, agree=True)
        await send(page)
        await says(page, SENT["pl"])
        await site.one_lead(address)
        await site.recorded(address, shown)
        await form(page).get_by_role("button", name="Wyślij kolejne zgłoszenie").click()
    chat = await open_chat(page)
    await chat.get_by_label("Wiadomość").fill("Remont łazienki 8 m2, budżet 40 tys., od marca")
    await page.keyboard.press("Enter")
    await expect(chat.locator(".turn")).to_have_count(3, timeout=15_000)


async def test_a_script_that_is_not_the_one_named_does_not_run(
    browser: Browser, site: Site, ports: Ports
) -> None:
    described = (await site.stack.http("GET", "/widget.json")).body
    name = described["url"].rpartition("/")[2]

    async def tagged(request: web.Request) -> web.Response:
        integrity = request.query["integrity"].replace(" ", "+")
        text = (
            f'<!doctype html><script defer src="{site.gateway}/widget/{name}" '
            f'integrity="{integrity}" crossorigin="anonymous"></script>'
            '<ostoja-form form="contact">Call us</ostoja-form>'
        )
        return web.Response(text=text, content_type="text/html")

    app, port = web.Application(), ports.take()
    app.router.add_get("/", tagged)
    async with serving(app, port):
        page = await browser.new_page()
        for integrity, runs in ((described["integrity"], True), ("sha384-" + "A" * 64, False)):
            await page.goto(f"http://{HOST}:{port}/?integrity={integrity}")
            assert await page.evaluate("!!customElements.get('ostoja-form')") is runs
        await expect(page.get_by_text("Call us")).to_be_visible()
        await page.close()


BROWSERS = Path(__file__).parents[1] / "browsers"
AXE = BROWSERS / "node_modules" / "axe-core" / "axe.min.js"
NPM = pytest.mark.skipif(
    not AXE.exists(), reason="make test-pages installs axe-core if npm is here"
)
LOOKS = [("light", PHONE), ("dark", PHONE), ("light", DESK), ("dark", DESK)]


async def is_accessible(page: Page, name: str) -> None:
    """axe-core finds nothing in the state that is shown; nothing is wider than the page."""
    await photograph(page, f"widget-{name}")
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await page.evaluate("() => axe.run({resultTypes: ['violations', 'incomplete']})")
    faults = [
        (each["id"], node["html"], node.get("failureSummary"))
        for each in found["violations"]
        for node in each["nodes"]
    ]
    assert faults == [], name
    width = page.viewport_size["width"] if page.viewport_size else 0
    assert await page.evaluate("document.documentElement.scrollWidth") <= width, name


@NPM
@pytest.mark.parametrize(("scheme", "size"), LOOKS)
async def test_every_state_of_form_and_chat_is_accessible(
    browser: Browser, site: Site, scheme: Any, size: Any
) -> None:
    where = f"{scheme}-{size['width']}"
    async with visit(browser, site, viewport=size, color_scheme=scheme) as page:
        await expect(form(page).get_by_role("textbox", name="E-mail")).to_be_visible()
        await form(page).scroll_into_view_if_needed()
        await is_accessible(page, f"form-{where}")
        await send(page)
        await is_accessible(page, f"faults-{where}")
        await fill(page, fresh_address(), agree=True)
        await send_in_vain(page, site)
        await is_accessible(page, f"waiting-{where}")
        await site.proxy.resume()
        await send_now(page)
        await says(page, SENT["pl"])
        await is_accessible(page, f"sent-{where}")
        chat = await open_chat(page)
        await is_accessible(page, f"chat-{where}")
        await chat.get_by_label("Wiadomość").fill("Remont łazienki 8 m2, budżet 40 tys., od marca")
        await page.keyboard.press("Enter")
        await expect(chat.locator(".turn")).to_have_count(3)
        await is_accessible(page, f"chat-turns-{where}")


@NPM
@pytest.mark.parametrize("width", [320, 640])
async def test_it_fits_a_small_phone_and_a_page_at_200_percent(
    browser: Browser, site: Site, width: int
) -> None:
    """A window of 1280 pixels at 200 % has 640 of CSS (WCAG 2.2, 1.4.4 and 1.4.10)."""
    async with visit(browser, site, viewport={"width": width, "height": 480}) as page:
        await expect(form(page).get_by_role("textbox", name="E-mail")).to_be_visible()
        await is_accessible(page, f"narrow-{width}")
        await page.locator("ostoja-chat").get_by_role("button").click()
        await is_accessible(page, f"narrow-chat-{width}")
        box = await page.locator("ostoja-chat").get_by_label("Wiadomość").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 480


async def test_its_parts_have_edges_in_forced_colours_and_nothing_moves(
    browser: Browser, site: Site
) -> None:
    async with visit(browser, site, forced_colors="active") as page:
        button = form(page).get_by_role("button", name="Wyślij")
        edge = await button.evaluate("(it) => getComputedStyle(it).borderTopStyle")
        assert edge == "solid"
        await photograph(page, "widget-forced-colours")
        await page.locator("ostoja-chat").get_by_role("button").click()
        await photograph(page, "widget-forced-colours-chat")
        moving = """() => [...document.querySelectorAll('ostoja-form, ostoja-chat')]
            .flatMap((each) => each.shadowRoot.getAnimations()).length"""
        assert await page.evaluate(moving) == 0


async def test_a_keyboard_is_enough(browser: Browser, site: Site) -> None:
    address = fresh_address()
    async with visit(browser, site, viewport=DESK) as page:
        email = form(page).get_by_role("textbox", name="E-mail")
        await email.focus()
        await page.keyboard.type(address)
        for _ in range(6):  # phone, area, budget, start, message, consent
            await page.keyboard.press("Tab")
        await expect(form(page).get_by_role("checkbox")).to_be_focused()
        await page.keyboard.press("Space")
        for _ in range(2):  # the link in the wording, the button
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await says(page, SENT["pl"])
        chat = page.locator("ostoja-chat")
        await chat.get_by_role("button", name="Otwórz czat").focus()
        await page.keyboard.press("Enter")
        text = chat.get_by_label("Wiadomość")
        await expect(text).to_be_focused()
        await page.keyboard.type("Dzień dobry,")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("remont łazienki")
        await expect(text).to_have_value("Dzień dobry,\nremont łazienki")
        await page.keyboard.press("Enter")
        await expect(chat.get_by_role("log")).to_contain_text("metraż", timeout=15_000)
        await page.keyboard.press("Escape")
        await expect(chat.get_by_role("dialog")).to_be_hidden()
        await expect(chat.get_by_role("button", name="Otwórz czat")).to_be_focused()
    await site.one_lead(address)


async def test_a_message_whose_reply_was_cut_off_is_answered_once_also_after_a_reload(
    page: Page, site: Site
) -> None:
    chat = page.locator("ostoja-chat")
    assert await stored(page) == []
    await chat.get_by_role("button", name="Otwórz czat").click()
    await expect(chat.get_by_role("button", name="Wycena")).to_be_visible()
    assert await stored(page) == []
    text = chat.get_by_label("Wiadomość")
    reached = site.proxy.cut_before(DOWN, b"HTTP/1.1 200")
    await text.fill("Dzień dobry, remont łazienki 8 m2")
    await text.press("Enter")
    await reached.wait()
    await expect(chat.locator(".turn")).to_have_count(3, timeout=15_000)
    stalled = site.proxy.stall_before(DOWN, b"HTTP/1.1 200")
    await text.fill("od marca, budżet 40 tys.")
    await text.press("Enter")
    await stalled.wait()
    await site.proxy.refuse()
    await site.proxy.resume()
    await page.reload()
    await expect(chat.locator(".turn")).to_have_count(5, timeout=15_000)
    await expect(chat.locator(".turn").last).to_contain_text("40 000")
    session = json.loads(await page.evaluate("sessionStorage['ostoja.chat']"))["id"]
    said = site.stack.query(
        "select body from followups.chat_message m join followups.chat_conversations c"
        " on c.id = m.conversation_id where c.session_id = %s and m.author = 'lead'",
        session,
    )
    assert len(said) == 2


@pytest.mark.parametrize("kind", ["firefox", "webkit"])
async def test_eleven_checks_hold_in_another_browser(site: Site, ports: Ports, kind: str) -> None:
    program = {"firefox": "firefox-esr", "webkit": "WebKitWebDriver"}[kind]
    if not shutil.which(program) or not shutil.which("npm"):
        pytest.skip(f"{program} or npm is not installed here")
    control, port = web.Application(), ports.take()
    for name in ("refuse", "resume"):
        control.router.add_get(f"/{name}", _calling(getattr(site.proxy, name)))
    command = ["node", str(BROWSERS / "checks.js"), kind, site.url, f"http://{HOST}:{port}"]
    display = ["xvfb-run", "--auto-servernum"] if kind == "webkit" else []
    async with serving(control, port):
        node = await asyncio.create_subprocess_exec(
            *display, *command, stdout=PIPE, start_new_session=True
        )
        try:
            async with asyncio.timeout(300):
                said, _ = await node.communicate()
        finally:
            with suppress(ProcessLookupError):  # the browser, and its display
                os.killpg(node.pid, signal.SIGTERM)
    result = json.loads(said)
    assert [each for each in result["checks"] if each["fault"]] == []
    assert len(result["checks"]) == 11
    for sent in result["sent"]:
        await site.one_lead(sent["address"])
        if "shown" in sent:
            await site.recorded(sent["address"], sent["shown"])


def _calling(act: Callable[[], Awaitable[None]]) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        await act()
        return web.Response()

    return handle


async def tap(chat: Locator, name: str, then: int) -> None:
    """:param then: how many turns there are with the reply"""
    await chat.get_by_role("button", name=name, exact=True).click()
    await expect(chat.locator(".turn")).to_have_count(then, timeout=15_000)


async def said_in(site: Site, page: Page) -> list[str]:
    session = json.loads(await page.evaluate("sessionStorage['ostoja.chat']"))["id"]
    rows = site.stack.query(
        "select body from followups.chat_message m join followups.chat_conversations c"
        " on c.id = m.conversation_id where c.session_id = %s and m.author = 'lead' order by m.id",
        session,
    )
    return [row[0] for row in rows]


async def is_readable(page: Page, chat: Locator, name: str) -> None:
    """As `is_accessible`; and what can be tapped is large enough and inside the window."""
    await is_accessible(page, name)
    window = page.viewport_size or PHONE
    for chip in await chat.locator(".chip:visible").all():
        box = await chip.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24, name  # WCAG 2.2, 2.5.8
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= window["width"], name


@NPM
@pytest.mark.parametrize(("scheme", "size"), LOOKS)
async def test_a_request_is_tapped_and_each_state_is_accessible(
    browser: Browser, site: Site, scheme: Any, size: Any
) -> None:
    where, address = f"{scheme}-{size['width']}", fresh_address()
    async with visit(browser, site, viewport=size, color_scheme=scheme) as page:
        chat = await open_chat(page)
        await expect(chat.get_by_role("button", name="Wycena")).to_be_visible()
        await is_readable(page, chat, f"taps-1-opening-{where}")
        await tap(chat, "Wycena", 3)
        await tap(chat, "Kuchnia", 5)
        await is_readable(page, chat, f"taps-2-area-{where}")
        await chat.get_by_role("textbox", name="Jaki jest mniej więcej metraż?").fill("12,5")
        await page.keyboard.press("Enter")
        await expect(chat.locator(".turn")).to_have_count(7, timeout=15_000)
        await tap(chat, "60 000-120 000 zł", 9)
        await is_readable(page, chat, f"taps-3-start-{where}")
        await tap(chat, "jak najszybciej", 11)
        await is_readable(page, chat, f"taps-4-contact-{where}")
        await tap(chat, "Wolę e-mail", 13)
        await chat.get_by_role("textbox", name="Na jaki adres e-mail").fill(address)
        await page.keyboard.press("Enter")
        await expect(chat.locator(".turn")).to_have_count(15, timeout=15_000)
        await is_readable(page, chat, f"taps-5-consent-{where}")
        yes, no = (chat.get_by_role("button", name=name, exact=True) for name in ("Tak", "Nie"))
        size_of = "(it) => [it.offsetWidth, it.offsetHeight]"
        assert await yes.evaluate(size_of) == await no.evaluate(size_of)
        styles = [await each.evaluate("(it) => getComputedStyle(it).cssText") for each in (yes, no)]
        assert styles[0] == styles[1], "a yes is as easy as a no"
        shown = await chat.locator("#wording").inner_text()
        assert shown not in await chat.get_by_role("log").inner_text()
        await tap(chat, "Tak", 18)  # with the wording
        assert shown in await chat.get_by_role("log").inner_text(), "they can read what they gave"
        await chat.get_by_text("Zapisane:").click()
        await is_readable(page, chat, f"taps-6-card-{where}")
        await tap(chat, "Zmień: Metraż, 12,5 m²", 20)
        assert (await said_in(site, page))[:3] == ["Wycena", "Kuchnia", "12,5 m²"]
    await site.recorded(address, shown)


@NPM
async def test_taps_fit_320_pixels_and_the_keyboard_reaches_them_in_the_order_of_reading(
    browser: Browser, site: Site
) -> None:
    async with visit(browser, site, viewport={"width": 320, "height": 568}) as page:
        chat = await open_chat(page)
        await expect(chat.get_by_role("button", name="Wycena")).to_be_visible()
        await is_readable(page, chat, "taps-320-opening")
        await chat.get_by_role("log").focus()
        await page.keyboard.press("Tab")
        await expect(chat.get_by_role("button", name="Wycena")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(chat.locator(".turn")).to_have_count(3, timeout=15_000)
        for name in ("Wykończenie całości", "Kuchnia", "Łazienka"):
            await page.keyboard.press("Tab")
            await expect(chat.get_by_role("button", name=name)).to_be_focused()
        await page.keyboard.press("Space")
        await expect(chat.locator(".turn")).to_have_count(5, timeout=15_000)
        await page.keyboard.press("Tab")  # the card is one stop while it is closed
        await expect(chat.locator("summary")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.type("8")
        await page.keyboard.press("Enter")
        await expect(chat.locator(".turn")).to_have_count(7, timeout=15_000)
        await chat.get_by_role("textbox", name="budżet").fill("60")
        await page.keyboard.press("Enter")
        await expect(chat.locator("summary")).to_contain_text("60\xa0000\xa0zł", timeout=15_000)
        await is_readable(page, chat, "taps-320-start")
        group = chat.get_by_role("list", name="Kiedy mogłyby ruszyć prace?")
        await expect(group.get_by_role("listitem")).to_have_count(15)
        box = await chat.get_by_label("Wiadomość").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 568, "typing is always possible"
        moving = "() => document.querySelector('ostoja-chat').shadowRoot.getAnimations().length"
        assert await page.evaluate(moving) == 0


async def test_a_tap_whose_reply_was_cut_off_is_one_turn_also_after_a_reload(
    page: Page, site: Site
) -> None:
    chat = await open_chat(page)
    await expect(chat.get_by_role("button", name="Wycena")).to_be_visible()
    reached = site.proxy.cut_before(DOWN, b"HTTP/1.1 200")
    await chat.get_by_role("button", name="Wycena").dblclick()
    await reached.wait()
    await expect(chat.locator(".turn")).to_have_count(3, timeout=15_000)
    stalled = site.proxy.stall_before(DOWN, b"HTTP/1.1 200")
    await chat.get_by_role("button", name="Kuchnia").click()
    await stalled.wait()
    await site.proxy.refuse()
    await site.proxy.resume()
    await page.reload()
    await expect(chat.locator(".turn")).to_have_count(5, timeout=15_000)
    await page.reload()
    await expect(chat.get_by_role("button", name="10-15 m²")).to_be_visible()
    assert await said_in(site, page) == ["Wycena", "Kuchnia"]


async def test_a_value_that_is_refused_can_be_given_again(page: Page, site: Site) -> None:
    chat = await open_chat(page)
    await tap(chat, "Rozmowa z człowiekiem", 3)
    field = chat.get_by_role("textbox", name="Pod jaki numer telefonu")
    await field.fill("12")
    await page.keyboard.press("Enter")
    await expect(chat.get_by_text("Podaj numer telefonu")).to_be_visible()
    await field.fill("600 700 800")
    await page.keyboard.press("Enter")
    await expect(chat.locator(".turn").last).to_contain_text("600 700 800", timeout=15_000)


@NPM
@pytest.mark.parametrize(("scheme", "size"), LOOKS)
async def test_the_chat_works_and_is_accessible_without_a_script(
    browser: Browser, site: Site, scheme: Any, size: Any
) -> None:
    address = fresh_address()
    context = await browser.new_context(
        viewport=size, color_scheme=scheme, java_script_enabled=False
    )
    page = await context.new_page()
    await page.goto(f"{site.gateway}/chat")
    for number, name in enumerate(("Wycena", "Kuchnia", "10-15 m²", "Pomiń", "Jeszcze nie wiem")):
        await photograph(page, f"chat-page-{number}-{scheme}-{size['width']}", whole=True)
        await page.get_by_role("button", name=name).click()
    await page.get_by_role("button", name="Wolę e-mail").click()
    await page.get_by_label("Na jaki adres e-mail").fill("nic")
    await page.get_by_role("button", name="Wyślij").first.click()
    await page.get_by_label("Na jaki adres e-mail").fill(address)
    await page.get_by_role("button", name="Wyślij").first.click()
    shown = await page.locator(".consent fieldset > p").inner_text()
    await photograph(page, f"chat-page-consent-{scheme}-{size['width']}", whole=True)
    html, url = await page.content(), page.url
    await page.get_by_role("button", name="Tak", exact=True).click()
    await expect(page.get_by_text("Zapisuję zgodę")).to_be_visible()
    assert await context.cookies() == []
    await context.close()
    await site.recorded(address, shown)
    seen = await browser.new_page(viewport=size, color_scheme=scheme)
    await seen.route(url, lambda route: route.fulfill(body=html, content_type="text/html"))
    await seen.goto(url)
    await is_accessible(seen, f"chat-page-{scheme}-{size['width']}")
    await seen.close()
