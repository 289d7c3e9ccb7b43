import asyncio
import random
from contextlib import closing
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.consent import changes, permits
from services.consent.changes import Withdrawal
from services.consent.consent import Outcome, Verdict
from services.consent.store import consents, upkeep
from services.consent.vault import Vault
from tests.integration.consent.conftest import (
    BOTH_DRIVERS,
    WORDING,
    grant,
    opt_in,
    somebody_waits,
    unsubscribe,
    withdraw,
)
from tests.support.databases import DatabaseUrl

pytestmark = BOTH_DRIVERS

ANNA = "anna@example.com"


class Consent:
    """The service's side of protocol B, with short times."""

    def __init__(self, engine: AsyncEngine, vault: Vault) -> None:
        self.engine = engine
        self.vault = vault
        self.stopping = asyncio.Event()

    async def ask(
        self, message: UUID, attempt: int = 1, address: str = ANNA, purpose: str = "marketing"
    ) -> Verdict:
        async with self.engine.begin() as tx:
            answer = await permits.request(
                tx,
                self.vault,
                message=message,
                attempt=attempt,
                address=address,
                purpose=purpose,
                lifetime=20,
            )
        return answer.verdict

    async def give_back(self, message: UUID, attempt: int = 1) -> None:
        async with self.engine.begin() as tx:
            await consents.return_permit(tx, message, attempt)

    async def withdraw(self, address: str = ANNA) -> Withdrawal:
        async with self.engine.begin() as tx:
            return await withdraw(tx, self.vault, unsubscribe(address))

    async def settled(
        self, withdrawal: Withdrawal, patience: float = 0.3, quarantine: float = 600
    ) -> tuple[Outcome, int]:
        return await permits.settled(
            self.engine,
            withdrawal,
            patience=patience,
            quarantine=quarantine,
            stopping=self.stopping,
        )


@pytest.fixture
async def consent(engine: AsyncEngine, vault: Vault) -> Consent:
    assert await grant(engine, vault, ANNA)
    return Consent(engine, vault)


async def test_silence_is_no_consent(consent: Consent) -> None:
    assert await consent.ask(uuid4(), address="stranger@example.com") is Verdict.DENIED


async def test_an_address_that_cannot_exist_is_denied(consent: Consent) -> None:
    assert await consent.ask(uuid4(), address="no address") is Verdict.DENIED


async def test_consent_to_one_purpose_is_none_to_another(consent: Consent) -> None:
    assert await consent.ask(uuid4(), purpose="newsletter") is Verdict.DENIED


async def test_another_spelling_of_the_address_is_the_same_person(consent: Consent) -> None:
    assert await consent.ask(uuid4(), address="ANNA@Example.com") is Verdict.GRANTED


async def test_a_permit_is_one_attempt_s_and_is_granted_again_while_it_is_open(
    consent: Consent,
) -> None:
    message = uuid4()
    assert await consent.ask(message, 1) is Verdict.GRANTED
    assert await consent.ask(message, 1) is Verdict.GRANTED
    await consent.give_back(message, 1)
    assert await consent.ask(message, 1) is Verdict.CLOSED
    assert await consent.ask(message, 2) is Verdict.GRANTED


async def test_a_return_that_overtakes_its_request_closes_it_beforehand(consent: Consent) -> None:
    message = uuid4()
    await consent.give_back(message)
    assert await consent.ask(message) is Verdict.CLOSED
    await consent.give_back(message)  # and a second return changes nothing
    assert await consent.ask(message) is Verdict.CLOSED


async def test_an_expired_permit_is_closed_and_still_holds_back_the_200(consent: Consent) -> None:
    message = uuid4()
    assert await consent.ask(message) is Verdict.GRANTED
    async with consent.engine.begin() as tx:
        await tx.execute(text("UPDATE permit SET granted_at = granted_at - interval '21 seconds'"))
    assert await consent.ask(message) is Verdict.CLOSED
    assert await consent.settled(await consent.withdraw()) == (Outcome.IN_FLIGHT, 1)


