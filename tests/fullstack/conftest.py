"""The system from outside: HTTP, the sandbox's and Mailpit's API, RabbitMQ's management API.

Against `docker compose` on a project of its own; or, with AGAINST=running, against whatever runs on
this checkout's .env (`make up`, `docker compose up`).
"""

import asyncio
import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.provision import VHOST
from deploy.up import environment
from deploy.up.servers import manage
from tests.support.compose import Compose, engine_answers, running_compose
from tests.support.ports import HOST, Ports
from tests.support.sandbox import SandboxApi
from tests.support.system import System

REAL = ("SLACK_WEBHOOK_URL", "MONDAY_API_URL", "SMS_API_URL", "SMTP_HOST", "WEBHOOK_URL")


class Running(System):
    def __init__(self, values: dict[str, str], compose: Compose | None) -> None:
        sandbox = SandboxApi(int(values["SANDBOX_PORT"]), int(values["SANDBOX_MAIL_PORT"]))
        super().__init__(f"http://{HOST}:{values['GATEWAY_PORT']}", values, sandbox)
        self.compose = compose

    async def rabbitmq(self, kind: str) -> list[dict[str, Any]]:
        """List the management API's `queues`, `shovels`, ... of our vhost."""
        account = ("admin", self.values["RABBITMQ_ADMIN_PASSWORD"])
        url = f"http://{HOST}:{self.values['RABBITMQ_UI_PORT']}"
        found: list[dict[str, Any]] = await asyncio.to_thread(
            manage, url, account, "GET", f"{kind}/{VHOST}"
        )
        return found


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[Running]:
    against = os.environ.get("AGAINST") or "compose"
    if against == "running":
        values = environment.load(environment.ROOT / ".env")
        if real := [name for name in REAL if values.get(name)]:
            pytest.exit(f"these tests send: .env names real providers ({', '.join(real)})", 2)
        yield Running(values, None)
    elif against == "compose":
        if not engine_answers():
            pytest.exit("no Docker engine answers; AGAINST=running tests what `make up` runs", 2)
        folder = Path(tmp_path_factory.mktemp("compose"), f"ostoja-test-{uuid.uuid4().hex[:8]}")
        folder.mkdir()
        with running_compose(folder, ports) as compose:
            yield Running(compose.values, compose)
    else:
        pytest.exit(f"AGAINST is compose or running, not {against!r}", 2)


@pytest.fixture
async def system(running: Running) -> Running:
    await running.sandbox.heal()
    return running


@pytest.fixture
def compose(running: Running) -> Compose:
    if running.compose is None:
        pytest.skip("asks Docker itself; AGAINST=compose has it")
    return running.compose


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the containers said when a test fails."""
    report = yield
    running = getattr(item, "funcargs", {}).get("running")
    if report.failed and report.when == "call" and isinstance(running, Running) and running.compose:
        report.sections.append(("the end of the containers' logs", running.compose.logs()))
    return report
