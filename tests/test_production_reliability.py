"""The customer's acceptance tests: the whole system as processes, on real servers."""

import asyncio
import uuid
from typing import Any

import pytest

from libs.common import cache
from libs.common.cache import Cache, LocalCache
from libs.common.database.redis_pipeline import RedisPipeline
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.stack import Stack
from tests.support.system import LEAD, fresh_address


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


async def failed(stack: Stack, alert_id: str) -> Any:
    """Wait until it has failed; return its row in the list of those."""
    await stack.until(alert_id, "failed")
    items = (await stack.http("GET", "/api/dlq/failed", key="admin")).body["items"]
    (row,) = [one for one in items if alert_id in str(one)]
    return row


class TestPurgeLoop:
    async def test_expired_entries_go_and_the_bound_holds_while_redis_is_away(
        self, monkeypatch: pytest.MonkeyPatch, ports: Ports
    ) -> None:
        local = LocalCache(max_entries=1000)
        monkeypatch.setattr(cache, "LocalCache", lambda _: local)
        away = Cache(RedisPipeline(f"redis://{HOST}:{ports.take()}"), "test:", max_entries=1000)
        for number in range(3000):
            await away.set(f"key-{number}", b"value", ttl=0.05)
        await away.set("kept", b"value", ttl=60)
        assert len(local) == 1000
        purging = asyncio.create_task(away.purge_forever(0.02))
        async with asyncio.timeout(10):
            while len(local) > 1:  # noqa: ASYNC110 - the loop under test sets no event
                await asyncio.sleep(0.01)
        purging.cancel()
        assert await away.get("kept") == b"value"

    async def test_an_admin_purges_on_demand(self, stack: Stack) -> None:
        answer = await stack.http("POST", "/api/cache/cleanup", key="admin")
        assert answer.status == 200
        assert answer.body["purged"] >= 0


class TestCircuitBreakers:
    async def test_a_sick_slack_opens_its_breaker_and_after_healing_every_alert_arrives(
        self, stack: Stack
    ) -> None:
        await stack.sandbox.behave("slack", status=500)
        texts = [f"breaker {uuid.uuid4()}" for _ in range(12)]
        ids = [await stack.alert(text) for text in texts]

        health = await eventually(
            lambda: stack.http("GET", "/api/health/deep", key="admin"),
            so=lambda found: found.body["circuit_breakers"]["slack"]["state"] != "closed",
        )
        assert (health.status, health.body["status"]) == (200, "degraded")
        breakers = await stack.http("GET", "/api/breakers", key="admin")
        assert breakers.body["monday"]["state"] == "closed"

        await stack.sandbox.behave("slack", status=200)

        await stack.in_slack(*texts)
        for each in ids:
            await stack.until(each, "delivered")
        assert await eventually(stack.balanced, 30)


class TestDeadLetterQueue:
    async def test_a_refused_alert_fails_with_its_reason_and_a_retry_by_hand_delivers_it(
        self, stack: Stack
    ) -> None:
        await stack.sandbox.behave("slack", status=422)  # never: it is malformed
        text = f"dead {uuid.uuid4()}"
        alert_id = await stack.alert(text)

        row = await failed(stack, alert_id)
        assert row["target"] == "slack"
        assert "422" in str(row)
        stats = (await stack.http("GET", "/api/dlq/stats", key="admin")).body
        assert stats["failed"] >= 1
        assert stats["targets"]["slack"]["failed"] >= 1

        await stack.sandbox.behave("slack", status=200)
        retried = await stack.http("POST", "/api/dlq/retry", {"ids": [row["id"]]}, key="admin")
        assert retried.body == {"matched": 1, "requeued": 1, "skipped": 0}

        await stack.in_slack(text)
        assert await eventually(stack.balanced, 30)

    async def test_a_failed_alert_can_be_discarded_with_a_reason(self, stack: Stack) -> None:
        await stack.sandbox.behave("slack", status=422)
        alert_id = await stack.alert("to be discarded")
        row = await failed(stack, alert_id)
        body = {"ids": [row["id"]], "reason": "test alert"}
        discarded = await stack.http("POST", "/api/dlq/discard", body, key="admin")
        assert discarded.body == {"discarded": 1}
        assert await eventually(stack.balanced, 30)


