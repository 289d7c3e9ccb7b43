"""The messages of followups: it produces the golden ones and reads with unknown fields."""

import base64
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.domain.signed_links import Tokens
from services.followups import messages
from services.followups.leads import files as lead_files
from services.followups.leads import submissions
from services.followups.mails.compose import Mails, Recipient
from services.followups.reading import understand
from services.followups.rules import fact_texts
from services.followups.rules import score as lead_score
from tests.support.contracts import EXTRA, golden
from tests.support.shipped import FOLLOWUPS as CONFIG

ROOT = Path(__file__).parents[3]
AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
CONVERSATION = uuid.UUID("3f0e2a94-7a4e-4a3b-9f0a-2d8c1b7e5a10")
LEAD = messages.lead_id(CONVERSATION)
FOLLOWUP = uuid.UUID("5c1d9e7a-2b4f-4d8e-8a6c-0e9f3b7d1c55")
SAID = (
    "Dzień dobry, tu Ala Nowak. Chcę wykończyć mieszkanie 80 m2, budżet 250 tys. zł, od marca. "
    "ala@example.com, 600 700 800"
)
KNOWN = understand(SAID, today=date(2026, 11, 25), works=CONFIG.works).facts


def event(known: dict[str, Any], **more: Any) -> dict[str, Any]:
    scored = lead_score.score(known, CONFIG.rules)
    told: dict[str, Any] = {
        "event_id": LEAD,
        "lead_id": LEAD,
        "conversation_id": CONVERSATION,
        "session_id": "session-1",
        "known": known,
        "changes": (),
        "said": [SAID],
        "language": "pl",
        "staff_language": "pl",
        "score": scored.points,
        "is_hot": scored.points >= CONFIG.lead.threshold,
        "reasons": scored.reasons,
        "summary": fact_texts.summary(known, "pl"),
        "work": None,
        "topic": None,
        "is_update": False,
        "transcript_url": "https://ostoja.example.com/console/leads/3fadbd2d-6867-5662-bd30-9455bc6cc614",
        "at": AT,
    }
    return messages.request(**told | more)


def test_lead_qualified_matches_its_contract() -> None:
    assert event(KNOWN.known()) == golden("lead.qualified")


def test_lead_updated_matches_its_contract() -> None:
    known = KNOWN.known() | {"phone": "+48600700801", "no_calls": True, "may_mail": "given"}
    told = event(
        known,
        event_id=messages.update_id(LEAD, 1),
        changes=("phone", "no_calls", "may_mail"),
        said=["proszę nie dzwonić"],
        is_update=True,
    )
    assert told == golden("lead.updated")


def test_a_visitor_alert_matches_its_contract() -> None:
    topic = messages.lead_id(CONVERSATION, "complaint")
    said = "Pęka fuga w łazience, którą robiliście w marcu."
    told = event(
        {"phone": "+48600700800"}, event_id=topic, lead_id=topic, topic="Reklamacja", said=[said]
    )
    alert = messages.visitor_alert("visitor.complaint", "warning", told)
    assert alert == golden("alert.accepted.visitor")


def test_a_hand_over_matches_its_contract() -> None:
    tokens = Tokens(f"k1:{base64.b64encode(bytes(32)).decode()}")
    mails = Mails(CONFIG, tokens, "https://ostoja.example.com")
    to = Recipient(FOLLOWUP, "ala@example.com", "pl", KNOWN)
    mail = mails.render(CONFIG.sequences["default"][0], to, AT)
    told = messages.alert_accepted(
        FOLLOWUP, FOLLOWUP, CONVERSATION, "ala@example.com", mail, AT, CONFIG.hours.closing(AT)
    )
    assert told == golden("alert.accepted.followup")


def test_a_grant_in_chat_matches_its_contract() -> None:
    told = messages.grant_record(
        "ala@example.com", CONFIG.texts["pl"]["consent_wording"], "pl", "session-1",
        "203.0.113.7", "peer", "Mozilla/5.0", AT,
    )  # fmt: skip
    assert told == golden("grant.record.chat")


def test_a_withdrawal_in_chat_matches_its_contract() -> None:
    told = messages.withdrawal_record(
        "ala@example.com", "session-1", "203.0.113.7", "peer", "Mozilla/5.0", AT
    )
    assert told == golden("withdrawal.record")


def test_a_report_of_an_address_matches_its_contract() -> None:
    told = messages.address_report("ala@example.com", takes_mail=False, at=AT)
    assert told == golden("address.report")


@EXTRA
def test_a_form_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    given = messages.LeadSubmit.model_validate(golden("lead.submit") | extra)
    assert given.contacts == ["email:ala@example.com", "phone:+48600700800"]
    assert given.accepted_at == AT


