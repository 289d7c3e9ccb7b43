"""Every command in docs/runbooks, on the whole system, in the situation that its page is for."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from deploy.local.servers import Postgres, RabbitMQ, Redis
from tests.integration.system.test_person import lead
from tests.support.databases import Databases
from tests.support.eventually import eventually
from tests.support.ports import Ports
from tests.support.runbooks import RUNBOOKS, Checkout, running_checkout, sections
from tests.support.stack import Stack

PERSON = "anna@example.pl"
Situation = Callable[[Stack], AbstractAsyncContextManager[None]]

PAGES = {page.stem: sections(page) for page in sorted(RUNBOOKS.glob("*.md"))}
STEPS = [(page, name) for page, found in PAGES.items() for name in found if name and found[name]]


@pytest.fixture(scope="module")
def checkout(
    private_folder: Path,
    ports: Ports,
    databases: Databases,
    postgres: Postgres,
    rabbitmq: RabbitMQ,
    redis_server: Redis,
) -> Iterator[Checkout]:
    folder = private_folder / f"runbooks-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    servers = (postgres, rabbitmq, redis_server)
    with running_checkout(folder, ports, databases, servers) as made:
        yield made


@asynccontextmanager
async def as_it_is(_: Stack) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def somebody(stack: Stack) -> AsyncIterator[None]:
    """Somebody whom every service knows."""
    await lead(stack, PERSON)
    yield


@asynccontextmanager
async def without_alerts(stack: Stack) -> AsyncIterator[None]:
    await stack.kill9("alerts")
    try:
        yield
    finally:
        await stack.start("alerts")

    async def done() -> bool:
        answer = await stack.http("GET", f"/api/consent/audit/{PERSON}", key="admin")
        return bool(answer.body["erasure"]["status"] == "done")

    await eventually(done, 60)


SITUATIONS: dict[tuple[str, str], Situation] = {
    ("person-asks", "What do you hold on me"): somebody,
    ("person-asks", "A service is down"): without_alerts,
}
"""What is the case when a section is read; the people of the sections before are still there."""


@pytest.mark.parametrize(("page", "section"), STEPS)
async def test_what_a_runbook_says_can_be_done(checkout: Checkout, page: str, section: str) -> None:
    found = PAGES[page]
    async with SITUATIONS.get((page, section), as_it_is)(checkout.stack):
        await checkout.run([*found[""], *found[section]])


def test_every_situation_is_that_of_a_section() -> None:
    assert set(SITUATIONS) <= set(STEPS)
