"""The route of Slack's buttons: what is passed on to alerts, and what is not."""

from typing import Any

from deploy.sandbox.slack import SIGNING_SECRET
from tests.integration.gateway.conftest import SERVICE, Gateway, Owner, StartGateway
from tests.support.sandbox import Sandbox

PATH = "/api/slack/actions"
BUTTON = {"type": "button", "action_id": "taken", "value": "case 0"} | {
    "text": {"type": "plain_text", "text": "Take it"}
}
FORM = {"payload": "{}"}


async def press(sandbox: Sandbox, gateway: Gateway, **how: Any) -> int:
    await sandbox.reset()
    message = {"channel": "C1", "blocks": [{"type": "actions", "elements": [BUTTON]}]}
    app = f"{sandbox.url}/slack/api/chat.postMessage"
    headers = {"Authorization": "Bearer xoxb-token"}
    async with gateway.session.post(app, json=message, headers=headers) as posted:
        where = await posted.json()
    status, _ = await sandbox.press(f"{gateway.url}{PATH}", where, "taken", **how)
    return status


async def test_a_press_reaches_alerts_as_json_if_slack_has_signed_it_lately(
    start_gateway: StartGateway, sandbox: Sandbox, owner: Owner
) -> None:
    gateway = await start_gateway(SLACK_SIGNING_SECRET=SIGNING_SECRET)
    for how in ({"secret": "another"}, {"age": 400}, {"age": -400}):
        assert await press(sandbox, gateway, **how) == 401
    assert (await gateway.send("POST", PATH, SERVICE, data=FORM)).status == 401
    assert owner.of(PATH) == []
    assert await press(sandbox, gateway, trigger_id="1.2.z") == 200
    (got,) = owner.of(PATH)
    assert '"trigger_id": "1.2.z"' in got["body"]
    assert got["headers"]["Content-Type"] == "application/json"
    assert got["headers"]["X-Caller"] == "public"


async def test_without_the_secret_there_is_no_such_route(
    gateway: Gateway, sandbox: Sandbox, owner: Owner
) -> None:
    assert await press(sandbox, gateway) == 404
    assert owner.of(PATH) == []
