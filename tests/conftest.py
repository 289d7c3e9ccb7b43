"""Real servers, started once per run when the first test asks, on ports of this run's own."""

import signal
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

from deploy.up.environment import SERVICES
from deploy.up.servers import Postgres, RabbitMQ, Redis
from libs.common.database import postgres as engines
from tests.support.brokers import Vhost
from tests.support.databases import Databases, DatabaseUrl
from tests.support.ports import Ports
from tests.support.runs import private_run
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.servers import own_rabbitmq, running
from tests.support.stack import Stack, running_stack

# A busy machine is slow.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
engines.CONNECT_SECONDS = 60.0


class NewDatabase(Protocol):
    def __call__(self, service: str, *, migrated: bool = True) -> Awaitable[DatabaseUrl]: ...


class WholeSystem(Protocol):
    def __call__(
        self, settings: dict[str, str], vhost_name: str | None = None
    ) -> AbstractContextManager[Stack]: ...


class NewStack(Protocol):
    def __call__(self, **settings: str) -> Stack: ...


def pytest_configure() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the servers are stopped


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that no worker ends with one alone."""
    items.sort(key=lambda item: item.path.parent.name not in {"system", "ostoja"})
    for item in items:
        if "unit" in item.path.parts:
            item.add_marker("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the services said when a test on the whole system fails."""
    report = yield
    used = getattr(item, "funcargs", {}).values()
    if report.failed and report.when == "call":
        for stack in (value for value in used if isinstance(value, Stack)):
            for name in SERVICES:
                end = "\n".join(stack.log(name).splitlines()[-25:])
                report.sections.append((f"the end of the log of {name}", end))
    return report


@pytest.fixture(scope="session")
def ports() -> Iterator[Ports]:
    block = Ports()
    yield block
    block.close()


@pytest.fixture(scope="session")
def private_folder() -> Iterator[Path]:
    """Short-lived, and with a short path."""
    with private_run() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres(private_folder: Path, ports: Ports) -> Iterator[Postgres]:
    # Only a machine that loses power would miss fsync; without it a database costs a third.
    settings = {"fsync": "off", "full_page_writes": "off"}
    own = Postgres(
        private_folder / "postgres", port=ports.take(), password="superuser", settings=settings
    )
    with running(own) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(private_folder: Path, ports: Ports) -> Iterator[RabbitMQ]:
    with running(own_rabbitmq(private_folder / "rabbitmq", ports)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(private_folder: Path, ports: Ports) -> Iterator[Redis]:
    own = Redis(private_folder / "redis", port=ports.take(), password="redis-password")
    with running(own) as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Databases:
    return Databases(postgres)


@pytest.fixture
def database(databases: Databases) -> Iterator[NewDatabase]:
    """Give fresh, migrated databases.

    `url = await database("alerts")`: the URL is the runtime role's; it has `.owner_url` and
    `.superuser_url`. With `migrated=False` there are the roles and the empty schemas only.
    """
    made: list[str] = []

    async def create(service: str, *, migrated: bool = True) -> DatabaseUrl:
        url = databases.create(service, migrated=migrated)
        made.append(url.name)
        return url

    yield create
    for name in made:
        databases.drop(name)


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> Iterator[Vhost]:
    """A fresh vhost with its exchanges, accounts, rights and policies."""
    fresh = Vhost(rabbitmq)
    yield fresh
    fresh.delete()


@pytest.fixture
def amqp_url(vhost: Vhost) -> Callable[[str], str]:
    """`amqp_url("alerts")`: that service's account on this test's vhost."""
    return vhost.url


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """Return an emptied Redis."""
    redis_server.command("FLUSHALL")
    return redis_server.url


@pytest.fixture(scope="session")
def _running_sandbox(ports: Ports) -> Iterator[Sandbox]:
    with running_sandbox(ports) as running:
        yield running


@pytest.fixture
async def sandbox(_running_sandbox: Sandbox) -> Sandbox:
    """Return the sandbox, healed and with nothing received."""
    await _running_sandbox.reset()
    return _running_sandbox


@pytest.fixture(scope="session")
def whole_system(
    private_folder: Path,
    ports: Ports,
    databases: Databases,
    postgres: Postgres,
    rabbitmq: RabbitMQ,
    redis_server: Redis,
) -> WholeSystem:
    """Give whole systems to run, with settings as in .env."""

    def run(
        settings: dict[str, str], vhost_name: str | None = None
    ) -> AbstractContextManager[Stack]:
        folder = private_folder / f"stack-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        servers = (postgres, rabbitmq, redis_server)
        return running_stack(folder, ports, databases, servers, settings, vhost_name=vhost_name)

    return run


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, whole_system: WholeSystem) -> Iterator[Stack]:
    """Run the whole system, once for all tests of a module.

    A module's STACK_SETTINGS, a dict, are settings as in .env.
    """
    with whole_system(getattr(request.module, "STACK_SETTINGS", {})) as running:
        yield running


@pytest.fixture
def new_stack(whole_system: WholeSystem) -> Iterator[NewStack]:
    """Run a whole system of this test's own: `new_stack(RATE_LIMIT_MODE="shadow")`."""
    with ExitStack() as closing:
        yield lambda **settings: closing.enter_context(whole_system(settings))
