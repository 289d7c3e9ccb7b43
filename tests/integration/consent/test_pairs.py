"""Consent by purpose and channel: each stands, is withdrawn and waited for by itself, or all."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from libs.domain.company import Wording
from services.consent.changes import Withdrawal
from services.consent.rules import PermitDecision, WithdrawalResult
from services.consent.settings import ConsentSettings
from tests.integration.consent.conftest import (
    ADMIN,
    ANNA,
    REFUSED,
    Consent,
    agreement,
)

pytestmark = [pytest.mark.quick, pytest.mark.promise("P4", "P14")]

NUMBER = "+48601234567"
MARKETING, REMINDERS, CALLS = "marketing", "reminders", "marketing:phone"
CALL = Wording("call-1", CALLS, "pl", "Zgadzam się na rozmowy o ofercie.")
REMIND = Wording("remind-1", REMINDERS, "pl", "Zgadzam się na przypomnienia.")
SERVICE = {"X-Caller": "service"}


@pytest.fixture
def settings(settings: ConsentSettings) -> ConsentSettings:
    path = settings.company_config
    more = "".join(
        f'[[wordings]]\nversion = "{each.version}"\ngrants = ["{by}"]\nplace = "form"\n'
        f'text.pl = "{each.text} Ostoja Wnętrza sp. z o.o. '
        'https://www.ostoja-wnetrza.example/prywatnosc"\n\n'
        for each, by in ((CALL, "marketing:phone"), (REMIND, "reminders:email"))
    )
    path.write_text(path.read_text(encoding="utf-8") + "\n" + more, encoding="utf-8")
    return settings


async def may(consent: Consent, purpose: str) -> str:
    return (await consent.permit(purpose=purpose)).decision


async def result(consent: Consent, withdrawal: Withdrawal) -> WithdrawalResult:
    return (await consent.answered(withdrawal))[0]


async def prefers(consent: Consent, **given: int) -> None:
    await consent.rows(
        "INSERT INTO preference (subject_id, purpose, paused_until, days) SELECT id,"
        " 'marketing', now() + make_interval(days => CAST(:pause AS integer)),"
        " CAST(:days AS integer) FROM data_subject",
        **{"pause": None, "days": None} | given,
    )


async def test_a_withdrawal_of_one_purpose_neither_refuses_nor_waits_for_another(
    consent: Consent,
) -> None:
    for purpose in (MARKETING, REMINDERS):
        assert await consent.grant(ANNA, purpose=purpose)
    assert await may(consent, MARKETING) == "granted"  # and stays out
    withdrawal = await consent.withdraw(ANNA, REMINDERS)
    assert await result(consent, withdrawal) is WithdrawalResult.DONE
    assert (await may(consent, REMINDERS), await may(consent, MARKETING)) == ("denied", "granted")
    assert (
        await result(consent, await consent.withdraw(ANNA, MARKETING)) is WithdrawalResult.IN_FLIGHT
    )


async def test_a_withdrawal_of_all_refuses_what_was_never_granted_and_waits_for_every_permit(
    consent: Consent,
) -> None:
    before = datetime.now(UTC)
    assert await consent.grant(ANNA, purpose=REMINDERS)
    message = uuid4()
    assert (
        await consent.permit(purpose=REMINDERS, message=message)
    ).decision is PermitDecision.GRANTED
    withdrawal = await consent.withdraw()
    assert await result(consent, withdrawal) is WithdrawalResult.IN_FLIGHT
    await consent.give_back(message)
    assert await result(consent, await consent.withdraw()) is WithdrawalResult.DONE
    assert not await consent.grant(ANNA, agreement(at=before), purpose="news")  # it was on its way
    assert not await consent.grant(ANNA, agreement(at=before), purpose=REMINDERS)
    for purpose in ("news", REMINDERS, MARKETING):
        assert await may(consent, purpose) == "denied"


async def test_a_newer_agreement_ends_a_withdrawal_of_all_for_its_own_purpose(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA)
    assert await may(consent, MARKETING) == "granted"  # so the withdrawal waits
    withdrawal = await consent.withdraw()
    assert not await consent.grant(ANNA, purpose=REMINDERS)  # it has to be confirmed
    assert await consent.grant(ANNA, purpose=REMINDERS, confirmed=True)
    assert await result(consent, withdrawal) is WithdrawalResult.SUPERSEDED
    assert (await may(consent, REMINDERS), await may(consent, MARKETING)) == ("granted", "denied")


async def test_a_withdrawal_by_the_release_before_reaches_what_it_does_not_know(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA)
    assert await consent.grant(ANNA, purpose=REMINDERS)
    await consent.rows(  # its statement
        """
        INSERT INTO consent_state AS mine (subject_id, purpose, state, changed_at, withdrawn_at)
        SELECT id, purpose, 'withdrawn', clock_timestamp(), clock_timestamp()
        FROM data_subject, unnest(ARRAY['marketing']) AS purpose
        ON CONFLICT (subject_id, purpose) DO UPDATE SET
            state = excluded.state, withdrawn_at = excluded.withdrawn_at
        """,
    )
    for purpose in (MARKETING, REMINDERS, "news"):
        assert await may(consent, purpose) == "denied"


async def test_a_withdrawal_of_marketing_alone_is_none_of_all(consent: Consent) -> None:
    assert await consent.grant(ANNA, purpose=REMINDERS)
    await consent.withdraw(ANNA, MARKETING)
    assert (await may(consent, REMINDERS), await may(consent, "news")) == ("granted", "closed")


async def test_of_two_messages_that_ask_at_once_one_is_within_a_weekly_cap(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA)
    await prefers(consent, days=7)
    messages = [uuid4() for _ in range(6)]
    answers = await asyncio.gather(*(consent.permit(message=each) for each in messages))
    granted = [each for each in answers if each.decision is PermitDecision.GRANTED]
    assert len(granted) == 1
    later = [each for each in answers if each.deferred]
    assert len(later) == 5
    assert all(0 <= 7 * 86_400 - each.seconds < 60 for each in later)


async def test_a_pause_after_the_hand_over_defers_a_mail_and_takes_no_consent(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA)
    await prefers(consent, pause=30)
    answer = await consent.permit()
    assert (answer.decision, answer.deferred) == (PermitDecision.CLOSED, True)
    assert 0 <= 30 * 86_400 - answer.seconds < 60
    await consent.rows("UPDATE preference SET paused_until = now() - interval '1 second'")
    assert await may(consent, MARKETING) == "granted"
    await consent.withdraw()
    assert await may(consent, MARKETING) == "denied"


async def test_a_person_agrees_to_calls_and_withdraws_by_number(consent: Consent) -> None:
    call = (await wordings(consent))[CALLS]
    given = {"phone": "601 234 567", "grants": {"marketing:phone": call}}
    assert (await consent.post("/api/opt-in", given))[0] == 200
    status = await consent.get(f"/api/unsubscribe/status/{NUMBER}", SERVICE)
    assert status["purposes"]["marketing"]["phone"]["state"] == "granted"
    assert status["purposes"]["marketing"]["phone"]["wording"] == "call-1"
    assert await consent.scalar("SELECT count(*) FROM outbox WHERE type LIKE 'alert%'") == 0
    assert (await consent.post("/api/unsubscribe", {"phone": NUMBER}))[0] == 200
    status = await consent.get(f"/api/unsubscribe/status/{NUMBER}", SERVICE)
    assert (status["unsubscribed"], status["purposes"]["marketing"]["phone"]["state"]) == (
        True, "withdrawn",
    )  # fmt: skip
    await consent.post("/api/opt-in", given)  # anybody may have typed it
    status = await consent.get(f"/api/unsubscribe/status/{NUMBER}", SERVICE)
    assert status["purposes"]["marketing"]["phone"]["state"] == "withdrawn"
    assert (await consent.post("/api/consent/erase", {"phone": NUMBER}, **ADMIN))[0] == 200


async def wordings(consent: Consent) -> dict[str, str]:
    """Return the hashes of what this test's company.toml adds."""
    place = " Ostoja Wnętrza sp. z o.o. https://www.ostoja-wnetrza.example/prywatnosc"
    return {each.purpose: Wording("", "", "", each.text + place).sha256 for each in (CALL, REMIND)}


