"""What `ostoja doctor` and the metric say about each encrypted link."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from deploy.up import environment
from deploy.up.environment import GENERATED
from libs.common.http import server
from libs.common.process import certificate_ends, tasks
from libs.common.process.service import Service
from ostoja.doctor import database, tls
from ostoja.doctor.deployment import Deployment
from ostoja.doctor.finding import Finding, Status
from tests.support.certificates import NAME, Authority
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.tls_servers import Servers, running_servers

LINKS = ("PostgreSQL", "RabbitMQ", "Redis", "alerts")


@pytest.fixture(scope="module")
def servers(private_folder: Path, ports: Ports, own: Path) -> Iterator[Servers]:
    with running_servers(private_folder / "doctor-tls", ports, own) as running:
        yield running


@pytest.fixture
async def alerts(own: Path, ports: Ports) -> AsyncIterator[int]:
    """A service with a certificate; its port."""
    port, service = ports.take(), Service("alerts")
    await server.serve(service, web.Application(), HOST, port, tls_dir=own)
    yield port
    await service.close()


@pytest.fixture
def certs(authority: Authority, tmp_path: Path) -> Path:
    authority.issue(tmp_path / "certs" / "ostoja", name="ostoja")
    return tmp_path / "certs"


def settings(servers: Servers, alerts: int, certs: Path, host: str = NAME) -> dict[str, str]:
    example = environment.parse(environment.EXAMPLE.read_text(encoding="utf-8"))
    made = {name: make() for name, make in GENERATED.items()}
    return {
        **example,
        **made,
        "CERTS_DIR": str(certs),
        "POSTGRES_ADDRESS": f"{host}:{servers.postgres.port}",
        "POSTGRES_OPTIONS": "?sslmode=verify-full",
        "RABBITMQ_ADDRESS": f"{host}:{servers.rabbitmq.tls_port}",
        "RABBITMQ_SCHEME": "amqps",
        "REDIS_ADDRESS": f"{host}:{servers.redis.tls_port}",
        "REDIS_SCHEME": "rediss",
        "ALERTS_URL": f"https://{host}:{alerts}",
        "CONSENT_URL": "http://consent:8080",
        "FOLLOWUPS_URL": "http://followups:8080",
        "CONSOLE_URL": "http://console:8080",
    }


async def findings(values: Mapping[str, str], days_ago: float = 30) -> list[Finding]:
    """:param days_ago: the certificates last a day, and that is long before they are due"""
    deployment = Deployment(values, "http://gateway", Path("/nowhere/.env"))
    found = await asyncio.to_thread(
        lambda: list(tls.check(deployment, lambda: time.time() - days_ago * 86400))
    )
    assert not [name for name in GENERATED if values[name] in str(found)]
    return found


async def each_wrong(
    values: Mapping[str, str], *texts: str, links: tuple[str, ...] = LINKS
) -> None:
    """Each link is named with one of these reasons."""
    wrong = [each.found for each in await findings(values) if each.status is Status.WRONG]
    for link in links:
        (said,) = (text for text in wrong if text.startswith(f"{link} at "))
        assert any(text in said for text in texts), said


async def test_each_link_is_right_and_the_end_of_each_certificate_is_shown(
    servers: Servers, alerts: int, certs: Path
) -> None:
    found = await findings(settings(servers, alerts, certs))
    assert {each.status for each in found} == {Status.OK}
    for name in (*LINKS, "ostoja/tls.crt", "ostoja/ca.crt"):
        assert any(f"the certificate of {name}" in each.found for each in found), name


async def test_certificates_that_end_within_three_weeks_are_named(
    servers: Servers, alerts: int, certs: Path
) -> None:
    found = await findings(settings(servers, alerts, certs), 19.5)
    assert {each.status for each in found} == {Status.WRONG, Status.OK}
    due = [each for each in found if each.status is Status.WRONG]
    assert {each.do for each in due} == {"docs/runbooks/certificate-due.md"}
    assert len(due) == len(LINKS) + 1  # the authority lasts a day longer


async def test_a_wrong_name_is_named(servers: Servers, alerts: int, certs: Path) -> None:
    await each_wrong(settings(servers, alerts, certs, HOST), "IP address mismatch")


async def test_an_unknown_authority_is_named(
    servers: Servers, alerts: int, certs: Path, authority: Authority, tmp_path: Path
) -> None:
    authority.issue(certs / "ostoja", trusts=Authority(tmp_path).pem)
    await each_wrong(settings(servers, alerts, certs), "self-signed certificate", "local issuer")


async def test_a_missing_client_certificate_is_named(
    servers: Servers, alerts: int, certs: Path, authority: Authority
) -> None:
    shutil.rmtree(certs / "ostoja")
    authority.unnamed(certs / "ostoja")
    # PostgreSQL refuses it only at the log-in, which the check of the database does.
    links = tuple(link for link in LINKS if link != "PostgreSQL")
    await each_wrong(settings(servers, alerts, certs), "REQUIRED", "may refuse", links=links)
    deployment = Deployment(settings(servers, alerts, certs), "http://gateway", Path("/nowhere"))
    found = await asyncio.to_thread(lambda: list(database.check(deployment, time.time)))
    assert "PostgreSQL" in {each.part for each in found}
    assert all("requires a valid client certificate" in each.found for each in found)


async def test_an_expired_client_certificate_is_named(
    servers: Servers, alerts: int, certs: Path, authority: Authority
) -> None:
    authority.expired(certs / "ostoja")
    await each_wrong(settings(servers, alerts, certs), "EXPIRED", "may refuse")


async def test_passwords_in_clear_text_and_unchecked_names_are_reported(
    servers: Servers, alerts: int, certs: Path
) -> None:
    values = settings(servers, alerts, certs)
    values |= {"REDIS_SCHEME": "redis", "REDIS_ADDRESS": "redis.example.com:6379"}
    values |= {"POSTGRES_OPTIONS": "?sslmode=require"}
    wrong = [each.found for each in await findings(values) if each.status is Status.WRONG]
    assert len(wrong) == 2
    assert wrong[0].startswith("Redis at redis.example.com: passwords")
    assert wrong[1].startswith("PostgreSQL: sslmode=require does not check")


async def test_files_that_cannot_be_used_are_reported(
    servers: Servers, alerts: int, certs: Path
) -> None:
    (certs / "ostoja" / "tls.key").write_text("")
    values = settings(servers, alerts, certs)
    wrong = [each for each in await findings(values) if each.status is Status.WRONG]
    assert f"the files in {certs / 'ostoja'} cannot be used" in wrong[0].found


async def test_the_metric_has_each_certificate(servers: Servers, alerts: int, certs: Path) -> None:
    deployment = Deployment(settings(servers, alerts, certs), "http://gateway", certs)
    links = {
        "rabbitmq": deployment.amqp_url("alerts"),
        "postgres": deployment.database_url("alerts"),
        "redis": deployment.redis_url,
        "alerts": deployment.service_url("alerts"),
        "consent": deployment.service_url("consent"),
    }
    secret = {name: SecretStr(url) for name, url in links.items()}
    task = asyncio.create_task(certificate_ends.watch(certs / "ostoja", secret))

    def ends() -> dict[str, float]:
        (metric,) = certificate_ends.END.collect()
        return {sample.labels["certificate"]: sample.value for sample in metric.samples}

    async def complete() -> bool:
        return ends().keys() == {"ca.crt", "tls.crt", "rabbitmq", "postgres", "redis", "alerts"}

    try:
        await eventually(complete, 20)
    finally:
        await tasks.end(task)
    assert all(23 * 3600 < end - time.time() < 2 * 86400 for end in ends().values())
