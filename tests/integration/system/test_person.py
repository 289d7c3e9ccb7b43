"""What a person may ask for, on the whole system: what do you hold on me, and erase it."""

import re
from typing import Any
from urllib.parse import urlsplit

from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import LEAD, fresh_address


async def lead(stack: Stack, address: str) -> None:
    """Somebody whom every service knows."""
    answer = await stack.http(
        "POST", "/api/chatbot/chat", LEAD | {"session_id": address, "email": address}
    )
    assert answer.status == 200, answer
    await stack.opt_in(address)
    await stack.follow_up(address, delay_seconds=3600)

    async def known() -> bool:
        return any(address in text for text in await stack.slack_texts())

    await eventually(known, 30)
    await eventually(stack.balanced, 30)


async def export(stack: Stack, address: str) -> Any:
    answer = await stack.http("GET", f"/api/consent/export/{address}", key="admin")
    assert answer.status == 200, answer
    return answer.body


async def erasure(stack: Stack, address: str) -> Any:
    answer = await stack.http("GET", f"/api/consent/audit/{address}", key="admin")
    return answer.body["erasure"]


async def mailed_link(stack: Stack, address: str) -> str:
    async def link() -> str | None:
        for mail in await stack.sandbox.mails(address):
            if found := re.search(r"http\S+/erasure/confirm\?token=\S+", mail["Text"]):
                return found[0]
        return None

    found = await eventually(link, 30)
    assert found is not None
    return found


async def done(stack: Stack, address: str) -> Any:
    async def look() -> Any:
        found = await erasure(stack, address)
        return found if found["status"] == "done" else None

    return await eventually(look, 40)


async def test_a_person_is_told_all_that_is_held_and_is_forgotten_everywhere(
    stack: Stack,
) -> None:
    address = fresh_address()
    await lead(stack, address)
    held = await export(stack, address)
    assert held["incomplete"] == []
    assert held["services"]["consent"]["consents"] == {"marketing": "granted"}
    assert held["services"]["followups"]["messages"][0]["body"] == LEAD["message"]
    assert held["services"]["followups"]["followups"][0]["email"] == address
    targets = {each["target"] for each in held["services"]["alerts"]["deliveries"]}
    assert targets == {"slack", "monday"}

    answer = await stack.http("POST", "/api/revoke-consent", {"email": address})
    assert (answer.status, answer.body["erasure"]) == (200, {"status": "awaiting_confirmation"})
    link = urlsplit(await mailed_link(stack, address))
    path = f"{link.path}?{link.query}"
    assert (await stack.http("GET", path)).status == 200
    assert (await erasure(stack, address))["status"] == "awaiting_confirmation"
    assert (await stack.http("POST", path)).status == 200
    assert (await done(stack, address))["waiting_for"] == []
    assert (await stack.http("POST", path)).status == 410

    held = await export(stack, address)
    assert held["incomplete"] == []
    assert not any(held["services"]["followups"].values())
    assert not any(held["services"]["alerts"].values())
    assert held["services"]["consent"]["entries"] == []
    assert (await stack.ledger())["ok"]
    trail = await stack.http("GET", "/api/consent/audit/verify", key="admin")
    assert trail.body["ok"]


async def test_a_service_that_is_away_is_named_in_an_export_and_erases_when_it_is_back(
    stack: Stack,
) -> None:
    address = fresh_address()
    await lead(stack, address)
    await stack.kill9("alerts")
    try:
        assert (await export(stack, address))["incomplete"] == ["alerts"]
        answer = await stack.http("POST", "/api/consent/erase", {"email": address}, key="admin")
        assert (answer.status, answer.body["erasure"]) == (200, {"status": "in_progress"})

        async def only_alerts_left() -> bool:
            return bool((await erasure(stack, address))["waiting_for"] == ["alerts"])

        await eventually(only_alerts_left, 20)
    finally:
        await stack.start("alerts")
    await done(stack, address)
    assert not any((await export(stack, address))["services"]["alerts"].values())
