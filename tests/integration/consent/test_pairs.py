"""Consent by purpose and channel: each stands, is withdrawn and waited for by itself, or all."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.domain.company import Wording
from services.consent import changes, permits
from services.consent.changes import Withdrawal, WithdrawalRequest
from services.consent.rules import ALL, PermitAnswer, PermitDecision, WithdrawalResult
from services.consent.settings import ConsentSettings
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import (
    REFUSED,
    Link,
    agreement,
    asked_for,
    give_back,
    opt_in,
    rows,
    scalar,
    unsubscribe,
)
from tests.integration.consent.test_http import ADMIN, Client, entries, get, post, seen, serving

pytestmark = [pytest.mark.quick, pytest.mark.promise("P4", "P14")]

ANNA, NUMBER = "anna@example.com", "+48601234567"
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


class Person:
    def __init__(self, engine: AsyncEngine, vault: Vault) -> None:
        self.engine, self.vault = engine, vault

    async def agrees(self, purpose: str, at: datetime | None = None, who: str = ANNA) -> bool:
        async with self.engine.begin() as tx:
            given = agreement(at=at)
            return await changes.grant(tx, self.vault, opt_in(who), given, purpose=purpose)

    async def withdraws(self, *purposes: str, who: str = ANNA) -> Withdrawal:
        async with self.engine.begin() as tx:
            request = WithdrawalRequest(unsubscribe(who), purposes or ALL)
            return await changes.withdraw(tx, self.vault, request, suppression_days=1)

    async def permit(self, purpose: str, message: Any = None) -> PermitAnswer:
        async with self.engine.begin() as tx:
            request = asked_for(message or uuid4(), ANNA, purpose)
            return await permits.request(tx, self.vault, request, 20)

    async def may(self, purpose: str) -> str:
        return (await self.permit(purpose)).decision

    async def answer(self, withdrawal: Withdrawal) -> WithdrawalResult:
        found = await permits.wait_until_answerable(
            self.engine, withdrawal, patience=0.2, quarantine=600, stopping=asyncio.Event()
        )
        return found[0]

    async def prefers(self, pause: int | None = None, days: int | None = None) -> None:
        await rows(
            self.engine,
            "INSERT INTO preference (subject_id, purpose, paused_until, days) SELECT id,"
            " 'marketing', now() + make_interval(days => CAST(:pause AS integer)),"
            " CAST(:days AS integer) FROM data_subject",
            pause=pause,
            days=days,
        )


@pytest.fixture
async def client(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> AsyncIterator[Client]:
    async with serving(engine, vault, settings) as opened:
        yield opened


@pytest.fixture
def person(engine: AsyncEngine, vault: Vault) -> Person:
    return Person(engine, vault)


async def test_a_withdrawal_of_one_purpose_neither_refuses_nor_waits_for_another(
    person: Person,
) -> None:
    for purpose in (MARKETING, REMINDERS):
        assert await person.agrees(purpose)
    assert await person.may(MARKETING) == "granted"  # and stays out
    withdrawal = await person.withdraws(REMINDERS)
    assert await person.answer(withdrawal) is WithdrawalResult.DONE
    assert (await person.may(REMINDERS), await person.may(MARKETING)) == ("denied", "granted")
    assert await person.answer(await person.withdraws(MARKETING)) is WithdrawalResult.IN_FLIGHT


async def test_a_withdrawal_of_all_refuses_what_was_never_granted_and_waits_for_every_permit(
    person: Person,
) -> None:
    before = datetime.now(UTC)
    assert await person.agrees(REMINDERS)
    message = uuid4()
    assert (await person.permit(REMINDERS, message)).decision is PermitDecision.GRANTED
    withdrawal = await person.withdraws()
    assert await person.answer(withdrawal) is WithdrawalResult.IN_FLIGHT
    async with person.engine.begin() as tx:
        await give_back(tx, message)
    assert await person.answer(await person.withdraws()) is WithdrawalResult.DONE
    assert not await person.agrees("news", at=before)  # it was on its way
    assert not await person.agrees(REMINDERS, at=before)
    for purpose in ("news", REMINDERS, MARKETING):
        assert await person.may(purpose) == "denied"


async def test_a_newer_agreement_ends_a_withdrawal_of_all_for_its_own_purpose(
    person: Person, engine: AsyncEngine
) -> None:
    assert await person.agrees(MARKETING)
    assert await person.may(MARKETING) == "granted"  # so the withdrawal waits
    withdrawal = await person.withdraws()
    assert not await person.agrees(REMINDERS)  # it has to be confirmed
    async with engine.begin() as tx:
        entry = opt_in(ANNA)
        assert await changes.grant(
            tx, person.vault, entry, agreement(), purpose=REMINDERS, confirmed=True
        )
    assert await person.answer(withdrawal) is WithdrawalResult.SUPERSEDED
    assert (await person.may(REMINDERS), await person.may(MARKETING)) == ("granted", "denied")


async def test_a_withdrawal_by_the_release_before_reaches_what_it_does_not_know(
    person: Person, engine: AsyncEngine
) -> None:
    assert await person.agrees(MARKETING)
    assert await person.agrees(REMINDERS)
    await rows(  # its statement
        engine,
        """
        INSERT INTO consent_state AS mine (subject_id, purpose, state, changed_at, withdrawn_at)
        SELECT id, purpose, 'withdrawn', clock_timestamp(), clock_timestamp()
        FROM data_subject, unnest(ARRAY['marketing']) AS purpose
        ON CONFLICT (subject_id, purpose) DO UPDATE SET
            state = excluded.state, withdrawn_at = excluded.withdrawn_at
        """,
    )
    for purpose in (MARKETING, REMINDERS, "news"):
        assert await person.may(purpose) == "denied"


async def test_a_withdrawal_of_marketing_alone_is_none_of_all(person: Person) -> None:
    assert await person.agrees(REMINDERS)
    await person.withdraws(MARKETING)
    assert (await person.may(REMINDERS), await person.may("news")) == ("granted", "closed")


async def test_of_two_messages_that_ask_at_once_one_is_within_a_weekly_cap(person: Person) -> None:
    assert await person.agrees(MARKETING)
    await person.prefers(days=7)
    messages = [uuid4() for _ in range(6)]
    answers = await asyncio.gather(*(person.permit(MARKETING, each) for each in messages))
    granted = [each for each in answers if each.decision is PermitDecision.GRANTED]
    assert len(granted) == 1
    later = [each for each in answers if each.deferred]
    assert len(later) == 5
    assert all(0 <= 7 * 86_400 - each.seconds < 60 for each in later)


async def test_a_pause_after_the_hand_over_defers_a_mail_and_takes_no_consent(
    person: Person, engine: AsyncEngine
) -> None:
    assert await person.agrees(MARKETING)
    await person.prefers(pause=30)
    answer = await person.permit(MARKETING)
    assert (answer.decision, answer.deferred) == (PermitDecision.CLOSED, True)
    assert 0 <= 30 * 86_400 - answer.seconds < 60
    await rows(engine, "UPDATE preference SET paused_until = now() - interval '1 second'")
    assert await person.may(MARKETING) == "granted"
    await person.withdraws()
    assert await person.may(MARKETING) == "denied"


async def test_a_person_agrees_to_calls_and_withdraws_by_number(
    client: Client, engine: AsyncEngine
) -> None:
    call = (await wordings(client))[CALLS]
    given = {"phone": "601 234 567", "grants": {"marketing:phone": call}}
    assert (await post(client, "/api/opt-in", given))[0] == 200
    status = await get(client, f"/api/unsubscribe/status/{NUMBER}", SERVICE)
    assert status["purposes"]["marketing"]["phone"]["state"] == "granted"
    assert status["purposes"]["marketing"]["phone"]["wording"] == "call-1"
    assert await scalar(engine, "SELECT count(*) FROM outbox WHERE type LIKE 'alert%'") == 0
    assert (await post(client, "/api/unsubscribe", {"phone": NUMBER}))[0] == 200
    status = await get(client, f"/api/unsubscribe/status/{NUMBER}", SERVICE)
    assert (status["unsubscribed"], status["purposes"]["marketing"]["phone"]["state"]) == (
        True, "withdrawn",
    )  # fmt: skip
    await post(client, "/api/opt-in", given)  # anybody may have typed it
    status = await get(client, f"/api/unsubscribe/status/{NUMBER}", SERVICE)
    assert status["purposes"]["marketing"]["phone"]["state"] == "withdrawn"
    assert (await post(client, "/api/consent/erase", {"phone": NUMBER}, **ADMIN))[0] == 200


async def wordings(client: Client) -> dict[str, str]:
    """Return the hashes of what this test's company.toml adds."""
    place = " Ostoja Wnętrza sp. z o.o. https://www.ostoja-wnetrza.example/prywatnosc"
    return {each.purpose: Wording("", "", "", each.text + place).sha256 for each in (CALL, REMIND)}


