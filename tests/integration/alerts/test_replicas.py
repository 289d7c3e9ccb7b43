"""Several processes, or one after another, share their breakers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually
from tests.support.ports import Ports

BREAKS: dict[str, Any] = {"breaker": {"fail_max": 1, "reset_timeout": 3600}, "concurrency": 1}

Another = Callable[[Alerts], Awaitable[Alerts]]


@pytest.fixture
async def another(ports: Ports, tmp_path: Path) -> AsyncIterator[Another]:
    """Start a second process on the same database and broker."""
    async with AsyncExitStack() as closing:

        async def start(first: Alerts) -> Alerts:
            folder = tmp_path / "another"
            folder.mkdir()
            own = {"HTTP_PORT": str(ports.take()), "METRICS_PORT": str(ports.take())}
            second = Alerts(
                first.environment | own, folder, first.session, first.engine, first.gateway,
                first.vhost, first.sandbox, first.database,
            )  # fmt: skip
            closing.push_async_callback(second.ended)
            await second.start()
            return second

        yield start


async def opened(*subjects: Alerts) -> None:
    async def are() -> bool:
        line = 'alerts_breaker_state{state="open",target="slack"} 1.0'
        return all([line in await each.metrics() for each in subjects])

    await eventually(are, 20)


async def test_a_manual_reset_reaches_every_process_and_logs_the_operator(
    alerts: StartAlerts, another: Another
) -> None:
    first = await alerts(slack=BREAKS)
    second = await another(first)
    await first.sandbox.behave("slack", status=500)
    ids = [await first.accept() for _ in range(10)]
    await opened(first, second)
    await first.sandbox.behave("slack", status=200)
    assert (await second.http("POST", "/api/breakers/slack/reset"))[0] == 200

    async def closed_in_both() -> bool:
        return [(await each.breaker())["state"] for each in (first, second)] == ["closed"] * 2

    await eventually(closed_in_both)
    for alert_id in ids:
        await first.until(alert_id, "delivered")
    assert '"operator": "env:ADMIN_API_KEY tester"' in second.log.read_text()


async def test_a_stopped_process_is_no_longer_counted(
    alerts: StartAlerts, another: Another
) -> None:
    first = await alerts()
    second = await another(first)
    await eventually(second.breaker, so=lambda found: found["processes"] == 2)
    await first.stop()
    assert (await second.breaker())["processes"] == 1


async def test_a_new_process_keeps_the_start_of_an_incident(alerts: StartAlerts) -> None:
    subject = await alerts(slack=BREAKS | {"breaker": {"fail_max": 1, "reset_timeout": 4}})
    await subject.sandbox.behave("slack", status=500)
    await subject.accept()
    await opened(subject)
    since = (await eventually(subject.breaker, so=lambda found: found["open_since"]))["open_since"]
    subject.kill9()
    await subject.start()
    await opened(subject)  # as the dead process left it
    assert (await subject.breaker())["open_since"] == since

    await subject.sandbox.behave("slack", status=200)
    await subject.until(await subject.accept(), "delivered")
    await eventually(
        lambda: subject.scalar("SELECT count(*) FROM incident"), so=lambda found: found == 0
    )