def test_a_form_may_give_a_range_and_a_start_that_has_passed() -> None:
    given = {"area": "70-75 m2", "budget": "150-180 tys.", "start": "II kwartał 2020"}
    read, _ = submissions._facts(given, AT.date())
    assert (read.area, read.budget, read.start) == (75, 180_000, None)


def test_a_grant_in_a_form_matches_its_contract() -> None:
    given = messages.LeadSubmit.model_validate(golden("lead.submit"))
    _, _, message = submissions.grant(given, given.consents[0])
    assert message.body == golden("grant.record.form")
    assert message.id == submissions.grant(given, given.consents[0])[2].id


def test_lead_submitted_matches_its_contract() -> None:
    told = event({"email": "ala@example.com"}, event_id=FOLLOWUP, session_id=None, form="contact")
    assert told == golden("lead.submitted")


def test_an_imported_grant_matches_its_contract() -> None:
    row = lead_files.LeadRow.model_validate(
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


@EXTRA
@pytest.mark.parametrize("name", ["consent.withdrawn", "consent.granted"])
def test_a_consent_event_is_read_with_unknown_fields(name: str, extra: dict[str, Any]) -> None:
    event = messages.ConsentEvent.model_validate(golden(name) | extra)
    assert event.email
    assert event.at.tzinfo is not None
    if name == "consent.withdrawn":
        assert messages.MARKETING in event.purposes


@EXTRA
def test_an_outcome_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    told = messages.DeliverySettled.model_validate(golden("delivery.settled") | extra)
    assert isinstance(told.reference, uuid.UUID)
    later = messages.DeliverySettled.model_validate(golden("delivery.settled.deferred") | extra)
    assert (later.outcome, later.not_before) == ("too_late", AT + timedelta(days=30))


@EXTRA
def test_a_case_that_changes_its_owner_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    for name in ("case.answered", "case.released"):
        told = messages.CaseOwner.model_validate(golden(name) | extra)
        assert (str(told.lead_id), told.by, told.at) == (
            golden(name)["lead_id"], "Ewa Lis", AT,
        )  # fmt: skip


def test_an_erasure_receipt_matches_its_contract() -> None:
    body = golden("erasure.receipt")
    assert messages.erasure_receipt(uuid.UUID(body["erasure_id"]), AT) == body


def test_who_was_erased_is_asked_and_read_as_agreed() -> None:
    asked = golden("erased.request")
    assert messages.erased_request(set(asked["contacts"])) == asked
    read = messages.ErasedAnswer.model_validate(golden("erased.answer") | {"version": 2})
    assert read.erased == {"ala@example.com"}


def test_an_export_answer_matches_its_contract() -> None:
    body = golden("export.answer")
    trace = messages.trace([CONVERSATION], ["+48600700800"])
    assert messages.export_answer(body["records"], ("messages", 0), trace) == body


def test_an_erasure_trace_matches_its_contract() -> None:
    body = golden("erasure.trace")
    trace = messages.trace([CONVERSATION], ["+48600700800"])
    assert messages.erasure_trace(uuid.UUID(body["erasure_id"]), trace) == body


@EXTRA
def test_an_erasure_order_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    order = messages.SubjectErased.model_validate(golden("person.erased") | extra)
    assert (order.email, str(order.erasure_id)) == (
        "ala@example.com",
        golden("person.erased")["erasure_id"],
    )


@EXTRA
def test_an_export_request_is_read_with_unknown_fields(
    extra: dict[str, Any],
) -> None:
    body = golden("export.request") | extra
    assert messages.ExportRequest.model_validate(body).after is None
    again = body | {"after": golden("export.answer")["next"]}
    assert messages.ExportRequest.model_validate(again).after == ("messages", 0)


def test_a_form_with_an_agreement_to_calls_records_it_for_the_number_and_tells_staff() -> None:
    body = golden("lead.submit")
    call = body["consents"][0] | {"purpose": "marketing:phone", "text": "Zgadzam się na telefony."}
    given = messages.LeadSubmit.model_validate(body | {"consents": [*body["consents"], call]})
    assert [each.purpose for each in given.to_mails] == ["marketing"]
    mail, phone = (submissions.grant(given, each)[2] for each in given.consents)
    assert mail.id != phone.id
    assert (phone.body["email"], phone.body["purpose"]) == (
        given.facts["phone"], "marketing:phone",
    )  # fmt: skip
    (said,) = submissions._said(given, None, "pl")
    assert said.endswith("✓ Zgadzam się na telefony.")
