"""The routes of followups, called as the gateway calls them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import health
from libs.common.database import postgres
from libs.common.health import HealthRoute
from libs.common.http.application import create_app, unavailable_when
from libs.common.messaging.broker import Broker
from libs.common.process.settings import Settings
from services.followups.http.chat import ChatRoutes
from services.followups.http.chat_page import ChatPage
from services.followups.http.followups import FollowupRoutes
from services.followups.http.leads import LeadRoutes
from tests.integration.followups.conftest import (
    CONFIG,
    GOOD_LEAD,
    NOBODY_ERASED,
    REFUSED,
    World,
    link,
    mails,
)
from tests.support.system import WORDING

KEY = "internal-key-of-this-test"
HEADERS = {"X-Internal-Key": KEY, "X-Caller": "service"}
Client = TestClient[web.Request, web.Application]
Post = Callable[..., Awaitable[tuple[int, Any]]]


def app_of(engine: AsyncEngine, broker: Broker) -> web.Application:
    app = create_app(internal_key=KEY)
    app.middlewares.append(unavailable_when(postgres.is_transient))
    chat = ChatRoutes(engine, CONFIG, link)
    chat.add_to(app)
    ChatPage(chat, CONFIG).add_to(app)
    FollowupRoutes(engine, CONFIG, mails(CONFIG)).add_to(app)
    LeadRoutes(engine, CONFIG, link, NOBODY_ERASED).add_to(app)
    look = partial(health.with_outbox, engine, broker)
    HealthRoute(look, "followups", Settings(), broker, Path()).add_to(app)
    return app


@pytest.fixture
async def client(engine: AsyncEngine) -> Any:
    async with (
        Broker.connect("amqp://127.0.0.1:1/", "followups") as broker,
        TestClient(TestServer(app_of(engine, broker)), headers=HEADERS) as opened,
    ):
        yield opened


@pytest.fixture
def post(client: Client) -> Post:
    async def send(path: str, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
        async with client.post(path, json=body, headers=headers) as response:
            return response.status, await response.json()

    return send


async def listed(client: Client, **query: str) -> list[dict[str, Any]]:
    async with client.get("/api/followups", params=query) as response:
        assert response.status == 200
        body = await response.json()
        assert set(body) == {"items", "next_cursor"}
        items: list[dict[str, Any]] = body["items"]
        return items


@pytest.mark.parametrize("caller", ["public", "service"])
async def test_a_chat_answers_with_its_reply_and_tells_the_score_to_services_only(
    post: Post, caller: str
) -> None:
    said = {"message": "dzień dobry, remont", "session_id": "abc"}
    status, answer = await post("/api/chatbot/chat", said, **{"X-Caller": caller})
    assert status == 200
    score = {"lead_score"} if caller == "service" else set()
    assert set(answer) == {"reply", "session_id", "conversation_id", "ask", "card"} | score
    assert answer["session_id"] == "abc"
    assert answer["reply"]
    assert uuid.UUID(answer["conversation_id"])
    assert isinstance(answer.get("lead_score", 0), int)


async def test_a_chat_accepts_every_field_of_the_contract(post: Post, world: World) -> None:
    status, answer = await post(
        "/api/chatbot/chat",
        {
            "message": "I want a new bathroom, 30k PLN",
            "session_id": "abc",
            "email": "John@Example.com",
            "name": "John",
            "phone": "600-700-800",
            "language": "en-GB",
            "consent": {"marketing": True, "text": WORDING.text},
        },
        **{"X-Caller": "service"},
    )
    assert (status, answer["lead_score"] >= CONFIG.lead.threshold) == (200, True)
    [lead] = await world.outbox("lead.qualified")
    assert (lead["email"], lead["phone"], lead["name"]) == (
        "john@example.com", "+48600700800", "John",
    )  # fmt: skip
    [grant] = await world.outbox("grant.record")
    assert grant["wording"] == WORDING.text


@pytest.mark.parametrize("caller", ["public", "service"])
async def test_an_unpublished_wording_is_no_consent_with_any_key(
    post: Post, world: World, caller: str
) -> None:
    said = {
        "message": "remont łazienki 8 m2, budżet 60 tys.", "session_id": "abc",
        "email": "jan@example.com", "phone": "600 700 800",
        "consent": {"marketing": True, "text": "Zgadzam się na evil.com"},
    }  # fmt: skip
    status, answer = await post("/api/chatbot/chat", said, **{"X-Caller": caller})
    assert status == 200
    assert await world.outbox("lead.qualified")
    assert await world.outbox("grant.record") == []
    assert "?" in answer["reply"]  # it will ask with the published wording


async def test_a_chat_takes_the_hash_of_a_wording(post: Post, world: World) -> None:
    agreed = {"marketing": True, "wording": WORDING.sha256}
    said = {"message": "remont kuchni", "session_id": "abc", "email": "jan@example.com"}
    assert (await post("/api/chatbot/chat", said | {"consent": agreed}))[0] == 200
    assert [grant["wording"] for grant in await world.outbox("grant.record")] == [WORDING.text]


@pytest.mark.parametrize("name", ["Win at evil-prize.com", "evil。com", "700 700 700"])
async def test_an_invalid_name_is_ignored_and_the_lead_is_kept(
    post: Post, world: World, name: str
) -> None:
    said = {
        "message": "remont łazienki 8 m2, budżet 60 tys.", "session_id": "abc", "name": name,
        "email": "jan@example.com", "phone": "600 700 800",
    }  # fmt: skip
    assert (await post("/api/chatbot/chat", said))[0] == 200
    [lead] = await world.outbox("lead.qualified")
    assert lead["name"] is None


async def test_marketing_false_changes_nothing(post: Post, world: World) -> None:
    await post(
        "/api/chatbot/chat",
        {"message": "remont", "session_id": "a", "email": "jan@example.com",
         "consent": {"marketing": False, "text": "Zgadzam się"}},
    )  # fmt: skip
    assert await world.outbox("grant.record") == []


async def test_a_bad_field_is_named_and_changes_nothing(post: Post, world: World) -> None:
    for fault, field in REFUSED["chat"]:
        body = {"message": "remont", "session_id": "abc"} | fault
        status, answer = await post("/api/chatbot/chat", body)
        assert (status, [each["field"] for each in answer["errors"]]) == (422, [field]), fault
    assert await world.conversations() == 0


async def test_enrolling_an_address_twice_returns_the_same_steps(
    post: Post, client: Client
) -> None:
    status, first = await post("/api/followups", {"email": "jan@example.com", "delay_seconds": 5})
    assert status == 202
    assert [item["followup_number"] for item in first["items"]] == [1, 2]
    assert {item["status"] for item in first["items"]} == {"scheduled"}
    status, again = await post("/api/followups", {"email": "JAN@example.com", "delay_seconds": 9})
    assert (status, again) == (200, first)
    assert await listed(client, email="Jan@Example.com") == first["items"]


async def test_staff_can_reschedule_steps_of_the_chat(post: Post) -> None:
    _, answer = await post(
        "/api/chatbot/chat", {"message": f"{GOOD_LEAD}, jan@example.com", "session_id": "abc"}
    )
    body = {"conversation_id": answer["conversation_id"]}
    status, hastened = await post("/api/followups", body | {"delay_seconds": 1})
    assert status == 202
    status, again = await post("/api/followups", body | {"delay_seconds": 7})
    assert (status, again) == (200, hastened)


@pytest.mark.parametrize("path", ["/api/followups", "/api/followups/stop"])
async def test_an_invalid_enrolment_or_stop_is_refused(post: Post, world: World, path: str) -> None:
    for body, status in REFUSED[path]:
        assert (await post(path, body))[0] == status, body
    assert await world.conversations() == 0


async def test_a_conversation_without_an_address_cannot_be_enrolled(post: Post) -> None:
    _, answer = await post("/api/chatbot/chat", {"message": "remont", "session_id": "abc"})
    status, _ = await post("/api/followups", {"conversation_id": answer["conversation_id"]})
    assert status == 422


async def test_a_cancel_stops_the_step_and_the_later_ones(post: Post, client: Client) -> None:
    _, scheduled = await post("/api/followups", {"email": "jan@example.com"})
    first = scheduled["items"][0]
    assert [item["id"] for item in await listed(client, status="scheduled")] == [
        item["id"] for item in scheduled["items"]
    ]
    for _ in range(2):  # idempotent
        async with client.delete(f"/api/followups/{first['id']}") as response:
            assert response.status == 200
            assert (await response.json())["status"] == "cancelled"
    items = await listed(client, conversation_id=first["conversation_id"])
    assert [item["status"] for item in items] == ["cancelled", "cancelled"]
    assert await listed(client, status="scheduled") == []
    async with client.get("/api/followups?status=sent") as response:
        assert response.status == 422


async def test_a_sent_step_cannot_be_cancelled(post: Post, client: Client, world: World) -> None:
    _, scheduled = await post("/api/followups", {"email": "jan@example.com"})
    first = scheduled["items"][0]
    await world.pretend_sent(first["id"])
    async with client.delete(f"/api/followups/{first['id']}") as response:
        assert response.status == 409
    assert await world.statuses() == ["sent", "cancelled"]


@pytest.mark.parametrize("reason", ["reply", "staff", "bounce"])
@pytest.mark.parametrize("by", ["email", "conversation_id"])
async def test_a_stop_ends_a_person_s_follow_ups_in_all_conversations(
    post: Post, world: World, reason: str, by: str
) -> None:
    _, answer = await post(
        "/api/chatbot/chat", {"message": f"{GOOD_LEAD}, jan@example.com", "session_id": "abc"}
    )
    await world.enrol("ala@example.com", seconds=60)
    who = {"email": "Jan@example.com", "conversation_id": answer["conversation_id"]}
    asked = {by: who[by], "reason": reason}
    assert await post("/api/followups/stop", asked) == (200, {"cancelled": 2})
    assert await post("/api/followups/stop", asked) == (200, {"cancelled": 0})
    steps = await world.steps("jan@example.com")
    assert {(step["status"], step["reason"]) for step in steps} == {("cancelled", reason)}
    assert await world.statuses("ala@example.com") == ["scheduled", "scheduled"]


async def test_after_staff_took_over_only_staff_can_enrol_again(post: Post, world: World) -> None:
    await post("/api/followups/stop", {"email": "jan@example.com", "reason": "staff"})
    await world.say(f"{GOOD_LEAD}, jan@example.com", "a new session")
    assert await world.steps() == []
    status, _ = await post("/api/followups", {"email": "jan@example.com"})
    assert (status, await world.statuses()) == (202, ["scheduled", "scheduled"])


async def test_an_address_that_bounced_gets_no_more_mail(post: Post, world: World) -> None:
    for reason in ("bounce", "staff"):  # the order does not matter
        await post("/api/followups/stop", {"email": "jan@example.com", "reason": reason})
    await world.say(f"{GOOD_LEAD}, jan@example.com", "a new session")
    status, _ = await post("/api/followups", {"email": "jan@example.com"})
    assert (status, await world.steps()) == (409, [])


async def test_a_concurrent_stop_and_enrolment_leave_nothing_scheduled(
    post: Post, world: World
) -> None:
    for n in range(10):
        email = f"lead{n}@example.com"
        await asyncio.gather(
            post("/api/followups/stop", {"email": email, "reason": "bounce"}),
            post("/api/followups", {"email": email}),
            world.say(f"{GOOD_LEAD}, {email}", f"s{n}"),
        )
        assert set(await world.statuses(email)) <= {"cancelled"}


async def test_each_step_is_counted_and_its_mail_shown(client: Client, world: World) -> None:
    email = "jan@example.com"
    await world.say(f"{GOOD_LEAD}, {email}")
    first = (await world.steps(email))[0]
    await world.pretend_sent(str(first["id"]))
    async with client.post("/api/followups/stop", json={"email": email, "reason": "reply"}) as done:
        assert done.status == 200
    async with client.get("/api/followups/sequences") as response:
        items = {(e["sequence"], e["step"]): e for e in (await response.json())["items"]}
    assert set(items) == {
        (name, step) for name, of in CONFIG.sequences.items() for step in range(1, len(of) + 1)
    }
    assert items["default", 1]["counts"] == {"sent": 1}
    assert items["default", 2]["counts"] == {"reply": 1}
    for step in items.values():
        assert set(step["mails"]) >= {"pl", "en"}
        assert "unsubscribe?token=" in step["mails"]["pl"]["text"]


async def test_a_long_list_comes_in_pages(client: Client, world: World) -> None:
    await world.enrol("jan@example.com", steps=250)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for pages in (100, 100, 50):
        async with client.get(
            "/api/followups", params={"email": "jan@example.com"} | cursor
        ) as response:
            body = await response.json()
        assert len(body["items"]) == pages
        seen += [item["id"] for item in body["items"]]
        cursor = {"cursor": body["next_cursor"]} if body["next_cursor"] else {}
    assert not cursor
    assert len(set(seen)) == 250


async def test_without_the_broker_health_is_degraded_and_the_chat_works(
    client: Client, post: Post
) -> None:
    await post("/api/chatbot/chat", {"message": f"{GOOD_LEAD}, a@example.com", "session_id": "a"})
    async with client.get("/health/deep") as response:
        health = await response.json()
    assert health["status"] == "degraded"
    assert health["components"]["postgres"] == {"status": "healthy"}
    assert health["outbox"] == 1


async def test_without_the_database_the_answer_is_503_with_retry_after() -> None:
    away = "postgresql+aiopg://followups:x@127.0.0.1:1/ostoja"
    async with (
        postgres.connect(away, application_name="followups") as engine,
        Broker.connect("amqp://127.0.0.1:1/", "followups") as broker,
        TestClient(TestServer(app_of(engine, broker)), headers=HEADERS) as client,
    ):
        body = {"message": "remont", "session_id": "abc"}
        async with client.post("/api/chatbot/chat", json=body) as response:
            assert response.status == 503
            assert response.headers["Retry-After"]
        async with client.get("/health/deep") as response:
            assert (await response.json())["status"] == "unhealthy"
