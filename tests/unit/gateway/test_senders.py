"""Alerts of other programs; `senders/` has what each sends, with the fields that it documents."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from deploy.up.environment import ROOT
from libs.common.http.application import Problem
from services.gateway.intake.messages import AlertRequest
from services.gateway.intake.senders import LABELS, LETTERS, SENDERS, alerts
from services.gateway.slack import payload_of

FOLDER = Path(__file__).parent / "senders"


def sent(sender: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"{sender}.json").read_text())
    return document


def read(sender: str, document: Any) -> list[AlertRequest]:
    return alerts(sender, json.dumps(document).encode())


def faults(sender: str, document: Any) -> list[str]:
    with pytest.raises(Problem) as caught:
        read(sender, document)
    return [place for place, _ in caught.value.errors]


def test_each_alert_of_alertmanager_is_one_and_what_it_left_out_is_told() -> None:
    down, back, more = read("alertmanager", sent("alertmanager"))
    assert (down.event_type, down.severity, down.resolved) == (
        "from.alertmanager", "critical", False,
    )  # fmt: skip
    assert down.dedup_key == "alert 1a30ba71cca2921f"
    assert down.payload["text"] == "Probe failure: https://shop.example.com"
    assert down.payload["labels"]["job"] == "http_checks"
    assert (back.dedup_key, back.resolved) == ("alert 55d4e0b8f7a1c302", True)
    assert more.payload["text"].startswith("2 more alerts")


def test_an_alert_of_grafana_has_its_own_link() -> None:
    document = sent("grafana")
    (fires,) = read("grafana", document)
    assert (fires.dedup_key, fires.severity) == ("alert c6eadffa33fcdf37", "warning")
    assert fires.payload["link"] == "https://grafana.example.com/alerting/1afz29v7z/edit"
    document["alerts"][0]["status"] = "resolved"
    (over,) = read("grafana", document)
    assert (over.dedup_key, over.resolved) == (fires.dedup_key, True)


def test_an_issue_of_sentry_settles_what_its_alert_began_and_names_no_visitor() -> None:
    (fires,) = read("sentry", sent("sentry"))
    assert (fires.dedup_key, fires.severity) == ("issue 1170820242", "critical")
    assert fires.payload.keys() == {"text", "description", "link"}
    assert "ala@example.com" not in str(fires.payload)
    issue = {"id": "1170820242", "title": "ReferenceError", "level": "error", "permalink": None}
    document = {"action": "resolved", "data": {"issue": issue}}
    (over,) = read("sentry", document)
    assert (over.dedup_key, over.resolved) == (fires.dedup_key, True)
    assert read("sentry", document | {"action": "assigned"}) == []


def test_a_metric_of_sentry_is_no_issue() -> None:
    metric = {"metric_alert": {"id": "4"}, "description_title": "Critical: Too many errors"}
    (fires,) = read("sentry", {"action": "critical", "data": metric})
    assert (fires.dedup_key, fires.severity) == ("metric 4", "critical")


def test_a_monitor_of_uptime_kuma_goes_down_and_comes_back() -> None:
    document = sent("uptime-kuma")
    (down,) = read("uptime-kuma", document)
    assert (down.dedup_key, down.severity, down.resolved) == ("monitor 7", "critical", False)
    document["heartbeat"]["status"] = 1
    (up,) = read("uptime-kuma", document)
    assert (up.dedup_key, up.resolved) == ("monitor 7", True)
    document["heartbeat"]["status"] = 3  # maintenance
    assert read("uptime-kuma", document) == []
    (test,) = read("uptime-kuma", {"heartbeat": None, "monitor": None, "msg": "Testing"})
    assert (test.dedup_key, test.severity) == (None, "warning")


@pytest.mark.parametrize("sender", SENDERS)
def test_what_is_not_theirs_is_refused_with_its_place(sender: str) -> None:
    items = SENDERS[sender].get("items")
    text = SENDERS[sender]["text"][0]
    where = f"{items}.0" if items else "body"
    wrong: dict[str, Any] = {items: [{}]} if items else {}
    assert faults(sender, wrong) == [f"{where}.{text}"]
    assert faults(sender, [1]) == [items or "body"]
    with pytest.raises(Problem) as caught:
        alerts(sender, b"[" * 100_000)
    assert caught.value.status == 400


def test_a_group_is_bounded_and_all_or_nothing() -> None:
    one = sent("grafana")["alerts"][0]
    assert len(read("grafana", {"alerts": [one] * 1000})) == 1000
    assert faults("grafana", {"alerts": [one] * 1001}) == ["alerts"]
    over = {**one, "status": "resolved", "fingerprint": None}
    assert faults("grafana", {"alerts": [one, over, 7]}) == ["alerts.1.fingerprint", "alerts.2"]


def test_what_no_database_takes_is_made_harmless() -> None:
    one = sent("grafana")["alerts"][0]
    labels: dict[str, Any] = {f"l{number}": "x" for number in range(200)} | {"deep": {"a": {}}}
    one |= {"annotations": {"summary": "a\0\ud800" + "x" * 5000}, "labels": labels}
    (read_one,) = read("grafana", {"alerts": [one]})
    text = read_one.payload["text"]
    assert (text[:2], len(text)) == ("a?", LETTERS - 1)
    assert len(read_one.payload["labels"]) == LABELS


def test_each_sender_is_described_and_has_its_route() -> None:
    told = (ROOT / "services/gateway/openapi/alerts.yaml").read_text()
    assert f"{{enum: [{', '.join(SENDERS)}]}}" in told
    routes = (ROOT / "services/gateway/routes.toml").read_text()
    assert f"{{sender:{'|'.join(SENDERS)}}}" in routes


# Slack's signature: only what Slack has signed, and lately, is passed on.

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
NOW = 1531420618
BODY = b"payload=%7B%22type%22%3A%22block_actions%22%7D"


def signed(body: bytes = BODY, at: str = str(NOW), secret: str = SECRET) -> dict[str, str]:
    message = b"v0:" + at.encode() + b":" + body
    digest = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={digest}"}


def payload(headers: dict[str, str], body: bytes = BODY, now: float = NOW) -> bytes:
    return payload_of(SECRET, CIMultiDictProxy(CIMultiDict(headers)), body, now)


def status(*given: Any, **more: Any) -> int:
    with pytest.raises(Problem) as caught:
        payload(*given, **more)
    return caught.value.status


def test_the_example_of_slack_s_documentation_is_signed() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&"
        b"channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&"
        b"command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
        b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015."
        b"47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    given = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    assert status(given, body) == 400  # signed, but no interaction
    assert status(given, body + b"0") == 401


@pytest.mark.parametrize("age", [-300, 0, 300])
def test_a_signed_form_gives_its_payload(age: int) -> None:
    assert payload(signed(), now=NOW + age) == b'{"type":"block_actions"}'


def test_while_the_secret_changes_both_sign() -> None:
    headers = CIMultiDictProxy(CIMultiDict(signed()))
    for secret in (f"new {SECRET}", f"{SECRET} old"):
        assert payload_of(secret, headers, BODY, NOW) == b'{"type":"block_actions"}'
    with pytest.raises(Problem):
        payload_of("new old", headers, BODY, NOW)


@pytest.mark.parametrize("age", [-301, 301, 10**9])
def test_an_old_or_future_request_is_refused(age: int) -> None:
    assert status(signed(), now=NOW + age) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Slack-Signature": signed()["X-Slack-Signature"]},
        {"X-Slack-Request-Timestamp": str(NOW)},
        signed(secret="another"),
        signed(b"payload=%7B%7D"),
        signed() | {"X-Slack-Request-Timestamp": str(NOW + 1)},
        signed() | {"X-Slack-Signature": signed()["X-Slack-Signature"].removeprefix("v0=")},
        signed() | {"X-Slack-Signature": "v0=\udcff"},
        signed(at=f"{NOW}.0"),
        signed(at=f" {NOW}"),
        signed(at="١٥٣١٤٢٠٦١٨"),
        signed(at="9" * 5000),
    ],
)
def test_what_is_not_signed_is_refused(headers: dict[str, str]) -> None:
    assert status(headers) == 401


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"payload=", b"\xff", b"payload=1&payload=2", b"&".join([b"a=1"] * 20)]
)
def test_a_signed_body_without_a_payload_is_refused(body: bytes) -> None:
    assert status(signed(body), body) == 400
