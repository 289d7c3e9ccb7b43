"""Servers that are not ours speak TLS: the URL alone says so, and names a private authority."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from deploy.local.servers import Postgres, Redis
from libs.common.database import postgres
from libs.common.messaging.broker import Broker
from libs.common.process import tasks
from services.gateway.redis_pipeline import RedisPipeline
from tests.support.certificates import Authority
from tests.support.consumers import connected
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.servers import running

NAME = "localhost"  # a certificate is of a name


class TlsFront:
    """Takes TLS off in front of a server, as its own listener would."""

    def __init__(self, port: int, to: int, context: ssl.SSLContext) -> None:
        self.port, self._to, self._context = port, to, context

    @asynccontextmanager
    async def there(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._relay, HOST, self.port, ssl=self._context)
        try:
            yield
        finally:
            server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(HOST, self._to)
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def redis(tmp_path: Path, ports: Ports) -> Iterator[Redis]:
    with running(Redis(tmp_path / "redis", port=ports.take(), password="secret")) as server:
        yield server


async def test_the_gateway_counts_in_a_redis_with_a_certificate_of_ones_own_authority(
    redis: Redis, ports: Ports, authority: Authority
) -> None:
    front = TlsFront(ports.take(), redis.port, authority.server(NAME))
    url = f"rediss://:secret@{NAME}:{front.port}/0"
    async with front.there():
        trusting = RedisPipeline(f"{url}?ssl_ca_certs={authority.path}", ())
        strange = RedisPipeline(url, ())
        running = [asyncio.create_task(pipe.run()) for pipe in (trusting, strange)]

        async def counted() -> bool:
            return trusting.connected

        await eventually(counted, 10)
        assert not strange.connected
        for task in running:
            await tasks.end(task)


async def test_a_service_reaches_a_postgresql_that_it_can_verify_and_no_other(
    tmp_path: Path, ports: Ports, authority: Authority
) -> None:
    authority.server(NAME)
    server = Postgres(
        tmp_path / "postgres",
        port=ports.take(),
        password="secret",
        settings={"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.pem"},
    )
    plain = Postgres(tmp_path / "postgres", port=server.port, password="secret")
    with running(plain):  # makes the folder
        pass
    data = tmp_path / "postgres" / "data"
    shutil.copy(tmp_path / f"{NAME}-True.pem", data / "server.pem")
    owner = data.stat()
    shutil.chown(data / "server.pem", owner.st_uid, owner.st_gid)
    (data / "server.pem").chmod(0o600)
    url = f"postgresql+aiopg://postgres:secret@{NAME}:{server.port}/postgres?sslmode=verify-full"
    with running(server):
        trusting = f"{url}&sslrootcert={authority.path}"
        async with (
            postgres.connect(trusting, application_name="tls") as engine,
            engine.connect() as used,
        ):
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            assert (await used.execute(text(query))).scalar_one() is True
        (tmp_path / "other").mkdir()
        strange = f"{url}&sslrootcert={Authority(tmp_path / 'other').path}"
        async with postgres.connect(strange, application_name="tls") as engine:
            with pytest.raises(Exception, match="certificate verify failed"):
                await engine.connect()


async def test_a_service_reaches_a_rabbitmq_that_it_can_verify_and_no_other(
    ports: Ports, authority: Authority, amqp_url: Callable[[str], str]
) -> None:
    plain = amqp_url("alerts")
    address = plain.rpartition("@")[2]
    host, _, rest = address.partition(":")
    inner, _, vhost = rest.partition("/")
    assert host == HOST
    front = TlsFront(ports.take(), int(inner), authority.server(NAME))
    secure = plain.replace("amqp://", "amqps://").replace(address, f"{NAME}:{front.port}/{vhost}")
    async with front.there(), AsyncExitStack() as opened:
        trusting = await opened.enter_async_context(
            Broker.connect(f"{secure}?cafile={authority.path}", "tls")
        )
        strange = await opened.enter_async_context(Broker.connect(secure, "tls"))
        await connected(trusting)
        assert not strange.connected
