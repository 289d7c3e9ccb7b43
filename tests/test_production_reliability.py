"""The customer's acceptance tests: the whole system as processes, on real servers."""

import asyncio
import re
import uuid
from typing import Any

import aiohttp
import pytest

from libs.common import cache
from libs.common.cache import Cache, LocalCache
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.stack import Stack

LEAD = {
    "message": "Dzień dobry, remont kuchni, 80 m2, budżet 250 tys. zł, od marca. Tel 600 700 800",
    "language": "pl",
}


def fresh_address() -> str:
    return f"anna.{uuid.uuid4().hex[:12]}@example.pl"


async def alert(stack: Stack, text: str, **more: Any) -> str:
    key = more.pop("key", None)
    answer = await stack.http(
        "POST",
        "/api/alerts",
        {"event_type": "slack_alert", "payload": {"text": text}, **more},
        key="service",
        headers={"Idempotency-Key": key} if key else None,
    )
    assert answer.status == 202, answer
    return str(answer.body["id"])


async def slack_texts(stack: Stack) -> list[str]:
    return [str(one["body"]) for one in await stack.sandbox.received("slack")]


async def state(stack: Stack, alert_id: str) -> Any:
    return (await stack.http("GET", f"/api/alerts/{alert_id}", key="service")).body


async def ledger(stack: Stack) -> dict[str, Any]:
    body: dict[str, Any] = (await stack.http("GET", "/api/ledger/check", key="admin")).body
    return body


async def balanced(stack: Stack) -> dict[str, Any] | None:
    """P1's equation, when nothing is on its way any more."""
    check = await ledger(stack)
    assert check["accepted"] == sum(
        check[term] for term in ("delivered", "pending", "failed", "discarded", "in_doubt")
    )
    return check if check["pending"] == 0 and check["ok"] else None


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


class TestPurgeLoop:
    async def test_expired_entries_go_and_the_bound_holds_while_redis_is_away(
        self, monkeypatch: pytest.MonkeyPatch, ports: Ports
    ) -> None:
        local = LocalCache(max_entries=1000)
        monkeypatch.setattr(cache, "LocalCache", lambda _: local)
        nobody = f"redis://{HOST}:{ports.take()}"
        async with Cache.open(nobody, prefix="test:", max_entries=1000) as away:
            for number in range(3000):
                await away.set(f"key-{number}", b"value", ttl=0.05)
            await away.set("kept", b"value", ttl=60)
            assert away.redis_away
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
        ids = [await alert(stack, text) for text in texts]

        async def opened() -> bool:
            health = await stack.http("GET", "/api/health/deep")
            return bool(health.body["circuit_breakers"]["slack"]["state"] != "closed")

        await eventually(opened, 30)
        health = await stack.http("GET", "/api/health/deep")
        assert (health.status, health.body["status"]) == (200, "degraded")
        breakers = await stack.http("GET", "/api/breakers", key="admin")
        assert breakers.body["monday"]["state"] == "closed"

        await stack.sandbox.behave("slack", status=200)

        async def arrived() -> bool:
            got = " ".join(await slack_texts(stack))
            return all(text in got for text in texts)

        await eventually(arrived, 60)

        async def delivered() -> bool:
            states = [await state(stack, one) for one in ids]
            return all("delivered" in str(one) for one in states)

        await eventually(delivered, 30)
        assert await eventually(lambda: balanced(stack), 30)


class TestDeadLetterQueue:
    async def test_a_refused_alert_fails_with_its_reason_and_a_retry_by_hand_delivers_it(
        self, stack: Stack
    ) -> None:
        await stack.sandbox.behave("slack", status=404)  # never: the webhook is gone
        text = f"dead {uuid.uuid4()}"
        alert_id = await alert(stack, text)

        async def failed() -> Any:
            items = (await stack.http("GET", "/api/dlq/failed", key="admin")).body["items"]
            return [one for one in items if alert_id in str(one)]

        (row,) = await eventually(failed, 30)
        assert row["target"] == "slack"
        assert "404" in str(row)
        stats = (await stack.http("GET", "/api/dlq/stats", key="admin")).body
        assert stats["failed"] >= 1
        assert stats["targets"]["slack"]["failed"] >= 1

        await stack.sandbox.behave("slack", status=200)
        retried = await stack.http("POST", "/api/dlq/retry", {"ids": [row["id"]]}, key="admin")
        assert retried.body == {"matched": 1, "requeued": 1, "skipped": 0}

        async def arrived() -> bool:
            return text in " ".join(await slack_texts(stack))

        await eventually(arrived, 30)
        assert await eventually(lambda: balanced(stack), 30)

    async def test_a_failed_alert_can_be_discarded_with_a_reason(self, stack: Stack) -> None:
        await stack.sandbox.behave("slack", status=404)
        alert_id = await alert(stack, "to be discarded")

        async def failed() -> Any:
            items = (await stack.http("GET", "/api/dlq/failed", key="admin")).body["items"]
            return [one for one in items if alert_id in str(one)]

        (row,) = await eventually(failed, 30)
        body = {"ids": [row["id"]], "reason": "test alert"}
        discarded = await stack.http("POST", "/api/dlq/discard", body, key="admin")
        assert discarded.body == {"discarded": 1}
        assert await eventually(lambda: balanced(stack), 30)


