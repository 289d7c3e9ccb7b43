import asyncio
import random
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.consent import permits
from services.consent.rules import PermitDecision, WithdrawalResult
from services.consent.store.sql import run
from tests.integration.consent.conftest import (
    ANNA,
    Consent,
    until_one_waits,
)

pytestmark = [pytest.mark.quick, pytest.mark.promise("P4")]


@pytest.fixture
async def consent(consent: Consent) -> Consent:
    assert await consent.grant(ANNA)
    return consent


async def test_a_permit_without_recorded_consent_is_closed_until_the_grant_arrives(
    consent: Consent,
) -> None:
    jan = "jan@example.com"
    assert await consent.ask(email=jan) is PermitDecision.CLOSED
    await consent.grant(jan)
    assert await consent.ask(email=jan) is PermitDecision.GRANTED


async def test_a_permit_is_for_one_subject_in_any_spelling_and_one_purpose(
    consent: Consent,
) -> None:
    message, jan = uuid4(), "jan@example.com"
    assert await consent.grant(jan)
    assert await consent.ask(message, email="ANNA@Example.com") is PermitDecision.GRANTED
    assert await consent.ask(message, email=jan) is PermitDecision.CLOSED
    assert await consent.ask(purpose="newsletter") is PermitDecision.CLOSED
    assert await consent.ask(email="no address") is PermitDecision.DENIED


async def test_a_permit_belongs_to_one_attempt_and_is_granted_again_while_open(
    consent: Consent,
) -> None:
    message = uuid4()
    assert await consent.ask(message, 1) is PermitDecision.GRANTED
    assert await consent.ask(message, 1) is PermitDecision.GRANTED
    await consent.give_back(message, 1)
    assert await consent.ask(message, 1) is PermitDecision.CLOSED
    assert await consent.ask(message, 2) is PermitDecision.GRANTED


async def test_a_return_that_overtakes_its_request_closes_it(consent: Consent) -> None:
    message = uuid4()
    await consent.give_back(message)
    assert await consent.ask(message) is PermitDecision.CLOSED
    await consent.give_back(message)  # and a second return changes nothing
    assert await consent.ask(message) is PermitDecision.CLOSED


async def test_an_expired_permit_is_closed_and_still_delays_the_200(consent: Consent) -> None:
    message = uuid4()
    assert await consent.ask(message) is PermitDecision.GRANTED
    await consent.rows("UPDATE permit SET granted_at = granted_at - interval '21 seconds'")
    assert await consent.ask(message) is PermitDecision.CLOSED
    assert await consent.answered(await consent.withdraw()) == (WithdrawalResult.IN_FLIGHT, 1)


async def test_a_withdrawal_is_done_when_the_last_permit_is_returned(consent: Consent) -> None:
    first, second = uuid4(), uuid4()
    assert await consent.ask(first) is PermitDecision.GRANTED
    assert await consent.ask(second) is PermitDecision.GRANTED
    answered = asyncio.create_task(consent.answered(await consent.withdraw(), patience=30))
    assert await consent.ask(first) is PermitDecision.DENIED
    await consent.give_back(first)
    done, _ = await asyncio.wait({answered}, timeout=3 * permits.POLL_SECONDS)
    assert not done
    await consent.give_back(second)
    assert await answered == (WithdrawalResult.DONE, 0)


async def test_a_withdrawal_is_done_after_the_quarantine_of_an_unreturned_permit(
    consent: Consent,
) -> None:
    assert await consent.ask() is PermitDecision.GRANTED
    assert await consent.answered(await consent.withdraw()) == (WithdrawalResult.IN_FLIGHT, 1)
    await consent.rows("UPDATE permit SET granted_at = granted_at - interval '1 hour'")
    await consent.rows("UPDATE consent_state SET changed_at = changed_at - interval '540 seconds'")
    assert (await consent.answered(await consent.withdraw(), 0))[0] is WithdrawalResult.IN_FLIGHT
    await consent.rows("UPDATE consent_state SET changed_at = changed_at - interval '60 seconds'")
    assert (await consent.answered(await consent.withdraw(), 0))[0] is WithdrawalResult.DONE


async def test_a_new_withdrawal_restarts_the_quarantine(consent: Consent) -> None:
    assert await consent.ask() is PermitDecision.GRANTED
    await consent.withdraw()
    await consent.rows("UPDATE consent_state SET changed_at = now() - interval '1 hour'")
    assert await consent.grant(ANNA, confirmed=True)
    assert await consent.ask() is PermitDecision.GRANTED
    assert await consent.answered(await consent.withdraw()) == (WithdrawalResult.IN_FLIGHT, 2)


async def asked(consent: Consent) -> UUID:
    """Let an agreement wait for its confirmation, and return its mail's id."""

    def mail(_: str, opt_in_id: UUID) -> dict[str, Any]:
        made.append(opt_in_id)
        return {"to": ANNA}

    made: list[UUID] = []
    await consent.rows("DELETE FROM link_mail")
    assert not await consent.grant(ANNA, double_opt_in=True, make_mail=mail)
    return made[0]


async def ask_to_confirm(consent: Consent, mail: UUID, email: str = ANNA) -> PermitDecision:
    return await consent.ask(mail, email=email, purpose="opt-in")