class TestIdempotency:
    async def test_the_same_key_is_one_alert_delivered_once(self, stack: Stack) -> None:
        text, key = f"once {uuid.uuid4()}", str(uuid.uuid4())
        ids = {await stack.alert(text, key=key) for _ in range(5)}
        assert len(ids) == 1

        await stack.until(next(iter(ids)), "delivered")
        assert await eventually(stack.balanced, 30)
        assert sum(text in one for one in await stack.slack_texts()) == 1

    async def test_the_same_key_with_another_body_is_refused(self, stack: Stack) -> None:
        key = str(uuid.uuid4())
        await stack.alert("one", key=key)
        other = await stack.http(
            "POST",
            "/api/alerts",
            {"event_type": "slack_alert", "payload": {"text": "another"}},
            key="service",
            headers={"Idempotency-Key": key},
        )
        assert other.status == 422

    async def test_a_double_tap_in_the_chat_gives_one_conversation_and_one_lead(
        self, stack: Stack
    ) -> None:
        address, session = fresh_address(), str(uuid.uuid4())
        body = {**LEAD, "session_id": session, "email": address}
        answers = await asyncio.gather(
            *(stack.http("POST", "/api/chatbot/chat", body) for _ in range(4))
        )
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body["conversation_id"] for answer in answers}) == 1

        await stack.in_slack(address)
        assert await eventually(stack.balanced, 30)
        assert sum(address in one for one in await stack.slack_texts()) == 1


class TestUnsubscribe:
    async def test_an_opted_in_person_gets_the_mail_and_after_unsubscribing_no_further_one(
        self, stack: Stack
    ) -> None:
        left, stayed = fresh_address(), fresh_address()
        for address in (left, stayed):
            await stack.opt_in(address)
            await stack.follow_up(address)
        link = await stack.link(left, "/unsubscribe")
        assert (await stack.http("GET", link)).status == 200
        assert not (await stack.consents(left))[
            "unsubscribed"
        ]  # a look at the page changes nothing
        one_click = await stack.http("POST", link, form={"List-Unsubscribe": "One-Click"})
        assert one_click.status == 200
        assert (await stack.consents(left))["unsubscribed"] is True

        # A new sequence for both: it may be scheduled, and the permit decides.
        other = fresh_address()
        await stack.opt_in(other)
        for address in (left, other):
            await stack.follow_up(address)
        await eventually(lambda: stack.sandbox.mails(other), 30)
        assert await eventually(stack.balanced, 30)
        assert len(await stack.sandbox.mails(left)) == 1

    async def test_unsubscribing_is_answered_alike_for_known_unknown_and_again(
        self, stack: Stack
    ) -> None:
        known, unknown = fresh_address(), fresh_address()
        await stack.opt_in(known)
        for address in (known, unknown, known):
            answer = await stack.http("POST", "/api/unsubscribe", {"email": address})
            assert answer.status == 200
            assert answer.body == {"success": True, "email": address, "unsubscribed": True}

    async def test_what_was_done_is_in_the_trail_and_the_trail_holds(self, stack: Stack) -> None:
        address = fresh_address()
        await stack.opt_in(address)
        await stack.http("POST", "/api/unsubscribe", {"email": address, "reason": "za dużo"})
        entries = (await stack.audit(address))["entries"]
        assert [entry["action"] for entry in entries] == ["opt-in", "unsubscribe"]
        verified = await stack.http("GET", "/api/consent/audit/verify", key="admin")
        assert verified.body["ok"] is True

    async def test_without_consent_no_follow_up_leaves(self, stack: Stack) -> None:
        silent, granted = fresh_address(), fresh_address()
        await stack.opt_in(granted)
        for address in (silent, granted):
            await stack.follow_up(address)
        await eventually(lambda: stack.sandbox.mails(granted), 30)

        await eventually(
            lambda: stack.http("GET", "/api/dlq/pending", key="admin"),
            so=lambda found: any(row["reason"] == "no_consent" for row in found.body["items"]),
        )
        await stack.http("POST", "/api/unsubscribe", {"email": silent})
        assert await eventually(stack.balanced, 60)
        assert await stack.sandbox.mails(silent) == []
