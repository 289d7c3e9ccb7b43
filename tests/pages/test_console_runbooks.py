"""What docs/runbooks says that the console does, done by clicks and by the role it names."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from services.console.pages.page import GROUPS
from services.console.texts import TEXTS
from tests.pages.conftest import DESK, PHONE, entered, unfold
from tests.support.consumers import until
from tests.support.ending import states_in_the_ledger
from tests.support.eventually import eventually
from tests.support.forms import submit
from tests.support.runbooks import RUNBOOKS
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.pages

EN = TEXTS["en"]
SAYS = re.compile(r"^In the console \((?P<roles>[a-z, ]+)\)", re.MULTILINE)
ALERT = {"event_type": "webhook", "payload": {"text": "x"}}
OPENS_AT = 5
"""Failures in a row that open a breaker."""


def roles_of(runbook: str) -> list[str]:
    found = SAYS.search((RUNBOOKS / f"{runbook}.md").read_text(encoding="utf-8"))
    return found["roles"].split(", ") if found else []


def name_of(test: str) -> str:
    return test.removeprefix("test_").replace("_", "-")


@pytest.fixture(scope="module")
def stack(console_stack: Stack) -> Stack:
    return console_stack


@pytest.fixture
async def page(
    request: pytest.FixtureRequest, browser: Browser, stack: Stack
) -> AsyncIterator[Page]:
    """Log in as the roles that the test's runbook names, on the page *Start*."""
    await stack.sandbox.heal()
    roles = roles_of(name_of(request.function.__name__))
    size = PHONE if roles == ["sales"] else {**DESK}  # both without scripts
    opened, complaints = await entered(browser, stack, "en", "light", size, *roles)
    yield opened
    assert complaints == []
    await opened.context.close()


def test_each_runbook_that_names_the_console_is_done_here() -> None:
    named = {page.stem for page in RUNBOOKS.glob("*.md") if roles_of(page.stem)}
    assert {name_of(test) for test in globals() if test.startswith("test_")} >= named


async def open_from_menu(page: Page, *names: str) -> None:
    """Open a page by its tab; first its group, if that is not open."""
    for name in names:
        group = next((each for each, pages in GROUPS.items() if name in pages), None)
        link = page.get_by_role("link", name=re.compile(rf"^{EN[name]}\b"))
        if group and not await link.count():
            await page.get_by_role("link", name=EN[f"group_{group}"], exact=True).first.click()
        if await link.count():  # a group of one page has no tabs
            await link.first.click()


async def all_are(stack: Stack, ids: list[str], state: str) -> bool:
    return states_in_the_ledger(stack, ids) == dict.fromkeys(ids, state)


async def on_hold(stack: Stack) -> list[str]:
    """Break the webhook until its breaker opens; return the alerts that wait for it."""
    await stack.sandbox.behave("webhook", status=500)
    ids = [await stack.alert("x", event_type="webhook") for _ in range(OPENS_AT)]

    async def opened() -> bool:
        breakers = (await stack.http("GET", "/api/breakers", key="admin")).body
        return bool(breakers["webhook"]["state"] == "open")

    await eventually(opened, 30)
    await eventually(lambda: all_are(stack, ids, "pending"), 30)
    await stack.sandbox.heal()
    return ids


async def act_on_all(page: Page, state: str, target: str, verb: str) -> None:
    """Choose a list, act on all of it, and wait until that is finished."""
    await open_from_menu(page, "alerts", f"state_{state}")
    await page.get_by_label(EN["target"], exact=True).select_option(target)
    await page.get_by_role("button", name=EN["filter"]).click()
    await page.locator("main .all > summary").click()
    form = page.locator("main .all form")
    number = await form.locator("[name=expected]").get_attribute("value")
    assert number is not None
    assert int(number) > 0
    if verb == "discard":
        await form.locator("#number").fill(number)
    await form.get_by_label(EN["reason"]).fill("as the runbook says")
    await form.get_by_role("button", name=EN[f"bulk_{verb}"]).click()

    async def finished() -> bool:
        if await page.get_by_text(EN["bulk_done"]).count():
            return True
        await page.get_by_role("link", name=EN["reload"]).click()
        return False

    await eventually(finished, 60, every=0.3)


async def test_alerts_pending(page: Page, stack: Stack) -> None:
    ids = await on_hold(stack)
    await act_on_all(page, "pending", "webhook", "discard")
    await eventually(lambda: all_are(stack, ids, "discarded"), 30)


