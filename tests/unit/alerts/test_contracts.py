"""The messages of alerts: what it sends is golden, what it reads it reads leniently."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from libs.common.broker import Message
from services.alerts import messages
from services.alerts.alert import Once, Reason

CONTRACTS = Path(__file__).parents[2] / "contracts"
AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
ALERT = UUID("9b2e8a52-0f0d-5c3b-8a44-1f6d3a1f2b7c")
FOLLOWUP = UUID("5c1d9e7a-2b4f-4d8e-8a6c-0e9f3b7d1c55")
ONCE = Once("ala@example.com", "marketing", str(FOLLOWUP))
EXTRA: tuple[dict[str, Any], ...] = ({}, {"version": 2, "more": {"a": []}})


def golden(name: str) -> Any:
    return json.loads((CONTRACTS / f"{name}.json").read_text(encoding="utf-8"))


def test_a_work_message_is_sent_as_agreed() -> None:
    assert messages.work(ALERT, "slack", 0, None).body == golden("alert.work")


def test_how_a_delivery_ended_is_told_as_agreed() -> None:
    told = messages.settled(FOLLOWUP, "email", ONCE, "cancelled", Reason.WITHDRAWN, AT)
    assert told.type == "delivery.settled"
    assert told.body == golden("delivery.settled")


def test_a_permit_is_asked_for_and_returned_with_the_fields_agreed() -> None:
    assert messages.permit_request(FOLLOWUP, 1, ONCE).keys() == golden("permit.request").keys()
    assert messages.permit_return(FOLLOWUP, 1, ONCE).body.keys() == golden("permit.return").keys()


@pytest.mark.parametrize("extra", EXTRA)
@pytest.mark.parametrize(
    "name", ["alert.accepted", "alert.accepted.followup", "alert.accepted.consent"]
)
def test_an_accepted_alert_is_read_with_what_others_may_add(
    name: str, extra: dict[str, Any]
) -> None:
    body = golden(name)
    read = messages.accepted(Message("1", "alert.accepted", body | extra))
    assert str(read.id) == body["id"]
    assert read.payload == body["payload"]
    assert (read.once is None) == (body["once"] is None)


@pytest.mark.parametrize("extra", EXTRA)
def test_alerts_accepted_together_are_read_each_for_itself(extra: dict[str, Any]) -> None:
    body = golden("alerts.accepted")
    apart = messages.each_accepted(Message("1", "alerts.accepted", body | extra, "request"))
    assert [each.body for each in apart] == body["alerts"]
    assert [each.id for each in apart] == [alert["id"] for alert in body["alerts"]]
    assert {(each.type, each.request_id) for each in apart} == {("alert.accepted", "request")}


@pytest.mark.parametrize("extra", EXTRA)
def test_a_qualified_lead_becomes_an_alert_with_its_whole_body(extra: dict[str, Any]) -> None:
    body = golden("lead.qualified") | extra
    read = messages.accepted(Message("1", "lead.qualified", body))
    assert (str(read.id), read.event_type, read.payload) == (body["id"], "lead.qualified", body)


@pytest.mark.parametrize("extra", EXTRA)
def test_an_answered_permit_is_read_with_what_others_may_add(extra: dict[str, Any]) -> None:
    read = messages.PermitAnswer.model_validate(golden("permit.answer") | extra)
    assert (read.answer, read.seconds) == ("granted", 20)


def test_a_denied_permit_needs_no_duration() -> None:
    for body in ({"answer": "denied", "seconds": 0}, {"answer": "denied"}):
        assert messages.PermitAnswer.model_validate(body).answer == "denied"


def test_a_receipt_is_sent_as_agreed() -> None:
    body = golden("erasure.receipt")
    told = messages.erasure_receipt(UUID(body["erasure_id"]), AT)
    assert told.type == "erasure.receipt"
    assert told.body == body | {"service": "alerts"}


def test_what_is_held_is_told_with_the_fields_agreed() -> None:
    answer = messages.export_answer({"deliveries": []}, (ALERT, "slack"))
    assert answer.keys() == golden("export.answer").keys()
    assert answer["next"] == [str(ALERT), "slack"]


@pytest.mark.parametrize("extra", EXTRA)
def test_an_order_to_erase_is_read_with_what_others_may_add(extra: dict[str, Any]) -> None:
    order = messages.PersonErased.model_validate(golden("person.erased") | extra)
    assert order.email == "ala@example.com"


@pytest.mark.parametrize("extra", EXTRA)
def test_a_question_for_what_is_held_is_read_with_what_others_may_add(
    extra: dict[str, Any],
) -> None:
    body = golden("export.request") | extra
    assert messages.ExportRequest.model_validate(body).after is None
    again = messages.ExportRequest.model_validate(body | {"after": [str(ALERT), "slack"]})
    assert again.after == (ALERT, "slack")
