"""Several processes, or one after another: what they know of each other's breakers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.local.servers import Process
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually
from tests.support.ports import Ports

SICK: dict[str, Any] = {"breaker": {"fail_max": 1, "reset_timeout": 3600}, "concurrency": 1}
OPEN = "SELECT count(*) FROM breaker WHERE state = 'open'"

Another = Callable[[Alerts], Awaitable[Alerts]]


@pytest.fixture
async def another(ports: Ports, tmp_path: Path) -> AsyncIterator[Another]:
    """Start a second process on the same database and broker."""
    async with AsyncExitStack() as closing:

        async def start(first: Alerts) -> Alerts:
            folder = tmp_path / "another"
            folder.mkdir()
            port = ports.take()
            own = {"HTTP_PORT": str(port), "METRICS_PORT": str(ports.take())}
            second = replace(
                first,
                process=Process(folder / "alerts.pid"),
                environment=first.environment | own,
                folder=folder,
                port=port,
            )
            closing.callback(second.stop)
            await second.start()
            return second

        yield start


async def breaker(subject: Alerts) -> dict[str, Any]:
    _, body = await subject.http("GET", "/api/breakers")
    found: dict[str, Any] = body["slack"]
    return found


async def opened(subject: Alerts, count: int = 1) -> None:
    async def are() -> bool:
        return bool(await subject.scalar(OPEN) == count)

    await eventually(are, 20)


async def test_what_one_process_opened_all_of_them_show(
    alerts: StartAlerts, another: Another
) -> None:
    first = await alerts(slack=SICK)
    second = await another(first)
    await first.sandbox.behave("slack", status=500)
    await first.accept()
    await opened(first)
    shown = [await breaker(each) for each in (first, second)]
    for each in shown:
        assert (each["state"], each["failures"], each["processes"]) == ("open", 1, 2)
        assert each["open_since"] is not None
        assert each["next_trial_at"] is not None
    assert shown[0]["open_since"] == shown[1]["open_since"]
    _, health = await second.http("GET", "/health/deep")
    assert health["status"] == "degraded"
    assert health["circuit_breakers"]["slack"]["state"] == "open"


async def test_a_reset_by_hand_reaches_every_process_and_bears_the_operators_name(
    alerts: StartAlerts, another: Another
) -> None:
    first = await alerts(slack=SICK)
    second = await another(first)
    await first.sandbox.behave("slack", status=500)
    ids = [await first.accept() for _ in range(10)]
    await opened(first, 2)
    await first.sandbox.behave("slack", status=200)
    assert (await second.http("POST", "/api/breakers/slack/reset"))[0] == 200

    async def closed_in_both() -> bool:
        return [(await breaker(each))["state"] for each in (first, second)] == ["closed"] * 2

    await eventually(closed_in_both)
    for alert_id in ids:
        await first.until(alert_id, "delivered")
    assert await first.scalar("SELECT array_agg(reset_by) FROM breaker WHERE target = 'slack'") == [
        "tester",
        "tester",
    ]


async def test_a_process_that_stops_leaves_no_open_breaker_behind(
    alerts: StartAlerts, another: Another
) -> None:
    first = await alerts()
    second = await another(first)
    assert (await breaker(second))["processes"] == 2
    first.stop()
    assert (await breaker(second))["processes"] == 1


async def test_a_new_process_goes_on_counting_since_when_nothing_got_through(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack=SICK | {"breaker": {"fail_max": 1, "reset_timeout": 4}})
    await subject.sandbox.behave("slack", status=500)
    await subject.accept()
    await opened(subject)
    since = (await breaker(subject))["open_since"]
    subject.kill9()
    await subject.start()
    await subject.accept()
    await opened(subject, 2)  # the dead one's, for some seconds yet
    assert (await breaker(subject))["open_since"] == since

    await subject.sandbox.behave("slack", status=200)
    await subject.until(await subject.accept(), "delivered")

    async def over() -> bool:
        return await subject.scalar("SELECT count(*) FROM trouble") == 0

    await eventually(over)