async def test_breaker_open(page: Page, stack: Stack) -> None:
    ids = await on_hold(stack)
    await open_from_menu(page, "targets")
    form = page.locator("form[action='/console/targets/webhook/reset']")
    await form.get_by_role("button", name=EN["reset"]).click()
    await eventually(lambda: all_are(stack, ids, "delivered"), 60)


async def test_dead_letters(page: Page, stack: Stack) -> None:
    await stack.sandbox.behave("monday", status=400)
    ids = [await stack.alert("x", target="monday") for _ in range(2)]
    await eventually(lambda: all_are(stack, ids, "failed"), 30)
    await stack.sandbox.heal()
    await act_on_all(page, "failed", "monday", "retry")
    await eventually(lambda: all_are(stack, ids, "delivered"), 60)


async def change_back(page: Page, stack: Stack, limit: str) -> None:
    set_by_mistake = {limit: "1000000 per hour"}
    await stack.http("PUT", "/api/ratelimits", set_by_mistake, key="admin")
    await open_from_menu(page, "limits")
    form = page.get_by_role("listitem").filter(has=page.locator(f"#limit-{limit}"))
    await form.locator("summary").click()
    await form.get_by_label(EN["new_limit"]).fill("2000000")
    await form.get_by_label(EN["limit_span"]).select_option("hour")
    await form.get_by_role("button", name=EN["save_limit"]).click()
    await expect(form).to_contain_text("2\xa0000\xa0000 per")
    await form.locator("summary").click()
    await form.get_by_role("button", name=EN["clear_limit"]).click()
    await expect(form).not_to_contain_text(EN["source_override"])
    found = (await stack.http("GET", "/api/ratelimits", key="admin")).body
    assert found["sources"][limit] != "override"


async def test_budget_exhausted(page: Page, stack: Stack) -> None:
    await change_back(page, stack, "write_budget")


async def test_rate_limit_hit(page: Page, stack: Stack) -> None:
    await change_back(page, stack, "chat")


async def test_cases_unanswered(page: Page, stack: Stack) -> None:
    email, name = fresh_address(), "Ola Zając"
    assert (await submit(stack, {"email": email, "name": name})).status == 202

    async def in_state(state: str) -> list[str]:
        found = (await stack.http("GET", f"/api/leads?email={email}", key="service")).body["items"]
        path = f"/api/leads/{found[0]['id']}" if found else "/api/leads/nothing"
        ids = (await stack.http("GET", path, key="service")).body.get("alert_ids", ())
        listed = (await stack.http("GET", f"/api/cases?state={state}", key="service")).body
        return [case["id"] for case in listed["items"] if case["id"] in ids]

    (case,) = await eventually(lambda: in_state("unanswered"), 60)
    await page.reload()
    await page.get_by_role("link", name=EN["inbox_unanswered"].partition(":")[0]).click()
    await page.get_by_role("link", name=name).first.click()
    await page.get_by_role("button", name=EN["do_taken"], exact=True).click()
    await expect(page.locator(".acts summary", has_text=EN["do_won"])).to_be_visible()
    assert await in_state("answered") == [case]


async def in_doubt(stack: Stack) -> tuple[str, str]:
    """Return a mail whose delivery is unknown, and its recipient."""
    email = fresh_address()
    await stack.opt_in(email)
    await stack.sandbox.behave("email", close=True)  # with the dot perhaps out
    await stack.follow_up(email)

    async def listed() -> list[Any]:
        found = (await stack.http("GET", "/api/dlq/in-doubt", key="admin")).body["items"]
        return [row["id"] for row in found if row["payload"]["to"] == email]

    (alert_id,) = await eventually(listed, 30)
    await stack.sandbox.heal()
    return alert_id, email


async def find_out(page: Page, stack: Stack, alert_id: str) -> None:
    await page.get_by_label(EN["outcome_delivered"]).check()
    await page.get_by_label(EN["reason"]).fill("the mail server's log has it")
    await page.get_by_role("button", name=EN["resolve"]).click()
    await expect(page.get_by_role("button", name=EN["resolve"])).to_have_count(0)
    assert await all_are(stack, [alert_id], "delivered")


async def test_delivery_in_doubt(page: Page, stack: Stack) -> None:
    alert_id, _ = await in_doubt(stack)
    await open_from_menu(page, "alerts", "state_in_doubt")
    await page.locator(f"main h2 a[href='/console/alerts/{alert_id}']").click()
    await find_out(page, stack, alert_id)