async def test_a_mail_that_asks_to_confirm_may_leave_while_its_agreement_waits(
    consent: Consent,
) -> None:
    await consent.withdraw()
    mail = await asked(consent)
    assert await ask_to_confirm(consent, uuid4()) is PermitDecision.DENIED
    assert await ask_to_confirm(consent, mail, "jan@example.com") is PermitDecision.DENIED
    assert await ask_to_confirm(consent, mail) is PermitDecision.GRANTED
    withdrawal = await consent.withdraw()
    assert await ask_to_confirm(consent, mail) is PermitDecision.DENIED
    assert await consent.answered(withdrawal) == (WithdrawalResult.IN_FLIGHT, 1)
    await consent.give_back(mail)
    assert await consent.answered(withdrawal) == (WithdrawalResult.DONE, 0)
    used = await asked(consent)
    await run.alone(consent.engine, "use_opt_in", id=used)
    assert await ask_to_confirm(consent, used) is PermitDecision.DENIED


async def test_the_quarantine_of_a_mail_that_asks_to_confirm_begins_with_its_permit(
    consent: Consent,
) -> None:
    """Who has withdrawn before withdraws no more: that time is long over."""
    await consent.withdraw()
    await consent.rows("UPDATE consent_state SET changed_at = now() - interval '1 hour'")
    assert await ask_to_confirm(consent, await asked(consent)) is PermitDecision.GRANTED
    withdrawal = await consent.withdraw()
    assert await consent.answered(withdrawal) == (WithdrawalResult.IN_FLIGHT, 1)
    await consent.rows("UPDATE permit SET granted_at = now() - interval '10 minutes'")
    assert (await consent.answered(await consent.withdraw()))[0] is WithdrawalResult.DONE


async def test_a_stopping_service_answers_what_it_knows(consent: Consent) -> None:
    assert await consent.ask() is PermitDecision.GRANTED
    answered = asyncio.create_task(consent.answered(await consent.withdraw(), patience=30))
    consent.stopping.set()
    assert await answered == (WithdrawalResult.IN_FLIGHT, 1)


async def test_a_permit_request_waits_for_an_earlier_withdrawal(consent: Consent) -> None:
    """And so cannot read `granted` beside it, and open a permit that the 200 does not know of."""
    with consent.elsewhere() as cursor:
        cursor.execute("SELECT id FROM consent.data_subject FOR UPDATE")
        asked = asyncio.create_task(consent.ask())
        await until_one_waits(cursor)
        cursor.execute("UPDATE consent.consent_state SET state = 'withdrawn', withdrawn_at = now()")
        cursor.connection.commit()
    assert await asked is PermitDecision.DENIED


async def test_a_withdrawal_waits_for_an_earlier_permit_request_and_counts_its_permit(
    consent: Consent,
) -> None:
    with consent.elsewhere() as cursor:
        cursor.execute("SELECT id FROM consent.data_subject FOR SHARE")
        withdrawn = asyncio.create_task(consent.withdraw())
        await until_one_waits(cursor)
        cursor.execute(
            "INSERT INTO consent.permit (message, attempt, subject_id, granted_at)"
            " SELECT gen_random_uuid(), 1, id, now() FROM consent.data_subject"
        )
        cursor.connection.commit()
    assert (await withdrawn).state.unreturned == 1


async def test_no_permit_is_open_after_the_200(consent: Consent) -> None:
    """Withdrawals racing permit requests, over many people and orders of events."""
    chance = random.Random(20261125)
    held: dict[str, set[UUID]] = {}
    granted = 0

    async def send(email: str) -> None:
        nonlocal granted
        message = uuid4()
        await asyncio.sleep(chance.random() * 0.03)
        if await consent.ask(message, email=email) is PermitDecision.GRANTED:
            granted += 1
            held[email].add(message)
            await asyncio.sleep(chance.random() * 0.05)
            held[email].remove(message)
            await consent.give_back(message)

    async def leave(email: str) -> None:
        await asyncio.sleep(chance.random() * 0.03)
        outcome, _ = await consent.answered(await consent.withdraw(email), patience=30)
        assert outcome is WithdrawalResult.DONE
        assert not held[email]
        assert await consent.ask(email=email) is PermitDecision.DENIED

    for round_number in range(15):
        people = [f"person{round_number}.{number}@example.com" for number in range(4)]
        for email in people:
            held[email] = set()
            assert await consent.grant(email)
        senders = (send(email) for email in people for _ in range(4))
        await asyncio.gather(*senders, *map(leave, people))
    assert 0 < granted < 240  # the race went both ways


async def test_the_purge_deletes_old_permits_and_suppressions_and_keeps_young_ones(
    consent: Consent,
) -> None:
    old, young = uuid4(), uuid4()
    for message in (old, young):
        await consent.give_back(message)
        await consent.withdraw(f"{message}@example.com")
    await consent.rows(
        "UPDATE suppression SET keep_until = now() WHERE suppression_hash = :hash",
        hash=consent.vault.suppression_hash(f"{old}@example.com"),
    )
    await consent.rows(
        "UPDATE permit SET returned_at = now() - interval '31 days' WHERE message = :old", old=old
    )
    assert await consent.purge() == 3  # of marketing, and of all
    assert await consent.purge() == 0
    for message, suppressed in ((old, False), (young, True)):
        found = await consent.suppression(f"{message}@example.com")
        assert found.suppressed is suppressed
    assert await consent.ask(young) is PermitDecision.CLOSED
