"""PostgreSQL's primary is lost under load, and its standby takes over."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from deploy.up.servers import Postgres
from libs.common.process import tasks
from tests.conftest import NewDatabase
from tests.integration.alerts.conftest import StartAlerts
from tests.support.consumers import until
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually
from tests.support.ports import Ports
from tests.support.replicas import Pair, black_hole, freezing, running_pair
from tests.support.servers import kill_with_children

pytestmark = pytest.mark.promise("P1")

MORE = 30


@pytest.fixture
def pair(private_folder: Path, tmp_path: Path, ports: Ports) -> Iterator[Pair]:
    with (
        black_hole() as hole,
        running_pair(private_folder / tmp_path.name, ports.take) as started,
    ):
        started.first = [hole]
        yield started


@pytest.fixture
def database(pair: Pair) -> NewDatabase:
    async def create(service: str, *, migrated: bool = True) -> DatabaseUrl:
        url = pair.create(service, migrated=migrated)
        await pair.in_step()
        return url

    return create


@pytest.mark.parametrize("killed", [True, False])
async def test_alerts_accepted_around_a_failover_are_all_delivered(
    pair: Pair, alerts: StartAlerts, *, killed: bool
) -> None:
    with freezing() as freeze:
        await failover(pair, alerts, kill_with_children if killed else freeze)


async def failover(pair: Pair, alerts: StartAlerts, lose: Callable[[Postgres], None]) -> None:
    running = await alerts(ALERTS_RECONCILE_SECONDS="1", ALERTS_OVERDUE_SECONDS="5")
    accepted: dict[str, str] = {}
    """The text of each."""

    async def accept() -> None:
        while True:
            text = f"number {len(accepted)}"
            accepted[await running.accept(payload={"text": text})] = text
            await asyncio.sleep(0.02)

    async def some_more_are_delivered() -> None:
        before = len(accepted)
        await until(lambda: len(accepted) >= before + MORE)
        last = list(accepted)[-1]

        async def delivered() -> bool:
            with suppress(DBAPIError):  # of the test's own connection to the lost server
                row = await running.row(last)
                return row is not None and bool(row.state == "delivered")
            return False

        await eventually(delivered, 60)

    accepting = asyncio.create_task(accept())
    try:
        await some_more_are_delivered()
        await asyncio.to_thread(lose, pair.server)
        await asyncio.to_thread(pair.promote)
        await some_more_are_delivered()
    finally:
        await tasks.end(accepting)
    for alert_id in accepted:
        await running.until(alert_id, "delivered", seconds=60)
    assert (await running.check())["ok"]
    assert await running.depth("alerts.intake.dead") == 0
    received = {str(each["body"]) for each in await running.sandbox.received("slack")}
    assert all(any(f"{text}'" in body for body in received) for text in accepted.values())


async def test_without_a_standby_alerts_wait_and_the_metric_of_the_database_says_so(
    pair: Pair, alerts: StartAlerts
) -> None:
    running = await alerts()
    pair.confirm_by("ANY 1 (nobody)")
    accepted = [await running.accept() for _ in range(5)]

    async def connected(state: str) -> bool:
        return f"database_connected {state}\n" in await running.metrics()

    await eventually(lambda: connected("0.0"))
    assert await running.row(accepted[0]) is None
    pair.confirm_by("ANY 1 (*)")
    await eventually(lambda: connected("1.0"))
    for alert_id in accepted:
        await running.until(alert_id, "delivered", seconds=60)
    assert (await running.check())["ok"]
    assert await running.depth("alerts.intake.dead") == 0
