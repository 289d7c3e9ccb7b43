"""P2 at the door: an alert is taken with the broker, the owner or Redis away."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from libs.common.messaging.broker import HIGH, Broker, Message
from libs.common.messaging.consumer import Ack, Consumer, Disposition
from services.alerts.messages import each_accepted
from services.alerts.topology import ALERTS, DLX, INTAKE_QUEUE, intake_queues
from services.gateway.intake.alerts import TOGETHER, TOGETHER_BYTES
from services.gateway.intake.relayed import CONFIRM_SECONDS
from tests.integration.gateway.conftest import ADMIN, NOBODY, SERVICE, Gateway, Owner, StartGateway
from tests.support.brokers import Vhost
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.proxy import Proxy

pytestmark = pytest.mark.promise("P1", "P2")

ALERT = {"event_type": "slack_alert", "payload": {"text": "Nowe zapytanie"}}
S1, S2 = "Hk2yq0uV9dXc3mZr7pLtWg", "b8Jx1nQ4sT6vY0aD5fG7hK"
CHAT = "/api/chatbot/chat"
NO_REDIS = "redis://127.0.0.1:1"


class Intake:
    """What alerts.intake holds, taken out."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.messages: list[Message] = []

    async def take(self, message: Message) -> Disposition:
        self.messages.append(message)
        return Ack()

    async def has(self, count: int) -> list[Message]:
        return await self._until(lambda: len(self.messages) >= count)

    async def has_alerts(self, count: int) -> list[Message]:
        def together(message: Message) -> int:
            return len(message.body.get("alerts", (message,)))

        return await self._until(lambda: sum(map(together, self.messages)) >= count)

    async def _until(self, done: Callable[[], bool]) -> list[Message]:
        async with Consumer(self.broker, INTAKE_QUEUE, self.take, prefetch=100):
            await until(done)
        return self.messages


@pytest.fixture
async def intake(amqp_url: Callable[[str], str]) -> AsyncIterator[Intake]:
    async with Broker.connect(amqp_url("alerts"), "alerts") as broker:
        await until(lambda: broker.connected)
        await broker.declare(ALERTS, DLX, *intake_queues())
        yield Intake(broker)


async def with_broker(
    start_gateway: StartGateway, amqp_url: Callable[[str], str], **settings: str
) -> Gateway:
    gateway = await start_gateway(AMQP_URL=amqp_url("gateway"), **settings)

    async def connected() -> bool:
        found = (await gateway.call("GET", "/api/health/deep", **ADMIN)).body["components"]
        return bool(found["rabbitmq"]["status"] == "healthy")

    await eventually(connected)
    return gateway


async def test_an_alert_is_in_the_queue_when_it_is_answered(
    start_gateway: StartGateway, amqp_url: Callable[[str], str], intake: Intake, owner: Owner
) -> None:
    gateway = await with_broker(start_gateway, amqp_url, ALERTS_URL=NOBODY)
    answer = await gateway.call("POST", "/api/alerts", {**ALERT, "severity": "critical"}, **SERVICE)
    id_ = answer.body["id"]
    assert answer.status == 202
    assert answer.body["status_url"] == f"/api/alerts/{id_}"
    (message,) = await intake.has(1)
    assert (message.id, message.type, message.body["id"]) == (id_, "alert.accepted", id_)
    assert message.request_id == answer.headers["X-Request-ID"]
    assert message.body["severity"] == "critical"
    assert (message.body["caller"], message.priority) == ("service", HIGH)
    assert owner.received == [call for call in owner.received if call["method"] == "GET"]


