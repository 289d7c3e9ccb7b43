"""The messages of followups: what it sends is golden, what it reads it reads leniently."""

import base64
import json
import uuid
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from libs.common.tokens import Tokens
from services.followups import config, dialogue, facts, imports, lead, messages
from services.followups.mail import Mails, Recipient

ROOT = Path(__file__).parents[3]
CONTRACTS = ROOT / "tests/contracts"
CONFIG = config.load(ROOT / "config/followups.toml")
AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
CONVERSATION = uuid.UUID("3f0e2a94-7a4e-4a3b-9f0a-2d8c1b7e5a10")
FOLLOWUP = uuid.UUID("5c1d9e7a-2b4f-4d8e-8a6c-0e9f3b7d1c55")
SAID = (
    "Dzień dobry, tu Ala Nowak. Chcę wykończyć mieszkanie 80 m2, budżet 250 tys. zł, od marca. "
    "ala@example.com, 600 700 800"
)
KNOWN, _ = facts.read(SAID, today=date(2026, 11, 25), works=CONFIG.works)


def golden(name: str) -> Any:
    return json.loads((CONTRACTS / f"{name}.json").read_text(encoding="utf-8"))


def test_a_qualified_lead_is_told_as_agreed() -> None:
    scored = lead.score(KNOWN.known(), CONFIG.rules)
    told = messages.lead_qualified(
        CONVERSATION, "session-1", KNOWN, "pl", scored.points, scored.reasons,
        dialogue.summary(KNOWN, CONFIG.staff_language), AT,
    )  # fmt: skip
    assert told == golden("lead.qualified")


def test_a_follow_up_is_handed_over_as_agreed() -> None:
    tokens = Tokens(f"k1:{base64.b64encode(bytes(32)).decode()}")
    mails = Mails(CONFIG, tokens, "https://ostoja.example.com")
    to = Recipient(FOLLOWUP, "ala@example.com", "pl", KNOWN)
    mail = mails.render(CONFIG.sequences["default"][0], to, AT)
    told = messages.alert_accepted(FOLLOWUP, "ala@example.com", mail, AT)
    assert told == golden("alert.accepted.followup")


def test_a_consent_given_in_chat_is_told_as_agreed() -> None:
    told = messages.grant_record(
        "ala@example.com", CONFIG.texts["pl"]["consent_wording"], "pl", "session-1",
        "203.0.113.7", "peer", "Mozilla/5.0", AT,
    )  # fmt: skip
    assert told == golden("grant.record.chat")


def test_a_consent_that_came_in_a_file_is_told_as_agreed() -> None:
    row = imports.Lead.model_validate(
        {
            "email": "Ala@example.com",
            "language": "pl",
            "consent_text": "Zgadzam się na otrzymywanie ofert.",
            "consent_at": "2024-05-01",
            "consent_source": "formularz 2024",
            "consent_ip": "203.0.113.7",
        }
    )
    grant = row.grant()
    assert grant is not None
    assert grant[1] == golden("grant.record.import")


@pytest.mark.parametrize("extra", [{}, {"version": 2, "more": {"a": []}}])
@pytest.mark.parametrize("name", ["consent.withdrawn", "consent.granted"])
def test_a_consent_event_is_read_with_what_others_may_add(name: str, extra: dict[str, Any]) -> None:
    event = messages.ConsentEvent.model_validate(golden(name) | extra)
    assert event.email
    assert event.at.tzinfo is not None
    if name == "consent.withdrawn":
        assert messages.MARKETING in event.purposes


@pytest.mark.parametrize("extra", [{}, {"version": 2, "more": {"a": []}}])
def test_an_outcome_is_read_with_what_others_may_add(extra: dict[str, Any]) -> None:
    told = messages.DeliverySettled.model_validate(golden("delivery.settled") | extra)
    assert isinstance(told.reference, uuid.UUID)


def test_a_receipt_is_sent_as_agreed() -> None:
    body = golden("erasure.receipt")
    assert messages.erasure_receipt(uuid.UUID(body["erasure_id"]), AT) == body


def test_what_is_held_is_told_as_agreed() -> None:
    body = golden("export.answer")
    assert messages.export_answer(body["records"], ("messages", 0)) == body


@pytest.mark.parametrize("extra", [{}, {"version": 2, "more": {"a": []}}])
def test_an_order_to_erase_is_read_with_what_others_may_add(extra: dict[str, Any]) -> None:
    order = messages.PersonErased.model_validate(golden("person.erased") | extra)
    assert (order.email, str(order.erasure_id)) == (
        "ala@example.com",
        golden("person.erased")["erasure_id"],
    )


@pytest.mark.parametrize("extra", [{}, {"version": 2, "more": {"a": []}}])
def test_a_question_for_what_is_held_is_read_with_what_others_may_add(
    extra: dict[str, Any],
) -> None:
    body = golden("export.request") | extra
    assert messages.ExportRequest.model_validate(body).after is None
    again = body | {"after": golden("export.answer")["next"]}
    assert messages.ExportRequest.model_validate(again).after == ("messages", 0)
