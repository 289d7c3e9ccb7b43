"""A name with two addresses, the first of which takes no connection: the second is used in time."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import make_url, text

from libs.common.database import postgres
from libs.common.messaging.broker import Broker
from libs.common.process import sockets
from tests.integration.common.conftest import DLX
from tests.support.consumers import connected
from tests.support.databases import Databases, DatabaseUrl
from tests.support.pipelines import pipeline

NAME = "two.example"
SECONDS = 2.0


@pytest.fixture
def dead_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NAME leads to an address that drops every SYN, and to 127.0.0.1."""
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # now the backlog is full

            async def resolve(host: str, port: int) -> list[Any]:
                assert host == NAME
                tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                return [(*tcp, address), (*tcp, ("127.0.0.1", port))]

            monkeypatch.setattr(sockets, "resolve", resolve)
            yield


@pytest.fixture
def database_url(databases: Databases) -> Iterator[DatabaseUrl]:
    fresh = databases.create("alerts", migrated=False)
    yield fresh
    databases.drop(fresh.name)


@pytest.mark.usefixtures("dead_first")
async def test_the_second_address_is_used_in_time(
    amqp_url: Callable[[str], str], redis_url: str, database_url: DatabaseUrl
) -> None:
    begun = time.monotonic()
    async with Broker.connect(amqp_url("alerts").replace("127.0.0.1", NAME), "alerts") as broker:
        await connected(broker)
        assert time.monotonic() - begun < SECONDS
        await broker.declare(DLX)
    begun = time.monotonic()
    async with pipeline(redis_url.replace("127.0.0.1", NAME)):
        assert time.monotonic() - begun < SECONDS
    begun = time.monotonic()
    url = make_url(database_url).set(drivername="postgresql+aiopg", host=NAME)
    async with (
        postgres.connect(url.render_as_string(hide_password=False), application_name="x") as engine,
        engine.connect() as connection,
    ):
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
        assert time.monotonic() - begun < SECONDS
