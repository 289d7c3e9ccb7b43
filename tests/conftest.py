"""Real servers, started once per run when the first test asks, on ports of this run's own."""

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from deploy.local.servers import Postgres, RabbitMQ, Redis
from tests.support.brokers import Vhost
from tests.support.databases import Databases, DatabaseUrl
from tests.support.ports import Ports


class NewDatabase(Protocol):
    def __call__(self, service: str, *, migrated: bool = True) -> Awaitable[DatabaseUrl]: ...


@pytest.fixture(scope="session")
def ports() -> Iterator[Ports]:
    block = Ports()
    yield block
    block.close()


@pytest.fixture(scope="session")
def private_folder() -> Iterator[Path]:
    """Short-lived, and with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="ostoja-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(private_folder: Path, ports: Ports) -> Iterator[Postgres]:
    server = Postgres(private_folder / "postgres", port=ports.take(), password="superuser")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def rabbitmq(private_folder: Path, ports: Ports) -> Iterator[RabbitMQ]:
    server = RabbitMQ(
        private_folder / "rabbitmq",
        port=ports.take(),
        management_port=ports.take(),
        dist_port=ports.take(),
        epmd_port=ports.take(),
        password="administrator",
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(private_folder: Path, ports: Ports) -> Iterator[Redis]:
    server = Redis(private_folder / "redis", port=ports.take(), password="redis-password")
    try:
        server.start()
        yield server
    finally:
        server.stop()


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
