"""Alerts of other programs; `senders/` has what each sends, with the fields that it documents."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.up.environment import ROOT
from libs.common.http.application import Problem
from services.gateway.intake.messages import AlertRequest
from services.gateway.intake.senders import LABELS, LETTERS, SENDERS, alerts

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
