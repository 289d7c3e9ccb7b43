"""A key of one's own, from the console to the gateway, whatever is away in between."""

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.stack import Stack
from tests.support.system import Answer

ALERT = {"event_type": "slack_alert", "payload": {"text": "by a key of one's own"}}


async def at_console(stack: Stack, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    url = f"http://{HOST}:{stack.values['CONSOLE_PORT']}{path}"
    headers = {"X-Internal-Key": stack.values["CONSOLE_INTERNAL_KEY"], "X-Caller": "admin"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def alert(stack: Stack, key: str) -> Answer:
    return await stack.http("POST", "/api/alerts", ALERT, headers={"X-API-KEY": key})


async def test_a_key_opens_until_its_revocation_also_while_the_console_is_away(
    stack: Stack,
) -> None:
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"name": "shop", "purpose": "orders", "owner": "Ewa", "expires_at": soon}
    made, key = await at_console(stack, "/api/keys", body | {"scopes": ["alerts:write"]})
    assert (made, key["in_force_on"]) == (201, 1)
    assert (await alert(stack, key["key"])).status == 202
    refused = await stack.http("GET", "/api/leads", headers={"X-API-KEY": key["key"]})
    assert refused.status == 403

    await stack.kill9("console")
    try:
        await stack.kill9("gateway")
        await stack.start("gateway")
        assert (await alert(stack, key["key"])).status == 202
    finally:
        await stack.start("console")

    async def revoked() -> bool:
        reason = {"reason": "no longer needed"}
        status, _ = await at_console(stack, f"/api/keys/{key['id']}/revoke", reason)
        return status == 200  # 202 until the gateway that was killed counts as replaced

    await eventually(revoked, 60)
    assert (await alert(stack, key["key"])).status == 401
