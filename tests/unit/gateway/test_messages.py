import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from libs.common.http.application import Problem
from services.gateway.health import _overall
from services.gateway.intake.alerts import MOST_UNUSED, Numbers
from services.gateway.intake.idempotency import key_of
from services.gateway.intake.messages import (
    AcceptedAlert,
    AlertRequest,
    accepted,
    alert_id,
    message,
)
from services.gateway.targets import INTERNAL_EVENTS, Targets
from tests.support.contracts import golden

ROOT = Path(__file__).parents[3]


def of_request(body: dict[str, Any]) -> AcceptedAlert:
    fields = ("event_type", "payload", "target", "severity", "dedup_key")
    request = AlertRequest.model_validate({name: body[name] for name in fields})
    at = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
    return accepted(request, body["id"], at, body.get("request_id", "r"), body["caller"])


def test_one_alert_is_sent_as_agreed() -> None:
    body = golden("alert.accepted")
    sent = message([of_request(body)])
    del body["numbered"]
    assert (sent.id, sent.type, sent.body) == (body["id"], "alert.accepted", body)
    assert sent.request_id == "r"


def test_a_number_is_sent_as_agreed() -> None:
    body = golden("alert.accepted")
    agreed = body["numbered"]
    numbers = Numbers()
    numbers.sender, numbers._last, numbers._unused = agreed["sender"], 6, [(3, 4)]
    alert = of_request(body)
    with numbers.given([alert]):
        assert json.loads(json.dumps(alert.body)) == body


def test_several_alerts_are_sent_together_as_agreed() -> None:
    body = golden("alerts.accepted")
    sent = message([of_request(each) for each in body["alerts"]])
    assert (sent.id, sent.type, sent.body) == (body["alerts"][0]["id"], "alerts.accepted", body)
    assert sent.request_id is None  # of two requests


def test_an_id_comes_from_caller_and_key_and_body_and_place() -> None:
    assert alert_id("service", "k", b"{}") == alert_id("service", "k", b"{}")
    ids = {
        alert_id("service", "k", b"{}"),
        alert_id("service", "k", b"[]"),
        alert_id("service", "k2", b"{}"),
        alert_id("other", "k", b"{}"),
        alert_id("service", "k", b"{}", 0),
        alert_id("service", "k", b"{}", 1),
        alert_id("service", None, b"{}"),
        alert_id("service", None, b"{}"),
    }
    assert len(ids) == 8
    assert uuid.UUID(alert_id("service", "k", b"{}")).version == 5


def test_a_random_id_is_in_the_order_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for second in range(1_764_000_000, 1_764_000_010):
        monkeypatch.setattr(time, "time_ns", lambda at=second: at * 10**9)
        ids.append(uuid.UUID(alert_id("service", None, b"{}")))
    assert ids == sorted(ids)
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}


@pytest.mark.parametrize("key", ["", " ", "a\tb", "ł", "x" * 256, " padded"])
def test_an_invalid_idempotency_key_is_422(key: str) -> None:
    with pytest.raises(Problem) as caught:
        key_of(make_mocked_request("POST", "/", headers={"Idempotency-Key": key}))
    assert caught.value.status == 422


def test_the_shipped_file_is_read() -> None:
    targets = Targets.read(ROOT / "config.example" / "alerts.toml")
    assert {"slack", "monday", "email", "sms", "webhook"} <= targets.names
    assert all(map(targets.knows_event, ("slack_alert", "email", "sms", "webhook")))
    assert targets.knows_event("lead.qualified")
    assert not targets.knows_event("no_such")
    assert not any(map(targets.knows_event, INTERNAL_EVENTS))


def test_an_event_type_may_be_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text('[routes]\n"lead.*" = ["slack"]\n[targets.slack]\nchannel = "slack"\n')
    targets = Targets.read(path)
    assert targets.knows_event("lead.lost")
    assert not targets.knows_event("leads")


@pytest.mark.parametrize(
    "text",
    ["", "[routes]\n", "not toml", '[routes]\n"a" = ["nowhere"]\n[targets.slack]\n'],
)
def test_a_file_that_leads_nowhere_stops_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(text)
    with pytest.raises(SystemExit, match=r"alerts\.toml"):
        Targets.read(path)


# The running numbers by which alerts sees what it never got.


def some(count: int) -> list[AcceptedAlert]:
    return [AcceptedAlert(str(number), {}, "r") for number in range(count)]


def taken(numbers: Numbers, count: int = 1) -> list[dict[str, Any]]:
    alerts = some(count)
    with numbers.given(alerts):
        pass
    return told(alerts)


def refused(numbers: Numbers, count: int = 1) -> list[dict[str, Any]]:
    alerts = some(count)
    with pytest.raises(TimeoutError), numbers.given(alerts):
        raise TimeoutError
    return told(alerts)


def told(alerts: Sequence[AcceptedAlert]) -> list[dict[str, Any]]:
    return [alert.body["numbered"] for alert in alerts]


def test_a_later_alert_tells_which_numbers_nobody_was_promised() -> None:
    numbers = Numbers()
    taken(numbers)
    refused(numbers, 3)
    refused(numbers)
    assert [each.get("unused") for each in taken(numbers, 2)] == [[(2, 5)], None]
    assert "unused" not in taken(numbers)[0]


def test_what_a_refused_alert_told_is_told_again() -> None:
    numbers = Numbers()
    refused(numbers)
    taken_meanwhile = some(1)
    with numbers.given(taken_meanwhile):
        refused(numbers, 2)
    assert told(taken_meanwhile)[0]["unused"] == [(1, 1)]
    assert refused(numbers)[0]["unused"] == [(3, 4)]
    assert taken(numbers)[0]["unused"] == [(3, 5)]


async def test_a_caller_that_has_left_was_promised_nothing() -> None:
    numbers = Numbers()

    async def wait() -> None:
        with numbers.given(some(2)):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert taken(numbers)[0]["unused"] == [(1, 2)]


def test_what_is_remembered_is_bounded() -> None:
    numbers = Numbers()
    under_way = [numbers.given(some(1)) for _ in range(6 * MOST_UNUSED)]
    for each in under_way:
        each.__enter__()
    for each in under_way[::2]:
        each.__exit__(None, None, None)
    for each in under_way[1::2]:  # each number by itself
        assert not each.__exit__(TimeoutError, TimeoutError(), None)
    (last,) = taken(numbers)
    assert last["unused"] == [(number, number) for number in range(402, 602, 2)]


UP, DOWN = {"status": "healthy"}, {"status": "unhealthy"}
NO_LEDGER = {"status": "degraded", "components": {"postgres": DOWN, "rabbitmq": UP}}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "healthy"),
        ({"redis": DOWN}, "degraded"),
        ({"rabbitmq": DOWN}, "degraded"),
        ({"alerts": DOWN}, "degraded"),
        ({"alerts": NO_LEDGER}, "degraded"),
        ({"alerts": DOWN, "consent": DOWN, "followups": DOWN}, "degraded"),
        ({"rabbitmq": DOWN, "alerts": DOWN}, "unhealthy"),
        ({"rabbitmq": DOWN, "alerts": NO_LEDGER}, "unhealthy"),
    ],
)
def test_it_is_unhealthy_only_when_no_alert_can_be_taken(
    changes: dict[str, Any], status: str
) -> None:
    names = ("redis", "rabbitmq", "followups", "consent", "alerts")
    assert _overall(dict.fromkeys(names, UP) | changes) == status