async def test_an_attempt_permitted_for_one_person_is_closed_for_another(
    consent: Consent,
) -> None:
    message = uuid4()
    assert await grant(consent.engine, consent.vault, "jan@example.com")
    assert await consent.ask(message) is Verdict.GRANTED
    assert await consent.ask(message, address="jan@example.com") is Verdict.CLOSED


async def test_a_withdrawal_without_permits_is_done_at_once(consent: Consent) -> None:
    assert await consent.settled(await consent.withdraw(), patience=0) == (Outcome.DONE, 0)
    assert await consent.ask(uuid4()) is Verdict.DENIED


async def test_after_a_withdrawal_even_an_open_permit_is_denied(consent: Consent) -> None:
    message = uuid4()
    assert await consent.ask(message) is Verdict.GRANTED
    await consent.withdraw()
    assert await consent.ask(message) is Verdict.DENIED


async def test_a_withdrawal_is_done_when_the_last_permit_comes_back(consent: Consent) -> None:
    first, second = uuid4(), uuid4()
    assert await consent.ask(first) is Verdict.GRANTED
    assert await consent.ask(second) is Verdict.GRANTED
    answered = asyncio.create_task(consent.settled(await consent.withdraw(), patience=30))
    await consent.give_back(first)
    done, _ = await asyncio.wait({answered}, timeout=3 * permits.POLL_SECONDS)
    assert not done
    await consent.give_back(second)
    assert await answered == (Outcome.DONE, 0)


async def test_asking_again_waits_as_the_first_time(consent: Consent) -> None:
    message = uuid4()
    assert await consent.ask(message) is Verdict.GRANTED
    assert await consent.settled(await consent.withdraw()) == (Outcome.IN_FLIGHT, 1)
    assert await consent.settled(await consent.withdraw()) == (Outcome.IN_FLIGHT, 1)
    await consent.give_back(message)
    assert await consent.settled(await consent.withdraw()) == (Outcome.DONE, 0)


async def test_a_permit_that_nobody_returns_counts_as_returned_after_the_quarantine(
    consent: Consent,
) -> None:
    assert await consent.ask(uuid4()) is Verdict.GRANTED
    assert await consent.settled(await consent.withdraw()) == (Outcome.IN_FLIGHT, 1)
    async with consent.engine.begin() as tx:
        await tx.execute(
            text("UPDATE consent_state SET changed_at = changed_at - interval '599 seconds'")
        )
    assert (await consent.settled(await consent.withdraw(), 0))[0] is Outcome.IN_FLIGHT
    async with consent.engine.begin() as tx:
        await tx.execute(
            text("UPDATE consent_state SET changed_at = changed_at - interval '1 second'")
        )
    assert (await consent.settled(await consent.withdraw(), 0))[0] is Outcome.DONE


async def test_the_quarantine_begins_anew_with_a_new_withdrawal(consent: Consent) -> None:
    assert await consent.ask(uuid4()) is Verdict.GRANTED
    await consent.withdraw()
    async with consent.engine.begin() as tx:
        await tx.execute(text("UPDATE consent_state SET changed_at = now() - interval '1 hour'"))
        assert await changes.grant(tx, consent.vault, opt_in(ANNA), WORDING, confirmed=True)
    assert await consent.ask(uuid4()) is Verdict.GRANTED
    assert await consent.settled(await consent.withdraw()) == (Outcome.IN_FLIGHT, 2)


async def test_a_newer_grant_supersedes_a_waiting_withdrawal(consent: Consent) -> None:
    assert await consent.ask(uuid4()) is Verdict.GRANTED
    withdrawal = await consent.withdraw()
    async with consent.engine.begin() as tx:
        assert await changes.grant(tx, consent.vault, opt_in(ANNA), WORDING, confirmed=True)
    assert (await consent.settled(withdrawal, patience=30))[0] is Outcome.SUPERSEDED