async def test_one_purpose_is_withdrawn_by_the_call_and_the_other_stays(client: Client) -> None:
    remind = (await wordings(client))[REMINDERS]
    for body in ({"text": "Zgadzam się."}, {"grants": {"reminders:email": remind}}):
        assert (await post(client, "/api/opt-in", {"email": ANNA} | body))[0] == 200
    body = {"email": ANNA, "purpose": "reminders", "channel": "email"}
    assert (await post(client, "/api/unsubscribe", body))[0] == 200
    status = await get(client, f"/api/unsubscribe/status/{ANNA}", SERVICE)
    states = {name: each["email"]["state"] for name, each in status["purposes"].items()}
    assert states == {"marketing": "granted", "reminders": "withdrawn"}
    assert (status["unsubscribed"], status["consents"]) == (False, {"marketing": True})
    assert (await entries(client, ANNA))[-1]["evidence"]["purposes"] == ["reminders"]


async def test_what_is_unknown_is_422_and_changes_nothing(
    client: Client, engine: AsyncEngine
) -> None:
    calls = (await wordings(client))[CALLS]
    for path, body, field in REFUSED["pairs"]:
        if "CALLS" in (body.get("grants") or {}).values():
            body["grants"] = dict.fromkeys(body["grants"], calls)
        status, answer = await post(client, f"/api/{path}", body)
        assert status == 422, answer
        assert answer["errors"][0]["field"].startswith(field), answer
    assert await scalar(engine, "SELECT count(*) FROM data_subject") == 0


