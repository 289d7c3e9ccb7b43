"""Withdrawals of the same moment share a transaction, and each is answered as if it were alone."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import logs
from services.consent import trail
from services.consent.consent import Outcome, State
from services.consent.settings import ConsentSettings
from services.consent.store import consents, people
from services.consent.store.people import Lock
from services.consent.vault import Vault
from services.consent.withdrawals import Withdrawals
from tests.integration.consent.conftest import BOTH_DRIVERS, grant, unsubscribe, withdraw

PEOPLE = [f"person{number}@example.com" for number in range(30)]


@pytest.fixture
def withdrawals(engine: AsyncEngine, vault: Vault, settings: ConsentSettings) -> Withdrawals:
    return Withdrawals(engine, vault, settings, asyncio.Event())


async def scalars(engine: AsyncEngine, statement: str) -> list[Any]:
    async with engine.begin() as tx:
        return list((await tx.execute(text(statement))).scalars())


@BOTH_DRIVERS
async def test_many_at_once_share_few_commits_and_each_person_is_withdrawn_and_told(
    engine: AsyncEngine, vault: Vault, withdrawals: Withdrawals
) -> None:
    for email in PEOPLE[:3]:
        await grant(engine, vault, email)
    asked = [*PEOPLE, *PEOPLE[:10]]  # some twice: a person who clicks again
    answers = await asyncio.gather(*(withdrawals.withdraw(unsubscribe(each)) for each in asked))

    assert [outcome for _, outcome, _ in answers] == [Outcome.DONE] * len(asked)
    who = {
        email: withdrawal.person_id for email, (withdrawal, *_) in zip(asked, answers, strict=True)
    }
    assert len(set(who.values())) == len(PEOPLE)
    async with engine.begin() as tx:
        for email, person_id in who.items():
            assert await consents.states(tx, vault.address_hash(email)) == {
                "marketing": State.WITHDRAWN
            }
            assert (await people.find(tx, vault, email)).id == person_id  # type: ignore[union-attr]
    told = await scalars(
        engine, "SELECT body ->> 'email' FROM outbox WHERE type = 'consent.withdrawn'"
    )
    assert sorted(told) == sorted(asked)
    commits = await scalars(
        engine, "SELECT DISTINCT CAST(xmin AS text) FROM consent_audit_log WHERE action <> 'opt-in'"
    )
    assert len(commits) <= 3
    assert (await trail.verify(engine)).reached.rows == 3 + len(asked)


async def test_what_is_told_carries_the_id_of_the_request_that_asked(
    engine: AsyncEngine, withdrawals: Withdrawals
) -> None:
    async def ask(number: int) -> None:
        logs.request_id.set(f"request-{number}")
        await withdrawals.withdraw(unsubscribe(PEOPLE[number]))

    await asyncio.gather(*(ask(number) for number in range(5)))
    told = await scalars(
        engine, "SELECT (headers || body)::text FROM outbox WHERE type = 'consent.withdrawn'"
    )
    for number in range(5):
        assert any(f"request-{number}" in each and PEOPLE[number] in each for each in told)


async def test_a_person_whose_key_cannot_be_read_does_not_take_the_others_with_them(
    engine: AsyncEngine, vault: Vault, withdrawals: Withdrawals
) -> None:
    for email in PEOPLE[:5]:
        await grant(engine, vault, email)
    async with engine.begin() as tx:
        await tx.execute(
            text("UPDATE person SET master_key_id = 'lost' WHERE address_hash = :hash"),
            {"hash": vault.address_hash(PEOPLE[2])},
        )
    answers = await asyncio.gather(
        *(withdrawals.withdraw(unsubscribe(email)) for email in PEOPLE[:5]), return_exceptions=True
    )
    assert [isinstance(each, KeyError) for each in answers] == [False, False, True, False, False]


async def test_two_processes_with_the_same_people_in_another_order_do_not_lock_each_other(
    engine: AsyncEngine, vault: Vault
) -> None:
    async def one(order: list[str]) -> None:
        async with engine.begin() as tx:
            await people.enter_all(tx, vault, order, Lock.CHANGE)
            await withdraw(tx, vault, unsubscribe(order[0]))

    turns = (PEOPLE if number % 2 else PEOPLE[::-1] for number in range(10))
    await asyncio.gather(*(one(order) for order in turns))
    assert (await trail.verify(engine)).reached.rows == 10
