"""RabbitMQ, PostgreSQL and Redis over TLS: who is refused, what is logged, and new files."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from libs.common.database import postgres
from libs.common.database.redis_pipeline import RedisPipeline
from libs.common.messaging.broker import Broker
from libs.common.process import certificates, tasks
from tests.support.certificates import NAME, REFUSED, Authority
from tests.support.eventually import becomes, eventually
from tests.support.ports import HOST, Ports
from tests.support.tls_servers import PASSWORD, TlsPostgres, TlsRabbitMQ, TlsRedis, running_servers

Attempt = Callable[[str], Awaitable[str]]
Link = tuple[TlsPostgres | TlsRabbitMQ | TlsRedis, Attempt]
LINKS = ("rabbitmq", "postgres", "redis")


@pytest.fixture(scope="module")
def servers(private_folder: Path, ports: Ports, own: Path) -> Iterator[Mapping[str, Any]]:
    with running_servers(private_folder / "tls", ports, own) as found:
        yield found._asdict()


@pytest.fixture(params=LINKS)
def link(request: pytest.FixtureRequest, servers: Mapping[str, Any]) -> Link:
    return servers[request.param], ATTEMPTS[request.param]


async def _rabbitmq(url: str) -> str:
    with capture_logs() as logs:
        async with Broker.connect(url, "tls") as broker:
            return await _outcome(lambda: broker.connected, logs, "broker.unreachable")


async def _redis(url: str) -> str:
    with capture_logs() as logs:
        pipe = RedisPipeline(url, ())
        task = asyncio.create_task(pipe.run())
        try:
            return await _outcome(lambda: pipe.connected, logs, "redis_pipeline.disconnected")
        finally:
            await tasks.end(task)


async def _postgres(url: str) -> str:
    async with postgres.connect(url, application_name="tls") as engine:
        try:
            async with engine.connect() as used:
                query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                assert (await used.execute(text(query))).scalar_one() is True
        except DBAPIError as error:
            assert postgres.is_transient(error)  # noqa: PT017 - work waits until it is mended
            return str(error)
    return ""


async def _outcome(connected: Callable[[], bool], logs: list[Any], event: str) -> str:
    async def known() -> list[Any] | bool:
        return connected() or [line for line in logs if line["event"] == event]

    found = await eventually(known, 10)
    return str(found[0]["error"]) if isinstance(found, list) else ""


ATTEMPTS: dict[str, Attempt] = {"rabbitmq": _rabbitmq, "postgres": _postgres, "redis": _redis}


def url(link: Link, tls_dir: Path, host: str = NAME) -> str:
    return certificates.in_url(link[0].url.replace("HOST", host), tls_dir)


@pytest.fixture
def client(authority: Authority, tmp_path: Path) -> Path:
    return authority.issue(tmp_path / "client")


async def refused(link: Link, url: str) -> str:
    fault = await link[1](url)
    assert fault
    assert PASSWORD not in fault
    return fault


SAID = {
    "another name": "mismatch|does not match host name",
    "a server of an unknown authority": "certificate verify failed",
    "no certificate": "certificate required|valid client",
    "a client of an unknown authority": "unknown ca",
}


@pytest.mark.parametrize("case", REFUSED)
async def test_nothing_reaches_a_server_that_one_of_both_does_not_trust(
    link: Link, authority: Authority, tmp_path: Path, case: str
) -> None:
    issue, host = REFUSED[case]
    fault = await refused(link, url(link, issue(authority, tmp_path / "client"), host))
    assert re.search(SAID[case], fault.lower().replace("_", " "))


async def test_the_server_refuses_an_expired_client_certificate_until_it_is_replaced(
    link: Link, authority: Authority, tmp_path: Path
) -> None:
    tls_dir = authority.expired(tmp_path / "client")
    with_files = url(link, tls_dir)
    assert "expired" in (await refused(link, with_files)).lower()
    authority.issue(tls_dir)
    assert await link[1](with_files) == ""


async def test_each_of_several_brokers_is_checked_by_its_own_name(
    servers: Mapping[str, Any], client: Path
) -> None:
    server = servers["rabbitmq"]
    hosts = f"{HOST}:{server.tls_port},{NAME}"
    with capture_logs() as logs:
        async with Broker.connect(
            certificates.in_url(server.url.replace("HOST", hosts), client), "tls"
        ) as broker:
            async with asyncio.timeout(10):
                await broker.session()
    (refused,) = (line for line in logs if line["event"] == "broker.unreachable")
    assert "IP address mismatch" in refused["error"]


@asynccontextmanager
async def replaced(link: Link, by: Path, right: Path) -> AsyncIterator[None]:
    link[0].replace(by)
    try:
        yield
    finally:
        link[0].replace(right)


async def test_a_server_with_an_expired_certificate_is_refused_until_it_is_replaced(
    link: Link, authority: Authority, own: Path, client: Path, tmp_path: Path
) -> None:
    with_files = url(link, client)

    async def is_refused() -> bool:
        fault = await link[1](with_files)
        return "expired" in fault or "certificate verify failed" in fault  # libpq says no more

    async with replaced(link, authority.expired(tmp_path / "server"), own):
        await eventually(is_refused, 20)
    await becomes(lambda: link[1](with_files), "", 20)
