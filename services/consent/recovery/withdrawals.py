"""Withdrawals and erasures, from the request to the answer. changes.py writes rows and trail."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncEngine

from services.consent import changes, permits
from services.consent.changes import Note, Withdrawal, WithdrawalRequest
from services.consent.recovery.journal import Journal
from services.consent.rules import Action, WithdrawalResult
from services.consent.settings import ConsentSettings
from services.consent.store.data_subjects import parse_subject
from services.consent.store.vault import Vault
from services.consent.trail.chain import Entry


class Answer(NamedTuple):
    result: WithdrawalResult
    in_flight: int = 0
    """The number of unreturned permits."""


@dataclass
class Withdrawals:
    engine: AsyncEngine
    vault: Vault
    settings: ConsentSettings
    stopping: asyncio.Event
    journal: Journal
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def withdraw(self, request: WithdrawalRequest) -> Answer:
        return (await self._withdraw(request))[1]

    async def _withdraw(self, request: WithdrawalRequest) -> tuple[Withdrawal, Answer]:
        async with self._lock(request.entry.email), self.engine.begin() as tx:
            withdrawal = await changes.withdraw(
                tx,
                self.vault,
                request,
                suppression_days=self.settings.suppression_retention_days,
            )
        await self.journal.record()
        result, in_flight = await permits.wait_until_answerable(
            self.engine,
            withdrawal,
            patience=self.settings.withdrawal_wait_seconds,
            quarantine=self.settings.permit_quarantine_seconds,
            stopping=self.stopping,
        )
        return withdrawal, Answer(result, in_flight)

    def _lock(self, identity: str) -> asyncio.Lock:
        """Run one transaction per subject at a time: a locked subject takes one connection, not
        all.

        :raises ValueError: neither an e-mail address nor a number
        """
        return self._locks.setdefault(parse_subject(identity).identity, asyncio.Lock())

    async def erase(self, entry: Entry, note: Note | None = None) -> Answer:
        """Withdraw, wait for permits as any withdrawal does, then erase the subject.

        Nothing is erased while a permit is unreturned, or the processing is restricted.
        """
        withdrawal, answer = await self._withdraw(WithdrawalRequest(entry, erase=True, note=note))
        if answer.result is not WithdrawalResult.DONE:
            return answer
        erased = replace(entry, action=Action.ERASED)
        async with self.engine.begin() as tx:
            result = await changes.erase(tx, self.vault, erased, withdrawal)
        await self.journal.record()
        return answer._replace(result=result)
