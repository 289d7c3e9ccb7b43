"""The gateway and a service over HTTPS: who is refused, what is logged, and new files."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from libs.common.http import server
from libs.common.http.application import Problem
from libs.common.process.service import Service
from services.gateway.proxy.upstream import Upstream
from tests.support.certificates import NAME, REFUSED, Authority
from tests.support.ports import HOST, Ports

KEY = "the internal key"
MAY = "may refuse our certificate"


@pytest.fixture
def client(authority: Authority, tmp_path: Path) -> Path:
    return authority.issue(tmp_path / "client")


class Served:
    """A service, and the connections that it got."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.connections: set[object] = set()

    async def answer(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        return web.Response(text=request.headers["X-Internal-Key"])


@pytest.fixture
async def served(authority: Authority, ports: Ports, tmp_path: Path) -> AsyncIterator[Served]:
    own = Served(authority.issue(tmp_path / "server"), ports.take())
    app = web.Application()
    app.router.add_route("*", "/x", own.answer)
    service = Service("served")
    await server.serve(service, app, HOST, own.port, tls_dir=own.folder)
    yield own
    await service.close()


async def asked(upstream: Upstream, method: str = "GET") -> str:
    async with upstream.ask(method, "/x", body=b"{}" if method == "POST" else None) as answer:
        assert answer.status == 200
        return (await answer.read()).decode()


async def refused(served: Served, tls_dir: Path | None, host: str = NAME) -> tuple[int, str]:
    """Return the status, and what is logged."""
    url = f"https://{host}:{served.port}"
    with capture_logs() as logs:
        async with Upstream("alerts", url, KEY, answer_seconds=5, tls_dir=tls_dir) as upstream:
            with pytest.raises(Problem) as caught:
                await asked(upstream, "POST")
    assert served.connections == set()
    (line,) = logs
    assert (line["event"], line["upstream"]) == ("proxy.failed", "alerts")
    assert KEY not in str(logs)
    return caught.value.status, line["error"].lower().replace("_", " ")


async def test_both_have_a_certificate_and_connections_are_kept(
    served: Served, client: Path
) -> None:
    url = f"https://{NAME}:{served.port}"
    async with Upstream("alerts", url, KEY, answer_seconds=5, tls_dir=client) as upstream:
        for method in ("GET", "POST", "GET"):
            assert await asked(upstream, method) == KEY
    assert len(served.connections) == 1


SAID = {
    "another name": "mismatch",
    "a server of an unknown authority": "certificate verify failed",
    "no certificate": MAY,
    "a client of an unknown authority": MAY,
}


@pytest.mark.parametrize("case", REFUSED)
async def test_nothing_reaches_a_service_that_one_of_both_does_not_trust(
    served: Served, authority: Authority, tmp_path: Path, case: str
) -> None:
    issue, host = REFUSED[case]
    status, said = await refused(served, issue(authority, tmp_path / "client"), host)
    assert status in ({502, 503} if SAID[case] == MAY else {503})
    assert SAID[case] in said


async def test_plain_http_reaches_no_service_with_a_certificate(served: Served) -> None:
    url = f"http://{NAME}:{served.port}"
    async with Upstream("alerts", url, KEY, answer_seconds=5) as upstream:
        with pytest.raises(Problem):
            await asked(upstream)
    assert served.connections == set()
