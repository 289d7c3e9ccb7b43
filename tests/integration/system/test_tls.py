"""The whole system with TLS on every link, and its authority replaced while it works."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy import certs
from libs.common.process import certificate_ends, certificates
from tests.support.certificates import NAME
from tests.support.databases import Databases
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.prometheus import quick_prometheus, running_prometheus
from tests.support.stack import Stack, running_stack
from tests.support.system import LEAD, fresh_address
from tests.support.tls_servers import PASSWORD, Servers, running_servers


class TlsDatabases(Databases):
    def account_url(self, role: str, name: str, driver: str) -> str:
        plain = super().account_url(role, name, driver).replace("127.0.0.1", NAME)
        return certificates.in_url(f"{plain}?sslmode=verify-full", self.server._tls_dir)  # type: ignore[attr-defined]


class TlsStack(Stack):
    """Each service has its own TLS_DIR, and addresses without any file's name."""

    servers: Servers

    def _environment(self, name: str) -> dict[str, str]:
        settings = super()._environment(name)
        if "AMQP_URL" in settings:
            account = settings["AMQP_URL"].removeprefix("amqp://").partition("@")[0]
            port = self.rabbitmq.tls_port  # type: ignore[attr-defined]
            settings["AMQP_URL"] = f"amqps://{account}@{NAME}:{port}/{self.vhost.name}"
        if "REDIS_URL" in settings:
            settings["REDIS_URL"] = self.redis.url.replace("HOST", NAME)
        if "DATABASE_URL" in settings:
            plain = settings["DATABASE_URL"].partition("?")[0]
            settings["DATABASE_URL"] = f"{plain}?sslmode=verify-full"
        return settings


class Certs:
    """`make certs` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._order = certs.Order(folder / "certs", folder / "authority")
        self.folder = folder / "certs" / "localhost"

    def __call__(self, **changes: Any) -> None:
        list(certs.run(replace(self._order, **changes)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    made = Certs(tmp_path_factory.mktemp("made"))
    made()
    return made


@pytest.fixture(scope="module")
def servers(private_folder: Path, ports: Ports, made: Certs) -> Iterator[Servers]:
    with running_servers(private_folder / "system-tls", ports, made.folder / "redis") as running:
        yield running


@pytest.fixture
def stack(servers: Servers, ports: Ports, made: Certs, tmp_path: Path) -> Iterator[TlsStack]:
    databases = TlsDatabases(servers.postgres)
    own = (servers.postgres, servers.rabbitmq, servers.redis)
    settings = {"CERTS_DIR": str(made.folder)}
    with running_stack(tmp_path, ports, databases, own, settings, kind=TlsStack) as running:
        assert isinstance(running, TlsStack)
        running.servers = servers
        yield running


async def healthy(stack: Stack) -> bool:
    answer = await stack.http("GET", "/api/health/deep", key="admin")
    states = {part["status"] for part in answer.body["components"].values()}
    return states == {"healthy"}


async def cut_postgres(stack: TlsStack) -> None:
    others = "pid <> pg_backend_pid() AND usename <> 'postgres'"
    await asyncio.to_thread(
        stack.query, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
    )


async def cut_rabbitmq(stack: TlsStack) -> None:
    await asyncio.to_thread(stack.vhost.close_connections)


async def cut_redis(stack: TlsStack) -> None:
    await asyncio.to_thread(stack.redis.command, "CLIENT KILL TYPE normal")


CUTS: tuple[Callable[[TlsStack], Awaitable[None]], ...] = (cut_postgres, cut_rabbitmq, cut_redis)


async def everything_is_encrypted(stack: TlsStack) -> None:
    rows = await asyncio.to_thread(
        stack.query,
        "SELECT count(*), count(*) FILTER (WHERE NOT ssl) AS plain FROM pg_stat_ssl "
        "JOIN pg_stat_activity USING (pid) WHERE usename IS NOT NULL",
    )
    assert rows[0].count > 4
    assert rows[0].plain == 0

    async def connections() -> list[dict[str, Any]]:
        found = await asyncio.to_thread(stack.vhost.connections)
        return found if len(found) >= 8 else []  # RabbitMQ counts every five seconds

    found = await eventually(connections, 30)
    assert all(each["ssl"] and each["peer_cert_subject"] for each in found)


async def test_the_authority_is_replaced_and_no_request_fails(
    stack: TlsStack, made: Certs, tmp_path: Path
) -> None:
    await eventually(lambda: healthy(stack), 30)
    await everything_is_encrypted(stack)
    address = fresh_address()
    answer = await stack.http("POST", "/api/chatbot/chat", LEAD | {"session_id": address})
    assert answer.status == 200
    assert (await stack.http("POST", "/api/unsubscribe", {"email": address})).status == 200
    old = shutil.copytree(made.folder / "ostoja", tmp_path / "old")
    sent: list[str] = []
    stopping = asyncio.Event()

    async def send() -> None:
        while not stopping.is_set():
            sent.append(await stack.alert(f"number {len(sent)}"))
            await asyncio.sleep(0.02)

    sending = asyncio.create_task(send())
    for step in ("new_authority", "renew", "drop_old_authority"):
        made(**{step: True})
        for server in stack.servers:
            server.replace(made.folder / "redis")
        await asyncio.sleep(0.5)  # RabbitMQ looks at its files
        for cut in CUTS:
            await cut(stack)
            await eventually(lambda: healthy(stack), 30)
    stopping.set()
    await sending
    assert len(sent) > 10  # the test is not one of speed

    async def all_arrived() -> bool:
        return await stack.balanced() is not None and len(await stack.slack_texts()) >= len(sent)

    await eventually(all_arrived, 60)
    await everything_is_encrypted(stack)
    trusted = (made.folder / "ostoja" / "ca.crt").read_bytes()
    (old / "ca.crt").write_bytes(trusted)
    for url in (
        *(server.url.replace("HOST", NAME) for server in stack.servers),
        f"https://{NAME}:{stack.values['CONSENT_PORT']}",
        f"https://{NAME}:{stack.values['GATEWAY_HTTPS_PORT']}",
    ):
        (peer,) = certificate_ends.peers("one", certificates.in_url(url, old))
        with pytest.raises(OSError, match="refuse"):
            await asyncio.to_thread(peer.end, old)
    for name in ("alerts", "consent", "followups", "gateway"):
        log = stack.log(name)
        assert "PRIVATE KEY" not in log
        assert PASSWORD not in log


async def test_a_certificate_that_ends_soon_is_told_until_it_is_renewed(
    stack: TlsStack, made: Certs, ports: Ports, tmp_path: Path
) -> None:
    """A process looks at its start, and every ten minutes."""
    port = ports.take()
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(quick_prometheus(tmp_path) / "rules.yml")],
        "scrape_configs": [
            {
                "job_name": "consent",
                "static_configs": [{"targets": [f"{HOST}:{stack.values['CONSENT_METRICS_PORT']}"]}],
            }
        ],
    }

    async def told() -> bool:
        return "certificate-due" in await prometheus.firing()

    async def over() -> bool:
        seen = await prometheus.ask("query", query="min(tls_certificate_end_time_seconds)")
        return bool(seen["result"]) and not await told()

    with running_prometheus(tmp_path, configuration, port) as prometheus:
        await prometheus.ready()
        await eventually(over, 30, every=0.3)
        for days, seen in ((20, told), (certs.DAYS, over)):
            made(renew=True, days=days, names=["consent"])
            await stack.stop("consent")
            await stack.start("consent")
            await eventually(seen, 30, every=0.3)