async def test_a_batch_of_1000_is_taken_whole(
    start_gateway: StartGateway, amqp_url: Callable[[str], str], intake: Intake
) -> None:
    gateway = await with_broker(start_gateway, amqp_url)
    answer = await gateway.call("POST", "/api/alerts/batch", {"alerts": [ALERT] * 1000}, **SERVICE)
    ids = [item["id"] for item in answer.body["items"]]
    assert (answer.status, answer.body["accepted"], len(set(ids))) == (202, 1000, 1000)
    messages = await intake.has(1000 // TOGETHER)
    assert {message.type for message in messages} == {"alerts.accepted"}
    alerts = [alert for each in messages for alert in each.body["alerts"]]
    assert sorted(alert["id"] for alert in alerts) == sorted(ids)
    assert numbers_of(alerts) == list(range(1, 1001))
    taken = {alert["id"]: alert["accepted_at"] for alert in alerts}
    assert [taken[id_] for id_ in ids] == sorted(set(taken.values()))  # in the caller's order


async def test_alerts_of_one_moment_share_a_message_and_each_has_its_own_request_id(
    start_gateway: StartGateway, amqp_url: Callable[[str], str], intake: Intake
) -> None:
    gateway = await with_broker(start_gateway, amqp_url)
    answers = await asyncio.gather(
        *(gateway.call("POST", "/api/alerts", ALERT, **SERVICE) for _ in range(50))
    )
    assert {answer.status for answer in answers} == {202}
    expected = {answer.body["id"]: answer.headers["X-Request-ID"] for answer in answers}

    def alone(message: Message) -> list[Message]:
        return each_accepted(message) if message.type == "alerts.accepted" else [message]

    messages = await intake.has_alerts(50)
    assert len(messages) < 50
    assert {each.id: each.request_id for one in messages for each in alone(one)} == expected


async def test_alerts_that_share_a_message_are_no_larger_than_one_request_may_be(
    start_gateway: StartGateway, amqp_url: Callable[[str], str], intake: Intake
) -> None:
    gateway = await with_broker(start_gateway, amqp_url)
    alert = {**ALERT, "payload": {"text": "x" * 60_000}}
    messages: list[Message] = []
    for sent in range(30, 330, 30):  # a busy machine may take one after the other
        answers = await asyncio.gather(
            *(gateway.call("POST", "/api/alerts", alert, **SERVICE) for _ in range(30))
        )
        assert {answer.status for answer in answers} == {202}
        messages = await intake.has_alerts(sent)
        if any("alerts" in each.body for each in messages):
            break
    assert max(len(each.body.get("alerts", ())) for each in messages) > 1
    largest = max(len(json.dumps(each.body)) for each in messages)
    assert largest < TOGETHER_BYTES + 16 * 1024  # what the gateway adds to the requests


@pytest.mark.quick
async def test_without_the_broker_the_service_accepts_the_alert_under_the_same_id(
    gateway: Gateway, owner: Owner
) -> None:
    posted = serve_intake(owner)
    answer = await gateway.call("POST", "/api/alerts", ALERT, **SERVICE)
    assert answer.status == 202
    assert [alert["id"] for alert in posted] == [answer.body["id"]]
    assert posted[0]["source"] == "gateway"


async def test_a_large_batch_goes_to_the_owner_in_one_post_that_it_takes(
    gateway: Gateway, owner: Owner
) -> None:
    posted = serve_intake(owner)
    alert = {**ALERT, "payload": {"text": "x" * 150}}
    answer = await gateway.call("POST", "/api/alerts/batch", {"alerts": [alert] * 1000}, **SERVICE)
    assert answer.status == 202
    assert {item["id"] for item in answer.body["items"]} == {alert["id"] for alert in posted}
    sizes = [len(call["body"]) for call in owner.received if call["method"] == "POST"]
    assert len(sizes) == 1
    assert sizes[0] < 1024 * 1024  # what the alerts service takes


async def test_without_a_queue_the_owner_takes_it(
    start_gateway: StartGateway, amqp_url: Callable[[str], str], owner: Owner
) -> None:
    posted = serve_intake(owner)
    gateway = await with_broker(start_gateway, amqp_url)
    answer = await gateway.call("POST", "/api/alerts", ALERT, **SERVICE)
    assert (answer.status, len(posted)) == (202, 1)


async def test_with_a_stalled_broker_any_number_of_alerts_fail_over_in_the_same_time(
    start_gateway: StartGateway, owner: Owner, intake: Intake, vhost: Vhost
) -> None:
    posted = serve_intake(owner)
    async with Proxy(vhost.server.port) as proxy:
        gateway = await with_broker(start_gateway, lambda name: vhost.url(name, proxy.port))
        assert (await gateway.call("POST", "/api/alerts", ALERT, **SERVICE)).status == 202
        assert not posted
        proxy.stall()
        batch = {"alerts": [ALERT] * 1000}
        answers = await asyncio.gather(
            gateway.call("POST", "/api/alerts/batch", batch, **SERVICE),
            *(gateway.call("POST", "/api/alerts", ALERT, **SERVICE) for _ in range(500)),
        )
    assert {answer.status for answer in answers} == {202}
    assert len(posted) == 1000 + 500
    assert numbers_of(posted) == list(range(2, 1502))
    # If each waited for the one before it, the last would take many times as long as one.
    assert max(answer.seconds for answer in answers) < 3 * CONFIRM_SECONDS


@pytest.mark.quick
@pytest.mark.control("P2")
async def test_without_broker_and_service_the_outcome_is_unknown_and_may_be_repeated(
    gateway: Gateway, owner: Owner
) -> None:
    headers = {**SERVICE, "Idempotency-Key": "order-1"}
    unknown = await gateway.call("POST", "/api/alerts", ALERT, **headers)
    assert unknown.status == 503
    assert unknown.body["detail"].startswith("the outcome is unknown; repeat")
    assert unknown.headers["Retry-After"]
    posted = serve_intake(owner)
    taken = await gateway.call("POST", "/api/alerts", ALERT, **headers)
    assert (taken.status, len(posted)) == (202, 1)
    assert numbers_of(posted) == [2]
    assert posted[0]["numbered"]["unused"] == [[1, 1]]  # nobody was promised that one


def numbers_of(alerts: list[dict[str, Any]]) -> list[int]:
    """Return the running numbers of one process' alerts, in order."""
    assert len({alert["numbered"]["sender"] for alert in alerts}) == 1
    return sorted(alert["numbered"]["number"] for alert in alerts)


def serve_intake(owner: Owner) -> list[dict[str, Any]]:
    posted: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/internal/alerts":
            posted.extend((await request.json())["alerts"])
            return web.json_response({}, status=202)
        return web.json_response({"status": "healthy"})

    owner.handle = handle
    return posted


@pytest.mark.quick
@pytest.mark.parametrize("redis", ["up", "away"])
async def test_the_same_key_and_body_are_one_alert(
    start_gateway: StartGateway, owner: Owner, redis: str
) -> None:
    posted = serve_intake(owner)
    settings = {"REDIS_URL": NO_REDIS} if redis == "away" else {}
    gateway = await start_gateway(**settings)
    headers = {**SERVICE, "Idempotency-Key": "order-1"}
    one = await gateway.call("POST", "/api/alerts", ALERT, **headers)
    again = await gateway.call("POST", "/api/alerts", ALERT, **headers)
    other = await gateway.call("POST", "/api/alerts", {**ALERT, "payload": {}}, **headers)
    assert one.body == again.body
    assert (one.status, again.status, other.status) == (202, 202, 422)
    assert len(posted) == 1


async def test_the_same_key_at_another_gateway_without_redis_is_the_same_alert(
    start_gateway: StartGateway, owner: Owner
) -> None:
    posted = serve_intake(owner)
    headers = {**SERVICE, "Idempotency-Key": "order-1"}
    ids = set()
    for _ in range(2):
        gateway = await start_gateway(REDIS_URL=NO_REDIS)
        ids.add((await gateway.call("POST", "/api/alerts", ALERT, **headers)).body["id"])
    assert len(ids) == 1
    assert {alert["id"] for alert in posted} == ids


async def test_another_body_under_a_forgotten_key_is_another_alert_and_not_dropped_as_the_first(
    start_gateway: StartGateway, owner: Owner
) -> None:
    posted = serve_intake(owner)
    headers = {**SERVICE, "Idempotency-Key": "daily-report"}
    for text in ("Monday", "Tuesday"):
        gateway = await start_gateway(REDIS_URL=NO_REDIS)
        alert = {**ALERT, "payload": {"text": text}}
        assert (await gateway.call("POST", "/api/alerts", alert, **headers)).status == 202
    assert len({alert["id"] for alert in posted}) == 2


async def test_the_same_batch_is_the_same_alerts(gateway: Gateway, owner: Owner) -> None:
    posted = serve_intake(owner)
    headers = {**SERVICE, "Idempotency-Key": "batch-1"}
    body = {"alerts": [ALERT, ALERT]}
    one = await gateway.call("POST", "/api/alerts/batch", body, **headers)
    again = await gateway.call("POST", "/api/alerts/batch", body, **headers)
    assert one.body == again.body
    assert len({item["id"] for item in one.body["items"]}) == len(posted) == 2


async def test_a_bad_alert_is_named_and_nothing_of_its_batch_is_taken(
    gateway: Gateway, owner: Owner
) -> None:
    posted = serve_intake(owner)

    async def faults(path: str, body: object) -> set[str]:
        answer = await gateway.call("POST", path, body, **SERVICE)
        assert answer.status == 422
        return {error["field"] for error in answer.body["errors"]}

    wrong = {**ALERT, "event_type": "no_such", "target": "https://evil.example.com"}
    assert await faults("/api/alerts", wrong) == {"event_type", "target"}
    assert await faults("/api/alerts/batch", {"alerts": [ALERT, wrong]}) == {
        "alerts.1.event_type",
        "alerts.1.target",
    }
    assert await faults("/api/alerts", {**ALERT, "else": 1, "severity": "high"}) == {
        "else",
        "severity",
    }
    assert await faults("/api/alerts/batch", {"alerts": [ALERT] * 1001}) == {"alerts"}
    assert posted == []


async def test_a_chat_turn_repeated_under_its_key_is_answered_and_not_taken_again(
    gateway: Gateway, owner: Owner
) -> None:
    body = {"message": "Dzień dobry", "session_id": S1}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    one = await gateway.call("POST", CHAT, body, **key)
    again = await gateway.call("POST", CHAT, body, **key)
    other = await gateway.call("POST", CHAT, {**body, "message": "?"}, **key)
    elsewhere = await gateway.call("POST", CHAT, {**body, "session_id": S2}, **key)
    assert one.body == again.body
    assert (other.status, elsewhere.status) == (422, 200)
    assert [json.loads(c["body"])["session_id"] for c in owner.received if c["body"]] == [
        S1,
        S2,
    ]


async def test_a_stored_response_is_readable_only_with_its_key(
    gateway: Gateway, owner: Owner, redis_url: str
) -> None:
    owner.say({"reply": "Zapisałem: 600 700 800, anna@example.com"})
    body = {"message": "600 700 800, anna@example.com", "session_id": S1}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for _ in range(2):
        answer = await gateway.call("POST", CHAT, body, **key)
        assert "anna@example.com" in answer.body["reply"]
    async with Redis.from_url(redis_url) as redis:
        names = [name async for name in redis.scan_iter(_type="string")]
        kept = b"".join([name + await redis.get(name) for name in names])
    assert len(kept) > 200
    for personal in (
        b"anna",
        b"600 700",
        S1.encode(),
        hashlib.sha256(json.dumps(body).encode()).digest(),
    ):
        assert personal not in kept


async def test_while_the_first_is_running_the_same_key_is_409(
    gateway: Gateway, owner: Owner
) -> None:
    release = owner.hold()
    body = {"message": "Dzień dobry", "session_id": S1}
    first = asyncio.create_task(gateway.call("POST", CHAT, body, **{"Idempotency-Key": "k"}))
    await until(lambda: owner.of(CHAT))
    second = await gateway.call("POST", CHAT, body, **{"Idempotency-Key": "k"})
    release.set()
    assert (second.status, (await first).status) == (409, 200)
    third = await gateway.call("POST", CHAT, body, **{"Idempotency-Key": "k"})
    assert (third.body, len(owner.of(CHAT))) == ({}, 1)


async def test_a_failure_gives_its_key_back(gateway: Gateway, owner: Owner) -> None:
    owner.say(status=500)
    body = {"message": "Dzień dobry", "session_id": S1}
    assert (await gateway.call("POST", CHAT, body, **{"Idempotency-Key": "k"})).status == 500
    owner.handle = None
    assert (await gateway.call("POST", CHAT, body, **{"Idempotency-Key": "k"})).status == 200
