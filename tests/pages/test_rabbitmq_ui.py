"""RabbitMQ's management UI as docs/rabbitmq-ui.md shows it, in a trouble of which it tells.

SCREENSHOTS=docs/images make test-pages ARGS="-k rabbitmq" makes the page's pictures again.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from deploy.provision import VHOST, provision_rabbitmq, retry_policies
from deploy.up.environment import ROOT
from deploy.up.servers import RabbitMQ
from tests.conftest import WholeSystem
from tests.pages.conftest import photograph
from tests.support.brokers import PASSWORDS, Management
from tests.support.eventually import eventually
from tests.support.stack import QUICK_MAIL, QUICK_TARGET, Stack, write_alerts_config

pytestmark = pytest.mark.pages

WAITING = 40
# The breaker stays open, and what failed stays in `.retry`, for as long as somebody looks.
SICK = QUICK_TARGET | {
    "retry_delays": [300, 300],
    "breaker": {"fail_max": 5, "reset_timeout": 600},
}
DESK: Any = {"width": 1280, "height": 760}
# What the page tells to set: the column with the consumers, and whose queues are shown.
PREFERENCES = {
    "vhost": VHOST,  # a server of tests has others, too
    "column-queues-consumers": "true",
    "queues_current_filter_name": r"^alerts\.(intake|monday|slack)(\.(retry|dead))?$",
    "queues_current_regex": "checked",
}


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, whole_system: WholeSystem, rabbitmq: RabbitMQ
) -> Iterator[Stack]:
    """The system under the vhost's real name, with the policies of production."""
    config = write_alerts_config(
        tmp_path_factory.mktemp("sick"),
        {"slack": SICK, "monday": QUICK_TARGET, "email": QUICK_MAIL},
    )
    with whole_system({"ALERTS_CONFIG": str(config)}, VHOST) as running:
        running.vhost.call("DELETE", "policies", "retry")  # the tests' own
        provision_rabbitmq(
            rabbitmq.management_url,
            (rabbitmq.admin, rabbitmq.password),
            PASSWORDS,
            retry_policies(ROOT / "config.example" / "alerts.toml"),
        )
        yield running


async def ready(stack: Stack, queue: str) -> int:
    return int(stack.vhost.call("GET", "queues", queue).get("messages_ready", 0))


@pytest.fixture
async def troubled(stack: Stack) -> Stack:
    """Slack is down and its breaker open; Monday.com has refused one alert for good."""
    await stack.sandbox.behave("slack", status=500)
    await stack.sandbox.behave("monday", status=400)
    await stack.alert("a lead that Monday.com refuses", target="monday")
    for number in range(WAITING):
        await stack.alert(f"while Slack is down {number}")

    async def told() -> bool:
        return (
            await ready(stack, "alerts.slack") > 10
            and await ready(stack, "alerts.monday.dead") == 1
        )

    await eventually(told, 30, every=0.5)
    return stack


@pytest.fixture
async def ui(browser: Browser, troubled: Stack) -> AsyncIterator[Page]:
    """Somebody at a desk, logged in as admin."""
    server = troubled.rabbitmq
    context = await browser.new_context(viewport=DESK, locale="en-GB")
    page = await context.new_page()
    await page.goto(server.management_url)
    await page.locator("input[name=username]").fill(server.admin)
    await page.locator("input[name=password]").fill(server.password)
    await page.get_by_role("button", name="Login").click()
    await expect(page.locator("#logout")).to_be_visible()
    for name, value in PREFERENCES.items():
        await page.evaluate(f"localStorage.setItem('rabbitmq.{name}', {json.dumps(value)})")
    yield page
    await context.close()


def messages(stack: Stack) -> int:
    """Count them in all vhosts, as the overview does. One may hold several alerts."""
    queues = Management(stack.rabbitmq).call("GET", "queues")
    return sum(each.get("messages", 0) for each in queues)


async def opened(page: Page, stack: Stack, place: str) -> None:
    await page.goto(f"{stack.rabbitmq.management_url}/#/{place}")
    await page.reload()


async def test_the_ui_shows_what_the_page_says_and_its_button_moves_a_letter_back(
    ui: Page, troubled: Stack
) -> None:
    await ui.set_viewport_size(DESK | {"height": 860})
    await opened(ui, troubled, "")
    total = messages(troubled)
    assert total > 10
    waiting = ui.get_by_role("row", name=re.compile(rf"^Total {total}$"))
    await expect(waiting).to_be_visible(timeout=20_000)
    await expect(ui.get_by_role("cell", name=re.compile("high watermark"))).to_be_visible()
    await photograph(ui, "rabbitmq-overview")

    await ui.set_viewport_size(DESK)
    await opened(ui, troubled, "queues")
    slack = ui.get_by_role("row").filter(
        has=ui.get_by_role("link", name="alerts.slack", exact=True)
    )
    await expect(slack).to_contain_text("running")
    await photograph(ui, "rabbitmq-queues")

    await opened(ui, troubled, f"queues/{VHOST}/alerts.slack")
    await expect(ui.get_by_role("heading", name="Consumers (0)")).to_be_visible()
    await photograph(ui, "rabbitmq-paused")

    await opened(ui, troubled, "connections")
    for service in ("gateway", "alerts", "consent", "followups"):
        row = ui.get_by_role("row", name=re.compile(rf"\b{service} publish"))
        await expect(row).to_be_visible()
    await photograph(ui, "rabbitmq-connections")

    await opened(ui, troubled, "policies")
    row = ui.get_by_role("row", name=re.compile("alerts-slack-retry.*300000"))
    await expect(row).to_be_visible()
    await photograph(ui, "rabbitmq-policies")

    await ui.set_viewport_size(DESK | {"height": 980})
    await opened(ui, troubled, f"queues/{VHOST}/alerts.monday.dead")
    await ui.evaluate("jQuery.fx.off = true")
    await ui.get_by_role("heading", name="Move messages").click()
    await ui.locator("input[name=dest-queue]").fill("alerts.monday")
    await ui.get_by_role("heading", name="Get messages").click()
    await ui.get_by_role("button", name="Get Message(s)").click()
    message = ui.locator("#msg-wrapper")
    await expect(message).to_contain_text("x-reason")
    await expect(message).to_contain_text("refused")
    await ui.get_by_role("button", name="Move messages").scroll_into_view_if_needed()
    await photograph(ui, "rabbitmq-dead")

    await troubled.sandbox.behave("monday", status=200)
    await ui.get_by_role("button", name="Move messages").click()

    async def delivered() -> bool:
        check = await troubled.ledger()
        return (check["delivered"], check["failed"]) == (1, 0)

    await eventually(delivered, 30, every=0.2)

    async def gone() -> bool:
        return await ready(troubled, "alerts.monday.dead") == 0

    await eventually(gone, 30, every=0.5)
