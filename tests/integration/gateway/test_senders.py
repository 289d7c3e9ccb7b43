"""Webhooks of other programs: the key as each of them can carry it, and all of a group or none."""

import base64
import json
from pathlib import Path
from typing import Any

from tests.integration.gateway.conftest import SERVICE, Gateway, Owner

KEY = SERVICE["X-API-KEY"]
BASIC = base64.b64encode(f"alertmanager:{KEY}".encode()).decode()
FOLDER = Path(__file__).parents[2] / "unit/gateway/senders"
GROUP = json.loads((FOLDER / "alertmanager.json").read_text())
PATH = "/api/alerts/from/alertmanager"


def taken(owner: Owner) -> list[dict[str, Any]]:
    return [
        one for each in owner.of("/internal/alerts") for one in json.loads(each["body"])["alerts"]
    ]


async def test_a_group_is_accepted_with_the_key_as_its_sender_carries_it(
    gateway: Gateway, owner: Owner
) -> None:
    owner.say(status=202)
    carried: list[tuple[str, dict[str, str]]] = [
        (PATH, SERVICE),
        (PATH, {"Authorization": f"Bearer {KEY}"}),
        (PATH, {"Authorization": f"Basic {BASIC}"}),
        (f"{PATH}?key={KEY}", {}),
    ]
    for path, headers in carried:
        answer = await gateway.call("POST", path, GROUP, **headers)
        assert (answer.status, answer.body["accepted"]) == (202, 3)
        first, second, _ = taken(owner)[-3:]
        assert (first["dedup_key"], first["caller"]) == ("alert 1a30ba71cca2921f", "service")
        assert second["resolved"]


async def test_without_a_key_nothing_is_accepted_and_so_carried_it_opens_no_other_call(
    gateway: Gateway, owner: Owner
) -> None:
    for given in ("", "Bearer wrong", "Basic ***", f"Digest {KEY}"):
        headers = {"Authorization": given} if given else {}
        assert (await gateway.call("POST", PATH, GROUP, **headers)).status == 401
    alert = {"event_type": "slack_alert", "payload": {}}
    bearer = {"Authorization": f"Bearer {KEY}"}
    assert (await gateway.call("POST", "/api/alerts", alert, **bearer)).status == 401
    assert (await gateway.call("POST", f"/api/alerts?key={KEY}", alert)).status == 401
    assert taken(owner) == []


async def test_what_is_not_passed_on_is_not_answered_202(gateway: Gateway, owner: Owner) -> None:
    owner.say(status=500)
    assert (await gateway.call("POST", PATH, GROUP, **SERVICE)).status == 503
    assert (await gateway.call("POST", "/api/alerts/from/nagios", GROUP, **SERVICE)).status == 404
    ignored = {"heartbeat": {"status": 3}, "monitor": {"id": 1}, "msg": "maintenance"}
    answer = await gateway.call("POST", "/api/alerts/from/uptime-kuma", ignored, **SERVICE)
    assert (answer.status, answer.body) == (202, {"accepted": 0, "items": []})
