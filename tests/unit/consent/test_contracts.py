"""The messages of consent: what it sends is golden, what it reads it reads leniently."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.consent import messages
from services.consent.consent import PURPOSES, Action, Verdict

CONTRACTS = Path(__file__).parents[2] / "contracts"
AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
EXTRA: tuple[dict[str, Any], ...] = ({}, {"version": 2, "more": {"a": []}})


def golden(name: str) -> Any:
    return json.loads((CONTRACTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        (messages.GRANTED, Action.OPT_IN),
        (messages.WITHDRAWN, Action.UNSUBSCRIBE),
    ],
)
def test_a_change_of_consent_is_told_as_agreed(kind: str, action: Action) -> None:
    assert messages.event("ala@example.com", PURPOSES, action, AT) == golden(kind)


def test_an_erasure_is_ordered_as_agreed() -> None:
    erasure_id = UUID(golden("person.erased")["erasure_id"])
    order = messages.erased("ala@example.com", PURPOSES, AT, erasure_id)
    assert order == golden("person.erased")


def test_a_mail_is_handed_to_alerts_as_agreed() -> None:
    body = golden("alert.accepted.consent")
    assert messages.mail(UUID(body["id"]), body["payload"], AT) == body


def test_what_others_hold_is_asked_for_as_agreed() -> None:
    assert messages.export_request("ala@example.com", None) == golden("export.request")


@pytest.mark.parametrize("extra", EXTRA)
def test_what_others_hold_is_read_with_what_they_may_add(extra: dict[str, Any]) -> None:
    answer = messages.ExportAnswer.model_validate(golden("export.answer") | extra)
    assert answer.next == ["messages", 0]
    assert list(answer.records) == ["conversations", "messages"]


@pytest.mark.parametrize("extra", EXTRA)
def test_a_receipt_is_read_with_what_others_may_add(extra: dict[str, Any]) -> None:
    read = messages.ErasureReceipt.model_validate(golden("erasure.receipt") | extra)
    assert read.service == "followups"


def test_a_permit_is_answered_as_agreed() -> None:
    assert messages.permit_answer(Verdict.GRANTED, 20) == golden("permit.answer")


@pytest.mark.parametrize("extra", EXTRA)
def test_a_consent_given_in_chat_is_read_with_what_others_may_add(extra: dict[str, Any]) -> None:
    given = messages.GrantRecord.model_validate(golden("grant.record.chat") | extra)
    assert given.source == "chat"
    assert given.wording
    assert given.at.tzinfo is not None


@pytest.mark.parametrize("extra", EXTRA)
def test_a_request_for_a_permit_is_read_with_what_others_may_add(extra: dict[str, Any]) -> None:
    asked = messages.PermitRequest.model_validate(golden("permit.request") | extra)
    assert asked.purpose in PURPOSES


@pytest.mark.parametrize("extra", EXTRA)
def test_a_returned_permit_is_read_with_what_others_may_add(extra: dict[str, Any]) -> None:
    assert messages.PermitReturn.model_validate(golden("permit.return") | extra).attempt >= 0
