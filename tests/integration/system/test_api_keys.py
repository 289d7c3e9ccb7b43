"""A key of one's own on the whole system: made by the console, kept by the gateway, revoked."""

import pytest

from tests.support.eventually import eventually
from tests.support.stack import Stack

pytestmark = pytest.mark.promise("P12")

ALERT = {"event_type": "slack_alert", "payload": {"text": "x"}}
REASON = {"reason": "the laptop was stolen"}


async def opens(stack: Stack, text: str, path: str = "/api/alerts") -> int:
    return (await stack.http("POST", path, ALERT, headers={"X-API-KEY": text})).status


async def test_a_key_opens_when_it_is_made_and_nothing_when_it_is_revoked(stack: Stack) -> None:
    key = await stack.make_key("alerts:write")
    assert key["in_force_on"] == 1
    assert await opens(stack, key["key"]) == 202
    assert await opens(stack, key["key"], "/api/dlq/retry") == 403
    assert await opens(stack, key["key"], "/api/keys") == 403
    rotated = await stack.http("POST", f"/api/keys/{key['id']}/rotate", {}, key="admin")
    assert rotated.status == 200
    both = (key["key"], rotated.body["key"])
    assert [await opens(stack, text) for text in both] == [202, 202]
    revoked = await stack.http("POST", f"/api/keys/{key['id']}/revoke", REASON, key="admin")
    assert (revoked.status, revoked.body["in_force_on"]) == (200, 1)
    assert [await opens(stack, text) for text in both] == [401, 401]


async def test_a_killed_console_takes_no_key_away_from_a_gateway_that_starts(stack: Stack) -> None:
    key = await stack.make_key("alerts:write")
    await stack.kill9("console")
    await stack.stop("gateway")
    await stack.start("gateway")
    assert await opens(stack, key["key"]) == 202
    away = await stack.http("GET", "/api/keys", key="admin")
    assert away.status == 503
    await stack.start("console")

    await eventually(  # 202, until the gateway has found the console
        lambda: stack.http("POST", f"/api/keys/{key['id']}/revoke", REASON, key="admin"),
        60,
        so=lambda answer: answer.status == 200,
    )
    assert await opens(stack, key["key"]) == 401
