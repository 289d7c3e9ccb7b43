"""The console asks a gateway over TLS: who is refused, and that the other port stays HTTP."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from services.console.gateway import Answer
from services.console.gateway import Gateway as Client
from services.console.store.sessions import Visitor
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.test_console import OPERATOR_KEYS
from tests.support.certificates import NAME, REFUSED, Authority
from tests.support.ports import Ports

FIELDS: dict[str, Any] = dict.fromkeys(Visitor.__dataclass_fields__)
EWA = Visitor(**FIELDS | {"staff_id": uuid.uuid4(), "name": "Ewa", "roles": ("ops",)})


@pytest.fixture
async def url(
    start_gateway: StartGateway, authority: Authority, ports: Ports, tmp_path: Path
) -> str:
    port = str(ports.take())
    await start_gateway(
        OPERATOR_KEYS=OPERATOR_KEYS,
        TLS_DIR=str(authority.issue(tmp_path / "gateway")),
        HTTPS_PORT=port,
        GATEWAY_WORKERS="2",  # they share both ports
    )
    return f"https://{NAME}:{port}"


async def asked(url: str, tls_dir: Path | None) -> Answer:
    async with Client.open(url, OPERATOR_KEYS, tls_dir) as client:
        return await client.get(EWA, "/api/ratelimits")


async def test_the_console_reaches_a_gateway_of_its_own_authority(
    url: str, authority: Authority, tmp_path: Path
) -> None:
    own = authority.issue(tmp_path / "console")
    assert (await asked(url, own)).status == 200
    assert (await asked(url.replace("https", "http"), own)).status == 0


async def test_neither_answers_one_that_it_does_not_trust(
    url: str, authority: Authority, tmp_path: Path
) -> None:
    assert (await asked(url, None)).status == 0, "the machine trusts none"
    for number, (issue, host) in enumerate(REFUSED.values()):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        tls_dir = issue(authority, folder / "console")
        assert (await asked(url.replace(NAME, host), tls_dir)).status == 0, issue


async def test_a_gateway_without_a_certificate_does_not_start(
    start_gateway: StartGateway, authority: Authority, tmp_path: Path
) -> None:
    for tls_dir in ("", str(authority.unnamed(tmp_path / "none"))):
        with pytest.raises(RuntimeError, match=r"HTTPS_PORT: .*TLS_DIR"):
            await start_gateway(TLS_DIR=tls_dir, HTTPS_PORT="8443")
