"""Two alerts processes; one is frozen (SIGSTOP) past its lease and then goes on."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.servers import Process
from tests.faults.conftest import Rig
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.proxy import DOWN
from tests.support.stack import ROOT

pytestmark = pytest.mark.faults


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def start_second(rig: Rig, ports: Ports, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Start a second process, without the proxies; it sweeps."""
    stack, process = rig.stack, Process(tmp_path / "second.pid")
    environment = {
        **os.environ,
        **stack._environment("alerts"),
        "HTTP_PORT": str(ports.take()),
        "METRICS_PORT": str(ports.take()),
        "AMQP_URL": stack.vhost.url("alerts"),
        "DATABASE_URL": str(stack.database.of("alerts")),
        "SLACK_WEBHOOK_URL": f"http://{HOST}:{stack.sandbox.port}/slack",
        "ALERTS_SWEEP_SECONDS": "0.5",
        "ALERTS_OVERDUE_SECONDS": "1",
    }
    argv = [sys.executable, "-m", "services.alerts"]
    log = tmp_path / "second.log"
    yield lambda: process.spawn(argv, cwd=ROOT, env=environment, log=log)
    process.stop(signal.SIGTERM, 30)


@pytest.mark.parametrize("late", [200, 500])
async def test_what_a_replica_settles_after_its_lease_changes_nothing(
    rig: Rig, start_second: Callable[[], None], late: int
) -> None:
    if late != 200:
        await rig.stack.sandbox.behave("slack", status=late, fail_next=1)
    rig.slack.stall(DOWN)
    alert_id = await rig.accept()
    await rig.reached_slack(1)
    with frozen(rig.stack.pid("alerts")):
        await rig.slack.resume()  # the answer waits for it to wake
        start_second()
        before = await rig.row(alert_id, state="delivered", attempt=2)  # swept once, or twice

    async def settled() -> bool:
        return f'"{alert_id}", "attempt": 1,' in rig.stack.log("alerts")

    await eventually(settled, 30)
    assert await rig.row(alert_id) == before
    history = rig.query(
        "SELECT number, outcome FROM alerts.attempt WHERE alert_id = %s ORDER BY number", alert_id
    )
    assert [each.number for each in history] == [1, 2]
    await rig.end(twins=1 if late == 200 else 0)