async def test_a_service_that_stops_tells_what_it_knows(consent: Consent) -> None:
    assert await consent.ask(uuid4()) is Verdict.GRANTED
    answered = asyncio.create_task(consent.settled(await consent.withdraw(), patience=30))
    consent.stopping.set()
    assert await answered == (Outcome.IN_FLIGHT, 1)


async def test_a_request_waits_for_a_withdrawal_that_was_first(
    consent: Consent, consent_database: DatabaseUrl
) -> None:
    """And so cannot read `granted` beside it, and open a permit that the 200 does not know of."""
    with closing(psycopg2.connect(consent_database.superuser_url)) as other:
        cursor = other.cursor()
        cursor.execute("SELECT id FROM consent.person FOR UPDATE")
        asked = asyncio.create_task(consent.ask(uuid4()))
        await somebody_waits(cursor)
        cursor.execute("UPDATE consent.consent_state SET state = 'withdrawn'")
        other.commit()
    assert await asked is Verdict.DENIED


async def test_a_withdrawal_waits_for_a_request_that_was_first_and_counts_its_permit(
    consent: Consent, consent_database: DatabaseUrl
) -> None:
    with closing(psycopg2.connect(consent_database.superuser_url)) as other:
        cursor = other.cursor()
        cursor.execute("SELECT id FROM consent.person FOR SHARE")
        withdrawn = asyncio.create_task(consent.withdraw())
        await somebody_waits(cursor)
        cursor.execute(
            "INSERT INTO consent.permit (message, attempt, person_id, granted_at)"
            " SELECT gen_random_uuid(), 1, id, now() FROM consent.person"
        )
        other.commit()
    assert (await withdrawn).standing.unreturned == 1


async def test_after_the_200_no_permit_is_in_anybody_s_hand(consent: Consent) -> None:
    """Withdrawals racing permit requests, over many people and orders of events."""
    chance = random.Random(20261125)
    in_hand: dict[str, set[UUID]] = {}
    granted = 0

    async def send(address: str) -> None:
        nonlocal granted
        message = uuid4()
        await asyncio.sleep(chance.random() * 0.03)
        if await consent.ask(message, address=address) is Verdict.GRANTED:
            granted += 1
            in_hand[address].add(message)
            await asyncio.sleep(chance.random() * 0.05)
            in_hand[address].remove(message)
            await consent.give_back(message)

    async def leave(address: str) -> None:
        await asyncio.sleep(chance.random() * 0.03)
        outcome, _ = await consent.settled(await consent.withdraw(address), patience=30)
        assert outcome is Outcome.DONE
        assert not in_hand[address]
        assert await consent.ask(uuid4(), address=address) is Verdict.DENIED

    for round_number in range(15):
        people = [f"person{round_number}.{number}@example.com" for number in range(4)]
        for address in people:
            in_hand[address] = set()
            assert await grant(consent.engine, consent.vault, address)
        senders = (send(address) for address in people for _ in range(4))
        await asyncio.gather(*senders, *map(leave, people))
    assert 0 < granted < 240  # the race went both ways


async def test_old_permits_and_suppressions_are_purged_and_young_ones_stay(
    consent: Consent,
) -> None:
    old, young = uuid4(), uuid4()
    for message in (old, young):
        await consent.give_back(message)
    async with consent.engine.begin() as tx:
        await consents.suppress(tx, {uuid4(): b"old", uuid4(): b"young"}, ["marketing"], 1)
        await tx.execute(
            text("UPDATE suppression SET keep_until = now() WHERE address_hash = 'old'")
        )
        await tx.execute(
            text(
                "UPDATE permit SET returned_at = now() - interval '31 days'"
                f" WHERE message = '{old}'"
            )
        )
    async with consent.engine.begin() as tx:
        assert await upkeep.purge(tx, 1825) == 2
        assert await upkeep.purge(tx, 1825) == 0
        assert not await consents.is_suppressed(tx, b"old", "marketing")
        assert await consents.is_suppressed(tx, b"young", "marketing")
    assert await consent.ask(young) is Verdict.CLOSED
