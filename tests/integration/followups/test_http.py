"""The routes of followups, called as the gateway calls them."""

import asyncio
import uuid

import pytest

from libs.common.database import postgres
from tests.integration.followups.conftest import (
    CONFIG,
    GOOD_LEAD,
    REFUSED,
    World,
)
from tests.support.system import WORDING

CHAT = "/api/chatbot/chat"
JAN_ASKS = {"message": f"{GOOD_LEAD}, jan@example.com", "session_id": "abc"}


@pytest.mark.parametrize("caller", ["public", "service"])
async def test_a_chat_answers_with_its_reply_and_tells_the_score_to_services_only(
    world: World, caller: str
) -> None:
    said = {"message": "dzień dobry, remont", "session_id": "abc"}
    status, answer = await world.post(CHAT, said, **{"X-Caller": caller})
    assert status == 200
    score = {"lead_score"} if caller == "service" else set()
    assert set(answer) == {"reply", "session_id", "conversation_id", "ask", "card"} | score
    assert answer["session_id"] == "abc"
    assert answer["reply"]
    assert uuid.UUID(answer["conversation_id"])
    assert isinstance(answer.get("lead_score", 0), int)


async def test_a_chat_accepts_every_field_of_the_contract(world: World) -> None:
    status, answer = await world.post(
        CHAT,
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
async def test_an_unpublished_wording_is_no_consent_with_any_key(world: World, caller: str) -> None:
    said = {
        "message": "remont łazienki 8 m2, budżet 60 tys.", "session_id": "abc",
        "email": "jan@example.com", "phone": "600 700 800",
        "consent": {"marketing": True, "text": "Zgadzam się na evil.com"},
    }  # fmt: skip
    status, answer = await world.post(CHAT, said, **{"X-Caller": caller})
    assert status == 200
    assert await world.outbox("lead.qualified")
    assert await world.outbox("grant.record") == []
    assert "?" in answer["reply"]  # it will ask with the published wording


async def test_a_chat_takes_the_hash_of_a_wording(world: World) -> None:
    agreed = {"marketing": True, "wording": WORDING.sha256}
    said = {"message": "remont kuchni", "session_id": "abc", "email": "jan@example.com"}
    assert (await world.post(CHAT, said | {"consent": agreed}))[0] == 200
    assert [grant["wording"] for grant in await world.outbox("grant.record")] == [WORDING.text]


@pytest.mark.parametrize("name", ["Win at evil-prize.com", "evil。com", "700 700 700"])
async def test_an_invalid_name_is_ignored_and_the_lead_is_kept(world: World, name: str) -> None:
    said = {
        "message": "remont łazienki 8 m2, budżet 60 tys.", "session_id": "abc", "name": name,
        "email": "jan@example.com", "phone": "600 700 800",
    }  # fmt: skip
    assert (await world.post(CHAT, said))[0] == 200
    [lead] = await world.outbox("lead.qualified")
    assert lead["name"] is None


async def test_marketing_false_changes_nothing(world: World) -> None:
    await world.post(
        CHAT,
        {"message": "remont", "session_id": "a", "email": "jan@example.com",
         "consent": {"marketing": False, "text": "Zgadzam się"}},
    )  # fmt: skip
    assert await world.outbox("grant.record") == []


async def test_a_bad_field_is_named_and_changes_nothing(world: World) -> None:
    for fault, field in REFUSED["chat"]:
        body = {"message": "remont", "session_id": "abc"} | fault
        status, answer = await world.post(CHAT, body)
        assert (status, [each["field"] for each in answer["errors"]]) == (422, [field]), fault
    assert await world.conversations() == 0


async def test_enrolling_an_address_twice_returns_the_same_steps(world: World) -> None:
    status, first = await world.post(
        "/api/followups", {"email": "jan@example.com", "delay_seconds": 5}
    )
    assert status == 202
    assert [item["followup_number"] for item in first["items"]] == [1, 2]
    assert {item["status"] for item in first["items"]} == {"scheduled"}
    status, again = await world.post(
        "/api/followups", {"email": "JAN@example.com", "delay_seconds": 9}
    )
    assert (status, again) == (200, first)
    assert await world.listed("followups", email="Jan@Example.com") == first["items"]


async def test_staff_can_reschedule_steps_of_the_chat(world: World) -> None:
    _, answer = await world.post(CHAT, JAN_ASKS)
    body = {"conversation_id": answer["conversation_id"]}
    status, hastened = await world.post("/api/followups", body | {"delay_seconds": 1})
    assert status == 202
    status, again = await world.post("/api/followups", body | {"delay_seconds": 7})
    assert (status, again) == (200, hastened)


@pytest.mark.parametrize("path", ["/api/followups", "/api/followups/stop"])
async def test_an_invalid_enrolment_or_stop_is_refused(world: World, path: str) -> None:
    for body, status in REFUSED[path]:
        assert (await world.post(path, body))[0] == status, body
    assert await world.conversations() == 0


async def test_a_conversation_without_an_address_cannot_be_enrolled(world: World) -> None:
    _, answer = await world.post(CHAT, {"message": "remont", "session_id": "abc"})
    status, _ = await world.post("/api/followups", {"conversation_id": answer["conversation_id"]})
    assert status == 422


async def test_a_cancel_stops_the_step_and_the_later_ones(world: World) -> None:
    _, scheduled = await world.post("/api/followups", {"email": "jan@example.com"})
    first = scheduled["items"][0]
    assert [item["id"] for item in await world.listed("followups", status="scheduled")] == [
        item["id"] for item in scheduled["items"]
    ]
    for _ in range(2):  # idempotent
        status, cancelled = await world.call("DELETE", f"/api/followups/{first['id']}")
        assert (status, cancelled["status"]) == (200, "cancelled")
    items = await world.listed("followups", conversation_id=first["conversation_id"])
    assert [item["status"] for item in items] == ["cancelled", "cancelled"]
    assert await world.listed("followups", status="scheduled") == []
    assert (await world.call("GET", "/api/followups?status=sent"))[0] == 422


async def test_a_sent_step_cannot_be_cancelled(world: World) -> None:
    _, scheduled = await world.post("/api/followups", {"email": "jan@example.com"})
    first = scheduled["items"][0]
    await world.pretend_sent(first["id"])
    assert (await world.call("DELETE", f"/api/followups/{first['id']}"))[0] == 409
    assert await world.statuses() == ["sent", "cancelled"]


@pytest.mark.parametrize("reason", ["reply", "staff", "bounce"])
@pytest.mark.parametrize("by", ["email", "conversation_id"])
async def test_a_stop_ends_a_person_s_follow_ups_in_all_conversations(
    world: World, reason: str, by: str
) -> None:
    _, answer = await world.post(CHAT, JAN_ASKS)
    await world.enrol("ala@example.com", seconds=60)
    who = {"email": "Jan@example.com", "conversation_id": answer["conversation_id"]}
    asked = {by: who[by], "reason": reason}
    assert await world.post("/api/followups/stop", asked) == (200, {"cancelled": 2})
    assert await world.post("/api/followups/stop", asked) == (200, {"cancelled": 0})
    steps = await world.steps("jan@example.com")
    assert {(step["status"], step["reason"]) for step in steps} == {("cancelled", reason)}
    assert await world.statuses("ala@example.com") == ["scheduled", "scheduled"]


async def test_after_staff_took_over_only_staff_can_enrol_again(world: World) -> None:
    await world.post("/api/followups/stop", {"email": "jan@example.com", "reason": "staff"})
    await world.say(f"{GOOD_LEAD}, jan@example.com", "a new session")
    assert await world.steps() == []
    status, _ = await world.post("/api/followups", {"email": "jan@example.com"})
    assert (status, await world.statuses()) == (202, ["scheduled", "scheduled"])


async def test_an_address_that_bounced_gets_no_more_mail(world: World) -> None:
    for reason in ("bounce", "staff"):  # the order does not matter
        await world.post("/api/followups/stop", {"email": "jan@example.com", "reason": reason})
    await world.say(f"{GOOD_LEAD}, jan@example.com", "a new session")
    status, _ = await world.post("/api/followups", {"email": "jan@example.com"})
    assert (status, await world.steps()) == (409, [])


async def test_a_concurrent_stop_and_enrolment_leave_nothing_scheduled(world: World) -> None:
    for n in range(10):
        email = f"lead{n}@example.com"
        await asyncio.gather(
            world.post("/api/followups/stop", {"email": email, "reason": "bounce"}),
            world.post("/api/followups", {"email": email}),
            world.say(f"{GOOD_LEAD}, {email}", f"s{n}"),
        )
        assert set(await world.statuses(email)) <= {"cancelled"}


async def test_each_step_is_counted_and_its_mail_shown(world: World) -> None:
    email = "jan@example.com"
    await world.say(f"{GOOD_LEAD}, {email}")
    first = (await world.steps(email))[0]
    await world.pretend_sent(str(first["id"]))
    assert (await world.post("/api/followups/stop", {"email": email, "reason": "reply"}))[0] == 200
    found = (await world.get("/api/followups/sequences"))["items"]
    items = {(each["sequence"], each["step"]): each for each in found}
    assert set(items) == {
        (name, step) for name, of in CONFIG.sequences.items() for step in range(1, len(of) + 1)
    }
    assert items["default", 1]["counts"] == {"sent": 1}
    assert items["default", 2]["counts"] == {"reply": 1}
    for step in items.values():
        assert set(step["mails"]) >= {"pl", "en"}
        assert "unsubscribe?token=" in step["mails"]["pl"]["text"]


async def test_a_long_list_comes_in_pages(world: World) -> None:
    await world.enrol("jan@example.com", steps=250)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for pages in (100, 100, 50):
        body = await world.get("/api/followups", email="jan@example.com", **cursor)
        assert len(body["items"]) == pages
        seen += [item["id"] for item in body["items"]]
        cursor = {"cursor": body["next_cursor"]} if body["next_cursor"] else {}
    assert not cursor
    assert len(set(seen)) == 250


async def test_without_the_broker_health_is_degraded_and_the_chat_works(world: World) -> None:
    await world.post(CHAT, {"message": f"{GOOD_LEAD}, a@example.com", "session_id": "a"})
    health = await world.get("/health/deep")
    assert health["status"] == "degraded"
    assert health["components"]["postgres"] == {"status": "healthy"}
    assert health["outbox"] == 1


async def test_without_the_database_the_answer_is_503_with_retry_after() -> None:
    away = "postgresql+aiopg://followups:x@127.0.0.1:1/ostoja"
    async with (
        postgres.connect(away, application_name="followups") as engine,
        World(engine).serving() as world,
    ):
        async with world.client.post(CHAT, json={"message": "remont", "session_id": "a"}) as answer:
            assert (answer.status, bool(answer.headers["Retry-After"])) == (503, True)
        assert (await world.call("GET", "/health/deep"))[1]["status"] == "unhealthy"