class TestIdempotency:
    async def test_the_same_key_is_one_alert_delivered_once(self, stack: Stack) -> None:
        text, key = f"once {uuid.uuid4()}", str(uuid.uuid4())
        ids = {await alert(stack, text, key=key) for _ in range(5)}
        assert len(ids) == 1

        async def settled() -> bool:
            return "delivered" in str(await state(stack, next(iter(ids))))

        await eventually(settled, 30)
        assert await eventually(lambda: balanced(stack), 30)
        assert sum(text in one for one in await slack_texts(stack)) == 1

    async def test_the_same_key_with_another_body_is_refused(self, stack: Stack) -> None:
        key = str(uuid.uuid4())
        await alert(stack, "one", key=key)
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

        async def told() -> bool:
            return address in " ".join(await slack_texts(stack))

        await eventually(told, 30)
        assert await eventually(lambda: balanced(stack), 30)
        assert sum(address in one for one in await slack_texts(stack)) == 1


class TestUnsubscribe:
    async def opted_in(self, stack: Stack, address: str) -> None:
        answer = await stack.http(
            "POST", "/api/opt-in", {"email": address, "text": "Zgadzam się na wiadomości."}
        )
        assert answer.status == 200, answer

    async def follow_up(self, stack: Stack, address: str, delay: int) -> Any:
        answer = await stack.http(
            "POST", "/api/followups", {"email": address, "delay_seconds": delay}, key="service"
        )
        assert answer.status in {200, 202}, answer
        return answer.body

    async def mails_to(self, stack: Stack, address: str) -> list[dict[str, Any]]:
        return [mail for mail in await stack.sandbox.mails() if address in str(mail["To"])]

    async def test_an_opted_in_person_gets_the_mail_and_after_unsubscribing_no_further_one(
        self, stack: Stack
    ) -> None:
        left, stayed = fresh_address(), fresh_address()
        for address in (left, stayed):
            await self.opted_in(stack, address)
            await self.follow_up(stack, address, 0)
        (mail,) = await eventually(lambda: self.mails_to(stack, left), 30)
        (link,) = set(re.findall(r"https?://\S+/unsubscribe\?token=[\w.~-]+", mail["Text"]))

        page = await stack.http("GET", link[link.index("/unsubscribe") :])
        assert page.status == 200
        status = await stack.http("GET", f"/api/unsubscribe/status/{left}", key="service")
        assert status.body["unsubscribed"] is False  # looking at the page changed nothing

        async with (
            aiohttp.ClientSession() as session,
            session.post(
                stack.url + link[link.index("/unsubscribe") :],
                data={"List-Unsubscribe": "One-Click"},
                allow_redirects=False,
            ) as one_click,
        ):
            assert one_click.status == 200
        status = await stack.http("GET", f"/api/unsubscribe/status/{left}", key="service")
        assert status.body["unsubscribed"] is True

        # A new sequence for both: it may be scheduled, and the permit decides.
        other = fresh_address()
        await self.opted_in(stack, other)
        for address in (left, other):
            await self.follow_up(stack, address, 0)
        await eventually(lambda: self.mails_to(stack, other), 30)
        assert await eventually(lambda: balanced(stack), 30)
        assert len(await self.mails_to(stack, left)) == 1

    async def test_unsubscribing_is_answered_alike_for_known_unknown_and_again(
        self, stack: Stack
    ) -> None:
        known, unknown = fresh_address(), fresh_address()
        await self.opted_in(stack, known)
        for address in (known, unknown, known):
            answer = await stack.http("POST", "/api/unsubscribe", {"email": address})
            assert answer.status == 200
            assert answer.body == {"success": True, "email": address, "unsubscribed": True}

    async def test_what_was_done_is_in_the_trail_and_the_trail_holds(self, stack: Stack) -> None:
        address = fresh_address()
        await self.opted_in(stack, address)
        await stack.http("POST", "/api/unsubscribe", {"email": address, "reason": "za dużo"})
        audit = await stack.http("GET", f"/api/consent/audit/{address}", key="admin")
        assert [entry["action"] for entry in audit.body["entries"]] == ["opt-in", "unsubscribe"]
        verified = await stack.http("GET", "/api/consent/audit/verify", key="admin")
        assert verified.body["ok"] is True

    async def test_without_consent_no_follow_up_leaves(self, stack: Stack) -> None:
        silent, granted = fresh_address(), fresh_address()
        await self.opted_in(stack, granted)
        for address in (silent, granted):
            await self.follow_up(stack, address, 0)
        await eventually(lambda: self.mails_to(stack, granted), 30)
        assert await eventually(lambda: balanced(stack), 30)
        assert await self.mails_to(stack, silent) == []
