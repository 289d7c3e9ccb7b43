"""Withdrawals of the same moment do not get into each other's way."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.process import logs
from services.consent.changes import WithdrawalRequest
from services.consent.recovery.journal import Journal
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import State, WithdrawalResult
from services.consent.settings import ConsentSettings
from services.consent.store import consents
from services.consent.store.vault import Vault
from services.consent.trail import chain
from services.consent.trail.append_only_file import AppendOnlyFile
from tests.integration.consent.conftest import (
    grant,
    unsubscribe,
    until_one_waits,
)
from tests.integration.consent.test_http import ANNA, Client, client, post
from tests.support.databases import DatabaseUrl

pytestmark = [pytest.mark.quick, pytest.mark.promise("P4")]

__all__ = ["client"]  # a fixture

PEOPLE = [f"person{number}@example.com" for number in range(30)]


@pytest.fixture
def withdrawals(engine: AsyncEngine, vault: Vault, settings: ConsentSettings) -> Withdrawals:
    return Withdrawals(engine, vault, settings, asyncio.Event(), Journal(engine, vault, settings))


async def scalars(engine: AsyncEngine, statement: str) -> list[Any]:
    async with engine.begin() as tx:
        return list((await tx.execute(text(statement))).scalars())


async def test_concurrent_withdrawals_are_all_recorded_and_published(
    engine: AsyncEngine,
    vault: Vault,
    settings: ConsentSettings,
    withdrawals: Withdrawals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    updates: list[Path] = []
    newest = AppendOnlyFile.newest

    def counted(file: AppendOnlyFile, model: Any) -> Any:
        updates.append(file.path)
        return newest(file, model)

    monkeypatch.setattr(AppendOnlyFile, "newest", counted)
    journal = settings.consent_records_dir / "withdrawals.jsonl"
    for email in PEOPLE[:3]:
        await grant(engine, vault, email)
    asked = [*PEOPLE, *PEOPLE[:10]]  # some twice: someone who clicks again

    async def ask(number: int, email: str) -> WithdrawalResult:
        logs.request_id.set(f"request-{number}")
        outcome, _ = await withdrawals.withdraw(WithdrawalRequest(unsubscribe(email)))
        assert vault.lookup_hash(email).hex() in journal.read_text(encoding="utf-8")
        return outcome

    answers = await asyncio.gather(*(ask(number, each) for number, each in enumerate(asked)))
    assert answers == [WithdrawalResult.DONE] * len(asked)
    async with engine.begin() as tx:
        for email in PEOPLE:
            assert await consents.states(tx, vault.lookup_hash(email)) == {
                "marketing": State.WITHDRAWN
            }
    events = await scalars(
        engine, "SELECT (headers || body)::text FROM outbox WHERE type = 'consent.withdrawn'"
    )
    assert len(events) == len(asked)
    for number, email in enumerate(asked):
        assert any(f'"request-{number}"' in each and email in each for each in events)
    assert (await chain.verify(engine)).reached.rows == 3 + len(asked)
    assert len(updates) < len(asked)  # those that wait for the journal share its next update


async def test_a_locked_subject_does_not_block_other_withdrawals(
    client: Client, consent_database: DatabaseUrl
) -> None:
    """Even with more requests for that subject than there are connections."""
    await post(client, "/api/unsubscribe", {"email": ANNA})
    with closing(psycopg2.connect(consent_database.superuser_url)) as other:
        cursor = other.cursor()
        cursor.execute("SELECT id FROM consent.data_subject FOR UPDATE")
        locked = [
            asyncio.create_task(post(client, "/api/unsubscribe", {"email": ANNA}))
            for _ in range(30)
        ]
        await until_one_waits(cursor)
        others = [
            post(client, "/api/unsubscribe", {"email": f"jan{number}@example.com"})
            for number in range(50)
        ]
        async with asyncio.timeout(30):
            assert {status for status, _ in await asyncio.gather(*others)} == {200}
        assert not any(task.done() for task in locked)
        other.rollback()
        assert {status for status, _ in await asyncio.gather(*locked)} == {200}
