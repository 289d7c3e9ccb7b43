"""What `ostoja doctor` and the metric say about each encrypted link."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from deploy.up import environment
from libs.common.database import inspection
from libs.common.http import server
from libs.common.process import certificate_ends, certificates, tasks
from libs.common.process.finding import Finding
from libs.common.process.service import Service
from tests.support.certificates import NAME, Authority
from tests.support.consumers import until
from tests.support.ports import HOST, Ports
from tests.support.tls_servers import Servers, running_servers

LINKS = ("postgres", "rabbitmq", "redis", "alerts")


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


def links(servers: Servers, alerts: int, certs: Path, host: str = NAME) -> dict[str, str]:
    urls = {
        "postgres": f"postgresql://alerts:a@{host}:{servers.postgres.port}/x?sslmode=verify-full",
        "rabbitmq": f"amqps://alerts:a@{host}:{servers.rabbitmq.tls_port}/x",
        "redis": f"rediss://:a@{host}:{servers.redis.tls_port}/0",
        "alerts": f"https://{host}:{alerts}",
        "consent": "http://consent:8080",
    }
    return {name: certificates.in_url(url, certs / "ostoja") for name, url in urls.items()}


async def findings(
    given: Mapping[str, str], certs: Path, due: timedelta = timedelta()
) -> list[Finding]:
    """:param due: the certificates last a day"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate_ends, "DUE", due)
        return await asyncio.to_thread(
            lambda: list(certificate_ends.findings(certs / "ostoja", given))
        )


async def each_wrong(
    given: Mapping[str, str], certs: Path, *texts: str, links: tuple[str, ...] = LINKS
) -> None:
    """Each link is named with one of these reasons."""
    wrong = [each["found"] for each in await findings(given, certs) if each["status"] == "wrong"]
    for link in links:
        (said,) = (text for text in wrong if text.startswith(f"{link} at "))
        assert any(text in said for text in texts), said


async def test_each_link_is_right_and_the_end_of_each_certificate_is_shown(
    servers: Servers, alerts: int, certs: Path
) -> None:
    found = await findings(links(servers, alerts, certs), certs)
    assert {each["status"] for each in found} == {"ok"}
    for name in (*LINKS, "ostoja/tls.crt", "ostoja/ca.crt"):
        assert any(f"the certificate of {name}" in each["found"] for each in found), name


async def test_certificates_that_end_within_three_weeks_are_named(
    servers: Servers, alerts: int, certs: Path
) -> None:
    found = await findings(links(servers, alerts, certs), certs, timedelta(days=1.5))
    assert {each["status"] for each in found} == {"wrong", "ok"}
    due = [each for each in found if each["status"] == "wrong"]
    assert {each["do"] for each in due} == {"docs/runbooks/certificate-due.md"}
    assert len(due) == len(LINKS) + 1  # the authority lasts a day longer


async def test_a_wrong_name_is_named(servers: Servers, alerts: int, certs: Path) -> None:
    await each_wrong(links(servers, alerts, certs, HOST), certs, "IP address mismatch")


async def test_an_unknown_authority_is_named(
    servers: Servers, alerts: int, certs: Path, authority: Authority, tmp_path: Path
) -> None:
    authority.issue(certs / "ostoja", trusts=Authority(tmp_path).pem)
    await each_wrong(
        links(servers, alerts, certs), certs, "self-signed certificate", "local issuer"
    )


async def test_a_missing_client_certificate_is_named(
    servers: Servers, alerts: int, certs: Path, authority: Authority
) -> None:
    shutil.rmtree(certs / "ostoja")
    authority.unnamed(certs / "ostoja")
    # PostgreSQL refuses it only at the log-in, which the check of the database does.
    others = tuple(link for link in LINKS if link != "postgres")
    await each_wrong(links(servers, alerts, certs), certs, "REQUIRED", "may refuse", links=others)
    url = links(servers, alerts, certs)["postgres"]
    migrations = environment.ROOT / "services" / "alerts" / "migrations"
    (found,) = await asyncio.to_thread(lambda: list(inspection.findings(url, "alerts", migrations)))
    assert found["part"] == "PostgreSQL"
    assert "requires a valid client certificate" in found["found"]


async def test_an_expired_client_certificate_is_named(
    servers: Servers, alerts: int, certs: Path, authority: Authority
) -> None:
    authority.expired(certs / "ostoja")
    await each_wrong(links(servers, alerts, certs), certs, "EXPIRED", "may refuse")


async def test_passwords_in_clear_text_and_unchecked_names_are_reported(
    servers: Servers, alerts: int, certs: Path
) -> None:
    values = links(servers, alerts, certs)
    values["redis"] = "redis://:a@redis.example.com:6379/0"
    values["postgres"] = values["postgres"].replace("verify-full", "require")
    found = await findings(values, certs)
    wrong = [each["found"] for each in found if each["status"] == "wrong"]
    assert len(wrong) == 2
    assert wrong[0].startswith("redis at redis.example.com: passwords")
    assert wrong[1].startswith("postgres: sslmode=require does not check")


async def test_files_that_cannot_be_used_are_reported(
    servers: Servers, alerts: int, certs: Path
) -> None:
    (certs / "ostoja" / "tls.key").write_text("")
    values = links(servers, alerts, certs)
    wrong = [each for each in await findings(values, certs) if each["status"] == "wrong"]
    assert f"the files in {certs / 'ostoja'} cannot be used" in wrong[0]["found"]


async def test_the_metric_has_each_certificate(servers: Servers, alerts: int, certs: Path) -> None:
    every = links(servers, alerts, certs)
    secret = {name: SecretStr(url) for name, url in every.items()}
    task = asyncio.create_task(certificate_ends.watch(certs / "ostoja", secret))

    def ends() -> dict[str, float]:
        (metric,) = certificate_ends.END.collect()
        return {sample.labels["certificate"]: sample.value for sample in metric.samples}

    try:
        await until(
            lambda: (
                ends().keys() == {"ca.crt", "tls.crt", "rabbitmq", "postgres", "redis", "alerts"}
            ),
            20,
        )
    finally:
        await tasks.end(task)
    assert all(23 * 3600 < end - time.time() < 2 * 86400 for end in ends().values())