async def test_one_purpose_is_withdrawn_by_the_call_and_the_other_stays(consent: Consent) -> None:
    remind = (await wordings(consent))[REMINDERS]
    for body in ({"text": "Zgadzam się."}, {"grants": {"reminders:email": remind}}):
        assert (await consent.post("/api/opt-in", {"email": ANNA} | body))[0] == 200
    body = {"email": ANNA, "purpose": "reminders", "channel": "email"}
    assert (await consent.post("/api/unsubscribe", body))[0] == 200
    status = await consent.get(f"/api/unsubscribe/status/{ANNA}", SERVICE)
    states = {name: each["email"]["state"] for name, each in status["purposes"].items()}
    assert states == {"marketing": "granted", "reminders": "withdrawn"}
    assert (status["unsubscribed"], status["consents"]) == (False, {"marketing": True})
    assert (await consent.entries(ANNA))[-1]["evidence"]["purposes"] == ["reminders"]


async def test_what_is_unknown_is_422_and_changes_nothing(consent: Consent) -> None:
    calls = (await wordings(consent))[CALLS]
    for path, body, field in REFUSED["pairs"]:
        if "CALLS" in (body.get("grants") or {}).values():
            body["grants"] = dict.fromkeys(body["grants"], calls)
        status, answer = await consent.post(f"/api/{path}", body)
        assert status == 422, answer
        assert answer["errors"][0]["field"].startswith(field), answer
    assert await consent.scalar("SELECT count(*) FROM data_subject") == 0


