"""What balancers and clients see of a gateway that was told to stop."""

import asyncio
import signal
import sys
from contextlib import suppress

import pytest

from libs.common.http import application, server
from libs.common.http.aiohttp_private import RequestHandler
from libs.common.process.service import Service
from tests.integration.gateway.conftest import SERVICE, Owner, StartGateway
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import HOST


async def test_a_stopping_gateway_is_not_ready_but_answers(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(DRAIN_DELAY_SECONDS="4")
    assert (await gateway.call("GET", "/api/ready")).status == 200
    before = await gateway.call("POST", "/api/unsubscribe", {"email": "a@example.com"})
    assert (before.status, before.headers.get("Connection")) == (200, None)
    gateway.process.send_signal(signal.SIGTERM)

    async def leaving() -> bool:
        return (await gateway.call("GET", "/api/ready")).status == 503

    await eventually(leaving)
    during = await gateway.call("POST", "/api/unsubscribe", {"email": "a@example.com"})
    assert (during.status, during.headers.get("Connection")) == (200, "close")
    assert (await gateway.call("GET", "/api/health")).status == 200
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    assert len([each for each in owner.received if each["method"] == "POST"]) == 2


async def test_a_request_in_flight_at_the_stop_is_answered(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway, path = await start_gateway(), "/api/followups?email=a"
    answer = owner.hold()  # the start asks for its health
    under_way = asyncio.create_task(gateway.call("GET", path, **SERVICE))
    await until(lambda: owner.of(path))
    gateway.process.send_signal(signal.SIGTERM)
    answer.set()
    assert (await under_way).status == 200
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0


class _MadeAtTheStop(RequestHandler):
    """A connection that aiohttp closes as idle before its task has begun to wait for a request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.close()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there its task begins at once")
async def test_a_connection_made_at_the_stop_is_closed_and_does_not_delay_it(
    own_ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "RequestHandler", _MadeAtTheStop)
    service = Service("gateway")
    await server.serve(service, application.create_app(internal_key=None), HOST, own_ports[0])
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(HOST, own_ports[0])
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionResetError):  # the request is unread
                assert await reader.read() == b""
        writer.close()
    finally:
        await service.close()
