"""Withdrawals of the same moment do not get into each other's way."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from libs.common.process import logs
from services.consent.changes import WithdrawalRequest
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import WithdrawalResult
from services.consent.trail import chain
from services.consent.trail.append_only_file import AppendOnlyFile
from tests.integration.consent.conftest import ANNA, Consent, unsubscribe, until_one_waits

pytestmark = [pytest.mark.quick, pytest.mark.promise("P4")]


PEOPLE = [f"person{number}@example.com" for number in range(30)]


async def test_concurrent_withdrawals_are_all_recorded_and_published(
    consent: Consent, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawals = Withdrawals(
        consent.engine, consent.vault, consent.settings, consent.stopping, consent.journal
    )
    updates: list[Path] = []
    newest = AppendOnlyFile.newest

    def counted(file: AppendOnlyFile, model: Any) -> Any:
        updates.append(file.path)
        return newest(file, model)

    monkeypatch.setattr(AppendOnlyFile, "newest", counted)
    journal = consent.settings.consent_records_dir / "withdrawals.jsonl"
    for email in PEOPLE[:3]:
        await consent.grant(email)
    asked = [*PEOPLE, *PEOPLE[:10]]  # some twice: someone who clicks again

    async def ask(number: int, email: str) -> WithdrawalResult:
        logs.request_id.set(f"request-{number}")
        outcome, _ = await withdrawals.withdraw(WithdrawalRequest(unsubscribe(email)))
        assert consent.vault.lookup_hash(email).hex() in journal.read_text(encoding="utf-8")
        return outcome

    answers = await asyncio.gather(*(ask(number, each) for number, each in enumerate(asked)))
    assert answers == [WithdrawalResult.DONE] * len(asked)
    for email in PEOPLE:
        assert await consent.states(email) == {"marketing": "withdrawn"}
    rows = await consent.rows(
        "SELECT (headers || body)::text AS told FROM outbox WHERE type = 'consent.withdrawn'"
    )
    events = [row.told for row in rows]
    assert len(events) == len(asked)
    for number, email in enumerate(asked):
        assert any(f'"request-{number}"' in each and email in each for each in events)
    assert (await chain.verify(consent.engine)).reached.rows == 3 + len(asked)
    assert len(updates) < len(asked)  # those that wait for the journal share its next update


async def test_a_locked_subject_does_not_block_other_withdrawals(consent: Consent) -> None:
    """Even with more requests for that subject than there are connections."""
    await consent.post("/api/unsubscribe", {"email": ANNA})
    with consent.elsewhere() as cursor:
        cursor.execute("SELECT id FROM consent.data_subject FOR UPDATE")
        locked = [
            asyncio.create_task(consent.post("/api/unsubscribe", {"email": ANNA}))
            for _ in range(30)
        ]
        await until_one_waits(cursor)
        others = [
            consent.post("/api/unsubscribe", {"email": f"jan{number}@example.com"})
            for number in range(50)
        ]
        async with asyncio.timeout(30):
            assert {status for status, _ in await asyncio.gather(*others)} == {200}
        assert not any(task.done() for task in locked)
        cursor.connection.rollback()
        assert {status for status, _ in await asyncio.gather(*locked)} == {200}
