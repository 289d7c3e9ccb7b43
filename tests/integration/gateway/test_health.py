"""/api/health/deep: anybody may ask, and each look costs every service work."""

import asyncio
import signal
import sys
from contextlib import suppress

import pytest
from aiohttp import web

from libs.common.http import application, server
from libs.common.http.aiohttp_private import RequestHandler
from libs.common.process.service import Service
from tests.integration.gateway.conftest import NOBODY, SERVICE, Owner, StartGateway
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import HOST

DEEP = "/api/health/deep"


async def test_health_reports_each_component(start_gateway: StartGateway, owner: Owner) -> None:
    breakers = {"slack": {"state": "open", "failures": 5, "next_trial_at": None}}
    owner.say({"status": "healthy", "circuit_breakers": breakers})
    gateway = await start_gateway(CONSENT_URL=NOBODY)
    answer = await gateway.call("GET", "/api/health/deep", **SERVICE)
    states = {name: found["status"] for name, found in answer.body["components"].items()}
    assert (answer.status, answer.body["status"]) == (200, "degraded")
    assert states == {
        "redis": "healthy",
        "rabbitmq": "unhealthy",
        "followups": "healthy",
        "consent": "unhealthy",
        "alerts": "healthy",
    }
    assert answer.body["circuit_breakers"]["slack"]["state"] == "open"


async def test_health_is_503_when_alerts_can_be_taken_in_neither_way(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(ALERTS_URL=NOBODY)
    answer = await gateway.call("GET", "/api/health/deep")
    assert (answer.status, answer.body["status"]) == (503, "unhealthy")
    assert (await gateway.call("GET", "/api/health")).status == 200


async def test_without_a_key_no_target_and_no_queue_is_named(
    start_gateway: StartGateway, owner: Owner
) -> None:
    named = {"circuit_breakers": {"slack": {"state": "open"}}, "queues": {"alerts.slack": 3}}
    owner.say({"status": "degraded", **named})
    gateway = await start_gateway()  # what the start sees is kept for a moment
    public = await gateway.call("GET", DEEP)
    assert set(public.body) == {"status", "components"}
    keyed = await gateway.call("GET", DEEP, **SERVICE)
    assert keyed.body["queues"] == {"alerts.slack": 3}


async def test_it_has_a_limit_of_its_own_that_key_holders_do_not_share(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(HEALTH_RATE_LIMIT="2 per day", API_RATE_LIMIT_MINUTE="1 per day")
    assert [(await gateway.call("GET", DEEP)).status for _ in range(3)] == [200, 200, 429]
    assert (await gateway.call("GET", DEEP, **SERVICE)).status == 200
    assert (await gateway.call("GET", "/api/health")).status == 200


class Looks:
    """Counts the looks of a gateway at a service that answers when it may."""

    def __init__(self, owner: Owner) -> None:
        self.begun = 0
        self.may_answer = asyncio.Event()
        owner.handle = self._handle

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/health/deep":
            self.begun += 1
            await self.may_answer.wait()
        return web.json_response({"status": "healthy"})

    async def are(self, count: int) -> None:
        await until(lambda: self.begun == count)


async def test_concurrent_health_calls_share_one_query(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(FOLLOWUPS_URL=NOBODY, CONSENT_URL=NOBODY)
    await asyncio.sleep(0.6)  # what the start saw is no longer kept
    looks = Looks(owner)
    asking = [asyncio.create_task(gateway.call("GET", DEEP, **SERVICE)) for _ in range(20)]
    await looks.are(1)
    await asyncio.wait(asking)  # the look gives up after 2 s; then no other one begins
    assert looks.begun == 1
    assert max(task.result().seconds for task in asking) < 4


async def test_during_a_slow_look_others_get_the_answer_before_it_at_once(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(FOLLOWUPS_URL=NOBODY, CONSENT_URL=NOBODY)
    looks = Looks(owner)
    looks.may_answer.set()
    await asyncio.sleep(0.6)
    await gateway.call("GET", DEEP, **SERVICE)
    looks.may_answer.clear()
    await asyncio.sleep(0.6)
    first = asyncio.create_task(gateway.call("GET", DEEP, **SERVICE))
    await looks.are(2)
    others = await asyncio.gather(*(gateway.call("GET", DEEP, **SERVICE) for _ in range(20)))
    assert not first.done()
    assert {each.body["components"]["alerts"]["status"] for each in others} == {"healthy"}
    looks.may_answer.set()
    await first
    assert looks.begun == 2


# What balancers and clients see of a gateway that was told to stop.


async def test_a_stopping_gateway_is_not_ready_but_answers(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(DRAIN_DELAY_SECONDS="4")
    assert (await gateway.call("GET", "/api/ready")).status == 200
    before = await gateway.call("POST", "/api/unsubscribe", {"email": "a@example.com"})
    assert (before.status, before.headers.get("Connection")) == (200, None)
    gateway.process.send_signal(signal.SIGTERM)

    await eventually(
        lambda: gateway.call("GET", "/api/ready"), so=lambda found: found.status == 503
    )
    during = await gateway.call("POST", "/api/unsubscribe", {"email": "a@example.com"})
    assert (during.status, during.headers.get("Connection")) == (200, "close")
    assert (await gateway.call("GET", "/api/health")).status == 200
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    assert len([each for each in owner.received if each["method"] == "POST"]) == 2


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
