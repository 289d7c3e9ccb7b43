"""A withdrawal or an erasure from its transaction to its answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.batches import Batches
from libs.common.web import Problem, json_response
from services.consent import changes, erasures, permits
from services.consent.changes import Asked, AskForProof, Withdrawal
from services.consent.consent import PURPOSES, Action, Outcome
from services.consent.records import Records
from services.consent.settings import ConsentSettings
from services.consent.trail import Entry
from services.consent.vault import Vault

STATUS = {
    Outcome.DONE: 200,
    Outcome.IN_FLIGHT: 202,
    Outcome.SUPERSEDED: 409,
}


MAX_BATCH = 100


class Withdrawals:
    def __init__(
        self, engine: AsyncEngine, vault: Vault, settings: ConsentSettings, stopping: asyncio.Event
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._settings = settings
        self._stopping = stopping
        self._erased = Records(settings.consent_records_dir / erasures.FILE)
        self._batches = Batches(self._record, limit=MAX_BATCH)

    async def _record(
        self, asked: Sequence[Asked], purposes: Sequence[str] = PURPOSES
    ) -> list[Withdrawal]:
        async with self._engine.begin() as tx:
            return await changes.withdraw(
                tx,
                self._vault,
                asked,
                suppression_days=self._settings.suppression_retention_days,
                purposes=purposes,
            )

    async def withdraw(
        self, entry: Entry, *, erase: bool = False, ask_for_proof: AskForProof | None = None
    ) -> tuple[Withdrawal, Outcome, int]:
        """Withdraw every purpose."""
        withdrawal = await self._batches.ask(Asked(entry, erase, ask_for_proof))
        return withdrawal, *await self._settled(withdrawal)

    async def withdraw_some(self, entry: Entry, purposes: Sequence[str]) -> tuple[Outcome, int]:
        (withdrawal,) = await self._record([Asked(entry)], purposes)
        return await self._settled(withdrawal)

    async def _settled(self, withdrawal: Withdrawal) -> tuple[Outcome, int]:
        return await permits.settled(
            self._engine,
            withdrawal,
            patience=self._settings.withdrawal_wait_seconds,
            quarantine=self._settings.permit_quarantine_seconds,
            stopping=self._stopping,
        )

    async def erase(self, entry: Entry) -> tuple[Outcome, int]:
        """Withdraw, wait for permits as any withdrawal does, then forget the person.

        While a permit is out nobody is forgotten yet.
        """
        withdrawal, outcome, in_flight = await self.withdraw(entry, erase=True)
        if outcome is not Outcome.DONE:
            return outcome, in_flight
        erased = replace(entry, action=Action.ERASED)
        async with self._engine.begin() as tx:
            status = await changes.erase(tx, self._vault, erased, withdrawal, self._erased)
        return Outcome.DONE if status else Outcome.SUPERSEDED, in_flight


def answered(answer: dict[str, Any], outcome: Outcome, in_flight: int) -> web.Response:
    if outcome is Outcome.SUPERSEDED:
        raise Problem(
            409, detail="a newer consent was recorded meanwhile; ask again to withdraw it"
        )
    if outcome is Outcome.IN_FLIGHT:
        answer |= {"unsubscribed": True, "in_flight": in_flight}
    return json_response(answer, status=STATUS[outcome])
