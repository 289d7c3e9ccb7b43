"""The messages of followups: it produces the golden ones and reads with unknown fields."""

import base64
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from libs.domain.signed_links import Tokens
from services.followups import messages
from services.followups.leads import imports, submissions
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
ORIGIN: dict[str, Any] = {
    "session_id": "session-1",
    "ip_address": "203.0.113.7",
    "ip_address_from": "peer",
    "user_agent": "Mozilla/5.0",
}
KNOWN = understand(SAID, today=date(2026, 11, 25), works=CONFIG.works).facts


def event(known: dict[str, Any], **more: Any) -> dict[str, Any]:
    scored = lead_score.score(known, CONFIG.rules)
    told: dict[str, Any] = {
        "event_id": LEAD,
        "lead_id": LEAD,
        "conversation_id": CONVERSATION,
        "session_id": "session-1",
        "known": known,
        "changes": [],
        "said": [SAID],
        "language": "pl",
        "staff_language": "pl",
        "score": scored.points,
        "hot": scored.points >= CONFIG.lead.threshold,
        "reasons": list(scored.reasons),
        "summary": fact_texts.summary(known, "pl"),
        "work": None,
        "topic": None,
        "is_update": False,
        "transcript_url": "https://ostoja.example.com/console/leads/3fadbd2d-6867-5662-bd30-9455bc6cc614",
        "at": AT,
    }
    return messages.request(**told | more)


def updated() -> dict[str, Any]:
    known = KNOWN.known() | {"phone": "+48600700801", "no_calls": True, "may_mail": "given"}
    return event(
        known,
        event_id=messages.update_id(LEAD, 1),
        changes=["phone", "no_calls", "may_mail"],
        said=["proszę nie dzwonić"],
        is_update=True,
    )


def visitor() -> dict[str, Any]:
    topic = messages.lead_id(CONVERSATION, "complaint")
    said = "Pęka fuga w łazience, którą robiliście w marcu."
    told = event(
        {"phone": "+48600700800"}, event_id=topic, lead_id=topic, topic="Reklamacja", said=[said]
    )
    return messages.visitor_alert("visitor.complaint", "warning", told)


def hand_over() -> dict[str, Any]:
    tokens = Tokens(f"k1:{base64.b64encode(bytes(32)).decode()}")
    mails = Mails(CONFIG, tokens, "https://ostoja.example.com")
    to = Recipient(FOLLOWUP, "ala@example.com", "pl", KNOWN)
    mail = mails.render(CONFIG.sequences["default"][0], to, AT)
    return messages.alert_accepted(
        FOLLOWUP, FOLLOWUP, CONVERSATION, "ala@example.com", mail, AT, CONFIG.hours.closing(AT)
    )


def imported() -> dict[str, Any]:
    row = imports.LeadRow.model_validate(
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
    return grant[1]


ERASURE = uuid.UUID(golden("erasure.receipt")["erasure_id"])
ORDERED = uuid.UUID(golden("person.erased")["erasure_id"])
TRACE = messages.trace([CONVERSATION], ["+48600700800"])
SENT: dict[str, Callable[[], dict[str, Any]]] = {
    "lead.qualified": lambda: event(KNOWN.known()),
    "lead.updated": updated,
    "lead.submitted": lambda: event(
        {"email": "ala@example.com"}, event_id=FOLLOWUP, session_id=None, form="contact"
    ),
    "alert.accepted.visitor": visitor,
    "alert.accepted.followup": hand_over,
    "grant.record.chat": lambda: messages.grant_record(
        "ala@example.com", CONFIG.texts["pl"]["consent_wording"], AT, **ORIGIN, language="pl"
    ),
    "grant.record.import": imported,
    "withdrawal.record": lambda: messages.withdrawal_record("ala@example.com", AT, **ORIGIN),
    "address.report": lambda: messages.address_report("ala@example.com", takes_mail=False, at=AT),
    "erasure.receipt": lambda: messages.erasure_receipt(ERASURE, AT),
    "erasure.trace": lambda: messages.erasure_trace(ERASURE, TRACE),
    "export.answer": lambda: messages.export_answer(
        golden("export.answer")["records"], ("messages", 0), TRACE
    ),
}


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_matches_its_contract(name: str) -> None:
    assert SENT[name]() == golden(name)


OWNER = {"lead_id": uuid.UUID(golden("case.answered")["lead_id"]), "by": "Ewa Lis", "at": AT}
CONTACTS = ["email:ala@example.com", "phone:+48600700800"]
READ: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "lead.submit": (messages.LeadSubmit, {"contacts": CONTACTS, "accepted_at": AT}),
    "consent.granted": (messages.ConsentEvent, {"email": "ala@example.com", "at": AT}),
    "consent.withdrawn": (messages.ConsentEvent, {"purposes": (messages.MARKETING, "*")}),
    "delivery.settled": (messages.DeliverySettled, {"reference": FOLLOWUP, "not_before": None}),
    "delivery.settled.deferred": (
        messages.DeliverySettled, {"outcome": "too_late", "not_before": AT + timedelta(days=30)},
    ),
    "case.answered": (messages.CaseOwner, OWNER),
    "case.released": (messages.CaseOwner, OWNER),
    "person.erased": (
        messages.SubjectErased, {"email": "ala@example.com", "erasure_id": ORDERED},
    ),
    "export.request": (messages.ExportRequest, {"after": None}),
}  # fmt: skip


@EXTRA
@pytest.mark.parametrize("name", READ)
def test_a_message_is_read_with_unknown_fields(name: str, extra: dict[str, Any]) -> None:
    model, said = READ[name]
    read = model.model_validate(golden(name) | extra)
    assert {each: getattr(read, each) for each in said} == said


def test_an_export_goes_on_where_its_last_page_ended() -> None:
    asked = golden("export.request") | {"after": golden("export.answer")["next"]}
    assert messages.ExportRequest.model_validate(asked).after == ("messages", 0)


def test_a_form_may_give_a_range_and_a_start_that_has_passed() -> None:
    given = {"area": "70-75 m2", "budget": "150-180 tys.", "start": "II kwartał 2020"}
    read = submissions._facts(given, AT.date())
    assert (read.area, read.budget, read.start) == (75, 180_000, None)
    assert (read.area_from, read.budget_from) == (70, 150_000)


def test_a_grant_in_a_form_matches_its_contract() -> None:
    given = messages.LeadSubmit.model_validate(golden("lead.submit"))
    _, _, message = submissions.grant(given, given.consents[0])
    assert message.body == golden("grant.record.form")
    assert message.id == submissions.grant(given, given.consents[0])[2].id


def test_who_was_erased_is_asked_and_read_as_agreed() -> None:
    asked = golden("erased.request")
    assert messages.about(set(asked["contacts"])) == asked
    read = messages.ErasedAnswer.model_validate(golden("erased.answer") | {"version": 2})
    assert read.erased == {"ala@example.com"}
    stands = messages.StandingAnswer.model_validate(golden("standing.answer") | {"version": 2})
    assert stands.purposes["ala@example.com"]["marketing"]["email"]["state"] == "granted"


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
