"""/api/health/deep: anybody may ask, and each look costs every service work."""

import asyncio

from aiohttp import web

from tests.integration.gateway.conftest import NOBODY, SERVICE, Owner, StartGateway
from tests.support.consumers import until

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