async def test_the_preferences_pause_limit_and_offer_what_is_not_granted(consent: Consent) -> None:
    assert await consent.grant(ANNA)
    url = f"/preferences?token={consent.link(ANNA)}&lang=en"
    _, page = await consent.seen("GET", url)
    assert "Reminders of our conversation" in page
    assert "I agree: Reminders of our conversation" in page
    wanted = {"prefer": "marketing", "pause": "30", "often": "weekly"}
    assert (await consent.seen("POST", url, data=wanted))[0] == 200
    assert (await consent.permit()).deferred
    _, page = await consent.seen("GET", url)
    assert "We do not send anything until" in page
    assert '<option value="weekly" selected>' in page
    await consent.seen("POST", url, data=wanted | {"pause": "keep", "often": "monthly"})
    assert (await consent.permit()).deferred
    await consent.seen("POST", url, data=wanted | {"pause": "", "often": ""})
    assert await may(consent, MARKETING) == "granted"
    remind = (await wordings(consent))[REMINDERS]
    agreed = {"grant": "reminders", "wording": remind}
    assert (await consent.seen("POST", url, data=agreed))[0] == 200
    assert await may(consent, REMINDERS) == "granted"
    for wrong in (
        agreed | {"wording": "0" * 64}, agreed | {"grant": "marketing"},
        wanted | {"pause": "31"}, wanted | {"often": "daily"}, wanted | {"prefer": "x"},
    ):  # fmt: skip
        assert (await consent.seen("POST", url, data=wrong))[0] == 422
    assert (await consent.scalar("SELECT count(*) FROM preference")) == 1


async def test_one_click_ends_all(consent: Consent) -> None:
    assert await consent.grant(ANNA)
    assert await consent.grant(ANNA, purpose=REMINDERS)
    url = f"/unsubscribe?token={consent.link(ANNA)}"
    await consent.seen("POST", url, data={"List-Unsubscribe": "One-Click"})
    assert (await may(consent, REMINDERS), await may(consent, "news")) == ("denied", "denied")


async def test_an_older_date_of_a_withdrawal_of_all_leaves_what_was_granted_since(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA, purpose=REMINDERS)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    await consent.withdraw(ANNA, "*", at=yesterday)  # as a journal repeats it
    assert (await may(consent, REMINDERS), await may(consent, "news")) == ("granted", "denied")


async def test_a_report_lists_who_had_agreed_at_a_time_and_its_hash_is_in_the_trail(
    consent: Consent,
) -> None:
    jan = "+48600700800"
    assert await consent.grant(NUMBER, purpose=CALLS)
    assert await consent.grant(jan, purpose=CALLS)
    assert await consent.grant(ANNA)
    before = datetime.now(UTC)
    await consent.withdraw(NUMBER)
    asked = {"purpose": "marketing", "channel": "phone"}

    async def who(at: datetime) -> list[str]:
        query = urlencode(asked | {"at": at.isoformat()})
        body = await consent.get(f"/api/consent/report?{query}", ADMIN)
        assert body["next_cursor"] is None
        return sorted(each["who"] for each in body["items"])

    assert await who(before) == sorted([jan, NUMBER])
    assert await who(datetime.now(UTC)) == [jan]
    for wrong in ({"at": "yesterday"}, {"at": "2026-11-30", "purpose": "newsletter"}):
        path = f"/api/consent/report?{urlencode(asked | wrong)}"
        assert (await consent.seen("GET", path, headers=ADMIN))[0] == 422
    about = asked | {"at": before.isoformat(), "sha256": "a" * 64, "people": 2}
    status, signed = await consent.post("/api/consent/report", about, **ADMIN)
    assert status == 200
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed["public_key"]))
    text = f"ostoja consent report\n{signed['signed']}\n".encode()
    key.verify(base64.b64decode(signed["signature"]), text)
    assert "a" * 64 in signed["signed"]
    assert await consent.scalar("SELECT count(*) FROM consent_audit_log WHERE action='export'") == 1
