"""The configurations of deploy/caddy and deploy/nginx, run with a certificate of the test's own."""

import asyncio
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from tests.integration.gateway.conftest import Owner, StartGateway
from tests.support import checkers
from tests.support.certificates import Authority
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports

pytestmark = pytest.mark.promise("P8")

ROOT = Path(__file__).parents[3]
NAME = "ostoja.example.com"


@contextmanager
def _process(argv: list[str], folder: Path) -> Iterator[None]:
    with (folder / "proxy.log").open("ab") as log:
        env = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(folder)}
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _caddy(folder: Path, port: int, gateway: int, certificate: Path) -> Iterator[None]:
    checkers.require("caddy")
    shipped = (ROOT / "deploy/caddy/Caddyfile").read_text(encoding="utf-8")
    text = f"{{\n\tadmin off\n\tauto_https disable_redirects\n\thttps_port {port}\n}}\n" + (
        shipped.replace(f"{NAME} {{", f"{NAME} {{\n\ttls {certificate} {certificate}").replace(
            "127.0.0.1:8080", f"{HOST}:{gateway}"
        )
    )
    (folder / "Caddyfile").write_text(text, encoding="utf-8")
    run = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with _process(run, folder):
        yield


@contextmanager
def _nginx(folder: Path, port: int, gateway: int, certificate: Path) -> Iterator[None]:
    checkers.require("nginx")
    shipped = (ROOT / "deploy/nginx/ostoja.conf").read_text(encoding="utf-8")
    text = re.sub(r"(ssl_certificate(?:_key)?) \S+;", rf"\1 {certificate};", shipped)
    text = re.sub(r" *listen \[::\].*\n", "", text)
    text = text.replace("listen 443", f"listen {HOST}:{port}").replace(
        "listen 80;", f"listen unix:{folder}/plain.sock;"
    )
    text = text.replace("127.0.0.1:8080", f"{HOST}:{gateway}")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log stderr;\nuser root;\n"
        f"events {{}}\nhttp {{\n{temporary}{text}}}\n",
        encoding="utf-8",
    )
    with _process(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], folder):
        yield


@pytest.mark.parametrize("proxy", [_caddy, _nginx])
async def test_behind_the_shipped_proxy_each_visitor_has_its_own_limit(
    proxy: Callable[..., AbstractContextManager[None]],
    start_gateway: StartGateway,
    owner: Owner,
    ports: Ports,
    tmp_path: Path,
) -> None:
    gateway = await start_gateway(TRUSTED_PROXIES="127.0.0.1/32", CHAT_RATE_LIMIT="3 per day")
    authority = Authority(tmp_path)
    authority.server(NAME)
    port = ports.take()
    trusted = ssl.create_default_context(cafile=str(authority.path))

    async def chat(visitor: str, forged: str) -> int:
        connector = aiohttp.TCPConnector(local_addr=(visitor, 0), force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(
                f"https://{HOST}:{port}/api/chatbot/chat",
                json={"message": "hello", "session_id": "s"},
                headers={"Host": NAME, "X-Forwarded-For": forged},
                ssl=trusted,
                server_hostname=NAME,
            ) as answer,
        ):
            assert "includeSubDomains" in answer.headers["Strict-Transport-Security"]
            assert answer.headers["X-Request-ID"]
            return answer.status

    certificate = tmp_path / f"{NAME}-True.pem"
    with proxy(tmp_path, port, URL(gateway.url).port, certificate):

        async def listens() -> bool:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually(listens, 20)
        answers = [await chat("127.0.0.2", f"192.0.2.{number}") for number in range(5)]
        other = await chat("127.0.0.3", "127.0.0.2")

    assert answers == [200, 200, 200, 429, 429]
    assert other == 200
