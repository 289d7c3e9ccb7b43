"""The messages of alerts: sent ones match golden files, received ones may have unknown fields."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from libs.common.messaging.broker import HIGH, Message
from services.alerts import messages
from services.alerts.rules.delivery import Once, Reason
from tests.support.contracts import EXTRA, golden

AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
ALERT = UUID("9b2e8a52-0f0d-5c3b-8a44-1f6d3a1f2b7c")
FOLLOWUP = UUID("5c1d9e7a-2b4f-4d8e-8a6c-0e9f3b7d1c55")
ONCE = Once("ala@example.com", "marketing", str(FOLLOWUP))


def test_a_work_message_matches_its_contract() -> None:
    assert messages.work(ALERT, "slack", 0, None, AT).body == golden("alert.work")


def test_work_for_several_rows_matches_its_contract_and_is_read_as_single_messages() -> None:
    single = [
        messages.work(ALERT, "slack", 0, "request-1", AT),
        messages.work(FOLLOWUP, "slack", 0, None, AT),
    ]
    sent = messages.works(single)
    assert (sent.type, sent.body) == ("alert.works", golden("alert.works"))
    read = messages.each_work(sent)
    assert [(each.type, each.request_id) for each in read] == [
        ("alert.work", "request-1"),
        ("alert.work", None),
    ]
    assert all(
        one.body.items() <= each.body.items() for one, each in zip(single, read, strict=True)
    )
    critical = messages.works([replace(each, priority=HIGH) for each in single])
    assert {each.priority for each in (critical, *messages.each_work(critical))} == {HIGH}


def test_a_settled_event_matches_its_contract() -> None:
    sent = messages.settled(FOLLOWUP, "email", ONCE, "cancelled", Reason.WITHDRAWN, AT)
    assert sent.type == "delivery.settled"
    assert sent.body == golden("delivery.settled")
    until = datetime(2026, 12, 25, 10, 15, 30, 123456, tzinfo=UTC)
    back = messages.settled(FOLLOWUP, "email", ONCE, "too_late", Reason.DEFERRED, AT, until)
    assert back.body == golden("delivery.settled.deferred")


def test_a_case_that_changes_its_owner_matches_its_contract() -> None:
    for name in (messages.CASE_ANSWERED, messages.CASE_RELEASED):
        sent = messages.owned(name, ALERT, ALERT, "request-1", AT, "Ewa Lis")
        assert (sent.type, sent.request_id) == (name, "request-1")
        assert sent.body == golden(name)


def test_permit_messages_match_their_contracts() -> None:
    assert messages.permit_request(FOLLOWUP, 1, ONCE).keys() == golden("permit.request").keys()
    assert messages.permit_return(FOLLOWUP, 1, ONCE).body.keys() == golden("permit.return").keys()


@EXTRA
@pytest.mark.parametrize(
    "name",
    [
        "alert.accepted",
        *(f"alert.accepted.{of}" for of in ("consent", "followup", "opt-in", "staff")),
    ],
)
def test_an_accepted_alert_is_read_with_unknown_fields(name: str, extra: dict[str, Any]) -> None:
    body = golden(name)
    read = messages.accepted(Message("1", "alert.accepted", body | extra))
    assert str(read.id) == body["id"]
    assert read.payload == body["payload"]
    assert (read.once is None) == (body["once"] is None)
    assert read.caller == body.get("caller")  # that of a service, or of an older gateway, has none


@EXTRA
def test_an_alert_of_a_gateway_has_its_running_number(extra: dict[str, Any]) -> None:
    body = golden("alert.accepted")
    body["numbered"] |= extra
    read = messages.accepted(Message("1", "alert.accepted", body)).numbered
    assert read is not None
    assert (read.sender, read.number, read.unused) == ("gateway-1 0123456789abcdef", 7, ((3, 4),))
    del body["numbered"]  # of an older release
    assert messages.accepted(Message("1", "alert.accepted", body)).numbered is None


@EXTRA
def test_a_batch_is_split_into_its_alerts(extra: dict[str, Any]) -> None:
    body = golden("alerts.accepted")
    apart = messages.each_accepted(Message("1", "alerts.accepted", body | extra, "request"))
    assert [each.body for each in apart] == body["alerts"]
    assert [each.id for each in apart] == [alert["id"] for alert in body["alerts"]]
    assert {each.type for each in apart} == {"alert.accepted"}
    assert [each.request_id for each in apart] == [alert["request_id"] for alert in body["alerts"]]
    body = {"alerts": [golden("alert.accepted")]}  # without a request of its own
    (alone,) = messages.each_accepted(Message("1", "alerts.accepted", body, "request"))
    assert alone.request_id == "request"


@EXTRA
def test_a_qualified_lead_becomes_an_alert_with_its_whole_body(extra: dict[str, Any]) -> None:
    body = golden("lead.qualified") | extra
    read = messages.accepted(Message("1", "lead.qualified", body))
    assert (str(read.id), read.event_type, read.payload) == (body["id"], "lead.qualified", body)


@EXTRA
def test_a_permit_reply_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    read = messages.PermitAnswer.model_validate(golden("permit.answer") | extra)
    assert (read.answer, read.seconds) == ("granted", 20)
    read = messages.PermitAnswer.model_validate(golden("permit.answer.deferred") | extra)
    assert (read.answer, read.reason, read.seconds) == ("closed", Reason.DEFERRED, 86_400)
    assert messages.PermitAnswer.model_validate({"answer": "denied"} | extra).answer == "denied"


def test_a_receipt_matches_its_contract() -> None:
    body = golden("erasure.receipt")
    sent = messages.erasure_receipt(UUID(body["erasure_id"]), AT)
    assert sent.type == "erasure.receipt"
    assert sent.body == body | {"service": "alerts"}


def test_an_export_reply_matches_its_contract() -> None:
    answer = messages.export_reply({"deliveries": []}, (ALERT, "slack"))
    assert answer.keys() == golden("export.answer").keys() - {"trace"}
    assert answer["next"] == [str(ALERT), "slack"]


@EXTRA
def test_an_erasure_order_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    order = messages.SubjectErased.model_validate(golden("person.erased") | extra)
    assert order.email == "ala@example.com"
    assert [str(each) for each in order.conversations] == golden("erasure.trace")["conversations"]
    assert list(order.phones) == golden("erasure.trace")["phones"]


@EXTRA
def test_an_export_request_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    body = golden("export.request") | extra
    assert messages.ExportRequest.model_validate(body).after is None
    again = messages.ExportRequest.model_validate(body | {"after": [str(ALERT), "slack"]})
    assert again.after == (ALERT, "slack")