async def test_the_preferences_pause_limit_and_offer_what_is_not_granted(
    client: Client, person: Person, link: Link, engine: AsyncEngine
) -> None:
    assert await person.agrees(MARKETING)
    url = f"/preferences?token={link(ANNA)}&lang=en"
    _, page = await seen(client, "GET", url)
    assert "Reminders of our conversation" in page
    assert "I agree: Reminders of our conversation" in page
    wanted = {"prefer": "marketing", "pause": "30", "often": "weekly"}
    assert (await seen(client, "POST", url, data=wanted))[0] == 200
    assert (await person.permit(MARKETING)).deferred
    _, page = await seen(client, "GET", url)
    assert "We do not send anything until" in page
    assert '<option value="weekly" selected>' in page
    await seen(client, "POST", url, data=wanted | {"pause": "keep", "often": "monthly"})
    assert (await person.permit(MARKETING)).deferred
    await seen(client, "POST", url, data=wanted | {"pause": "", "often": ""})
    assert await person.may(MARKETING) == "granted"
    remind = (await wordings(client))[REMINDERS]
    agreed = {"grant": "reminders", "wording": remind}
    assert (await seen(client, "POST", url, data=agreed))[0] == 200
    assert await person.may(REMINDERS) == "granted"
    for wrong in (
        agreed | {"wording": "0" * 64}, agreed | {"grant": "marketing"},
        wanted | {"pause": "31"}, wanted | {"often": "daily"}, wanted | {"prefer": "x"},
    ):  # fmt: skip
        assert (await seen(client, "POST", url, data=wrong))[0] == 422
    assert (await scalar(engine, "SELECT count(*) FROM preference")) == 1


async def test_one_click_ends_all(client: Client, person: Person, link: Link) -> None:
    assert await person.agrees(MARKETING)
    assert await person.agrees(REMINDERS)
    url = f"/unsubscribe?token={link(ANNA)}"
    await seen(client, "POST", url, data={"List-Unsubscribe": "One-Click"})
    assert (await person.may(REMINDERS), await person.may("news")) == ("denied", "denied")


async def test_an_older_date_of_a_withdrawal_of_all_leaves_what_was_granted_since(
    person: Person, vault: Vault
) -> None:
    assert await person.agrees(REMINDERS)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    request = WithdrawalRequest(unsubscribe(ANNA), ["*"], at=yesterday)
    async with person.engine.begin() as tx:  # as a journal repeats it
        await changes.withdraw(tx, vault, request, suppression_days=1)
    assert (await person.may(REMINDERS), await person.may("news")) == ("granted", "denied")


async def test_a_report_lists_who_had_agreed_at_a_time_and_its_hash_is_in_the_trail(
    client: Client, person: Person, engine: AsyncEngine
) -> None:
    jan = "+48600700800"
    assert await person.agrees(CALLS, who=NUMBER)
    assert await person.agrees(CALLS, who=jan)
    assert await person.agrees(MARKETING)
    before = datetime.now(UTC)
    await person.withdraws(who=NUMBER)
    asked = {"purpose": "marketing", "channel": "phone"}

    async def who(at: datetime) -> list[str]:
        async with client.get(
            "/api/consent/report", params=asked | {"at": at.isoformat()}, headers=ADMIN
        ) as answer:
            body = await answer.json()
            assert (answer.status, body["next_cursor"]) == (200, None), body
            return sorted(each["who"] for each in body["items"])

    assert await who(before) == sorted([jan, NUMBER])
    assert await who(datetime.now(UTC)) == [jan]
    for wrong in ({"at": "yesterday"}, {"at": "2026-11-30", "purpose": "newsletter"}):
        async with client.get("/api/consent/report", params=asked | wrong, headers=ADMIN) as answer:
            assert answer.status == 422
    about = asked | {"at": before.isoformat(), "sha256": "a" * 64, "people": 2}
    status, signed = await post(client, "/api/consent/report", about, **ADMIN)
    assert status == 200
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed["public_key"]))
    text = f"ostoja consent report\n{signed['signed']}\n".encode()
    key.verify(base64.b64decode(signed["signature"]), text)
    assert "a" * 64 in signed["signed"]
    assert await scalar(engine, "SELECT count(*) FROM consent_audit_log WHERE action='export'") == 1