async def test_permit_overrun(page: Page, stack: Stack) -> None:
    alert_id, email = await in_doubt(stack)
    await open_from_menu(page, "alerts", "state_in_doubt")
    await page.locator(f"main h2 a[href='/console/alerts/{alert_id}']").click()
    await expect(page.locator("pre", has_text=email)).to_be_visible()
    there = page.url
    await open_from_menu(page, "person")
    await look_up(page, email)
    await page.goto(there)
    await find_out(page, stack, alert_id)


async def look_up(page: Page, email: str) -> None:
    await page.get_by_label(EN["who"]).fill(email)
    await page.get_by_role("button", name=EN["look"], exact=True).click()
    await expect(page.get_by_text(EN["trail_opt-in"], exact=True)).to_be_visible()


async def test_data_subject_requests(page: Page, stack: Stack) -> None:
    email = fresh_address()
    await stack.opt_in(email)
    await open_from_menu(page, "person")
    await look_up(page, email)
    async with page.expect_download() as saved:
        await page.locator("summary", has_text=EN["export"]).click()
        await page.get_by_role("button", name=EN["do_export"]).click()
    assert (await saved.value).suggested_filename == "person.json"
    await page.get_by_role("button", name=EN["do_withdraw"]).click()
    await expect(page.get_by_text(EN["person_withdrawn"])).to_be_visible()
    await expect(page.get_by_text(EN["trail_unsubscribe"], exact=True)).to_be_visible()
    assert (await stack.consents(email))["unsubscribed"] is True
    await page.locator("summary", has_text=EN["erase"]).click()
    await page.get_by_label(EN["again_who"]).fill(email)
    await page.get_by_role("button", name=EN["do_erase"]).click()
    await expect(page.get_by_text(EN["person_erasing"])).to_be_visible()

    act = "SELECT 1 FROM console.staff_action WHERE action = 'person.withdraw'"
    await until(lambda: stack.query(act))


async def test_keys_rejected(page: Page, stack: Stack) -> None:
    async def opens(key: str) -> int:
        headers = {"X-API-KEY": key}
        return (await stack.http("POST", "/api/alerts", ALERT, headers=headers)).status

    await open_from_menu(page, "keys")
    await unfold(page)
    for label, text in (("key_name", "crm"), ("purpose", "sends alerts"), ("owner", "Ewa")):
        await page.get_by_label(EN[label], exact=True).fill(text)
    await page.get_by_label(EN["preset_own"]).check()
    await page.locator("[name=scope][value='alerts:write']").check()
    await page.get_by_role("button", name=EN["make_key"]).click()
    leaked = await shown_key(page)
    assert await opens(leaked) == 202
    row = page.get_by_role("listitem").filter(has_text=leaked.split("_")[1])
    await row.locator(".more > summary").click()
    await row.locator("summary", has_text=EN["rotation"]).click()
    await row.get_by_label(EN["overlap"]).select_option("0")
    await row.get_by_role("button", name=EN["rotate"]).click()
    new = await shown_key(page)
    assert (await opens(leaked), await opens(new)) == (401, 202)
    await row.locator(".more > summary").click()
    await row.locator("summary", has_text=EN["revocation"]).click()
    await row.get_by_label(EN["reason"]).fill("it was in a screenshot")
    await row.get_by_role("button", name=EN["revoke"]).click()
    await expect(page.get_by_text(EN["in_force"])).to_be_visible()
    assert await opens(new) == 401


async def shown_key(page: Page) -> str:
    text = await page.locator(".said code").text_content()
    assert text is not None
    return text


async def test_oncall_gap(page: Page, stack: Stack) -> None:
    await open_from_menu(page, "oncall")
    await page.locator("summary", has_text=EN["stand_in"]).click()
    await page.get_by_label(EN["stand_in_who"]).select_option("sales maria")
    await page.locator("#reason-stand-in").fill("the schedule has nobody")
    await page.get_by_role("button", name=EN["stand_in"]).click()
    await expect(page.locator(".now", has_text="Maria Sowa")).to_be_visible()
    sales = (await stack.http("GET", "/api/oncall", key="admin")).body["schedules"]["sales"]
    assert (sales["person"], sales["rule"]) == ("maria", "override")
    await page.get_by_role("button", name=EN["remove_override"]).click()
    await expect(page.get_by_role("button", name=EN["remove_override"])).to_have_count(0)
