"""Every command in docs/runbooks, on the whole system, in the situation that its page is for."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.system.test_person import done, lead
from tests.support.checkouts import Checkout, MadeUp, made_up
from tests.support.consumers import until
from tests.support.ports import Ports
from tests.support.runbooks import RUNBOOKS, sections
from tests.support.system import fresh_address
from tests.support.troubles import (
    FIRST,
    OF_MAKE_UP,
    OF_THREE_HOSTS,
    TROUBLES,
    passes,
    patiently,
    steps,
)

DOCS = RUNBOOKS.parent
EVERY = {**TROUBLES, **OF_MAKE_UP}
PERSON = "anna@example.pl"
Situation = Callable[[Checkout], AbstractAsyncContextManager[None]]

PAGES = {
    page.stem: sections(page) for page in (*sorted(RUNBOOKS.glob("*.md")), DOCS / "privacy.md")
}
# test_backup.py goes by the page of a backup that was not verified.
STEPS = [
    (page, name)
    for page, found in PAGES.items()
    if page not in EVERY and page not in OF_THREE_HOSTS and page != "backup-not-verified"
    for name in found
    if name and found[name]
]


@pytest.fixture(scope="module")
def checkout(private_folder: Path, ports: Ports) -> Iterator[MadeUp]:
    folder = private_folder / f"runbooks-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    with made_up(folder, ports) as made:
        yield made


@asynccontextmanager
async def as_it_is(_: Checkout) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def somebody(checkout: Checkout) -> AsyncIterator[None]:
    """Somebody whom every service knows."""
    await lead(checkout, PERSON)
    yield


@asynccontextmanager
async def without_alerts(checkout: Checkout) -> AsyncIterator[None]:
    await checkout.freeze("alerts")
    try:
        yield
    finally:
        await checkout.thaw("alerts")

    await done(checkout, PERSON)


@asynccontextmanager
async def a_wrong_key(checkout: Checkout) -> AsyncIterator[None]:
    key = {"X-ADMIN-API-KEY": "the-key-of-last-year"}
    answer = await checkout.http("GET", "/api/breakers", headers=key)
    assert answer.status == 401, answer
    await said(checkout, "gateway", "key.rejected")
    yield


@asynccontextmanager
async def nobody_records(checkout: Checkout) -> AsyncIterator[None]:
    """Clean the cache while neither takes its record; both are back when it is read."""
    await checkout.stop("rabbitmq")
    await checkout.freeze("console")
    try:
        answer = await checkout.http("POST", "/api/cache/cleanup", key="admin")
        assert answer.status == 200, answer
    finally:
        await checkout.thaw("console")
    await said(checkout, "gateway", "action.unrecorded")
    await checkout.run([*FIRST, *PAGES["outbox-lag"]["Act"]])
    await patiently(checkout, steps("outbox-lag")[2])
    yield


@asynccontextmanager
async def no_folder_for_records(checkout: Checkout) -> AsyncIterator[None]:
    folder = checkout.folder / ".local" / "consent"
    await checkout.opt_in(fresh_address())
    await until(folder.exists, 90)
    folder.rename(folder.with_suffix(".away"))
    folder.touch()  # a folder without rights would not keep root out
    try:
        await checkout.opt_in(fresh_address())
        await said(checkout, "consent", "periodic.failed")
        yield
    finally:
        folder.unlink()
        folder.with_suffix(".away").rename(folder)


async def said(checkout: Checkout, name: str, event: str) -> None:
    log = checkout.folder / ".local" / "log" / f"{name}.log"

    await until(lambda: event in log.read_text(encoding="utf-8"), 90)


SITUATIONS: dict[tuple[str, str], Situation] = {
    ("data-subject-requests", "What do you hold on me"): somebody,
    ("privacy", "An inspector: what do you hold on this person (Art. 15)"): somebody,
    ("data-subject-requests", "A service is down"): without_alerts,
    ("keys-rejected", "Look"): a_wrong_key,
    ("acts-unrecorded", "Look"): nobody_records,
    ("periodic-job-failing", "Look"): no_folder_for_records,
}
"""What is the case when a section is read; the people of the sections before are still there."""


@pytest.mark.parametrize(("page", "section"), STEPS)
async def test_what_a_runbook_says_can_be_done(checkout: Checkout, page: str, section: str) -> None:
    found = PAGES[page]
    first = FIRST if page != "privacy" else []
    async with SITUATIONS.get((page, section), as_it_is)(checkout):
        await checkout.run([*first, *found[""], *found[section]])


@pytest.mark.parametrize("page", EVERY)
async def test_a_trouble_is_seen_then_and_only_then_and_its_page_ends_it(
    checkout: Checkout, page: str
) -> None:
    trouble, (look, act, verify) = EVERY[page], steps(page)
    await checkout.run(FIRST)  # else what follows would fail for no reason of its own
    assert not await passes(checkout, look), "its symptom is seen without the trouble"
    await trouble.begins(checkout)
    await patiently(checkout, look)
    assert not await passes(checkout, verify), "it says that the trouble is over, amid it"
    await trouble.mends(checkout)
    await checkout.run(act)
    await patiently(checkout, verify)


def test_every_situation_is_that_of_a_section() -> None:
    assert set(SITUATIONS) <= set(STEPS)
