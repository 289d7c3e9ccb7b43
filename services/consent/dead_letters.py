"""Consent's own dead letters: exports list those that name a subject, erasures remove them."""

from contextlib import suppress
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging.broker import Broker, BrokerUnavailable
from libs.common.messaging.dead_letters import DeadLetter, DeadLetters
from libs.domain.mentions import emails, phones, strings
from services.consent import topology
from services.consent.store.sql import run
from services.consent.store.vault import Vault


class SubjectDeadLetters:
    def __init__(self, engine: AsyncEngine, broker: Broker, vault: Vault) -> None:
        self._vault = vault
        self._dead_letters = DeadLetters(
            engine,
            broker,
            topology.COMMANDS_QUEUE,
            topology.PERMITS_QUEUE,
        )

    async def naming(self, identity: str) -> list[dict[str, Any]]:
        """Return the dead letters that name this address or number.

        :raises BrokerUnavailable: not all were read
        """
        found = []

        async def look(_: AsyncConnection, letter: DeadLetter) -> bool:
            if identity in _identities(letter):
                found.append(letter.record())
            return False

        await self._dead_letters.sift(look)
        return found

    async def remove_erased(self) -> int:
        """Remove letters that were sent before a subject in them was erased.

        :raises BrokerUnavailable: not all were read
        """
        return await self._dead_letters.sift(self._is_erased)

    async def upkeep(self) -> None:
        """Remove letters that were out of reach during their subject's erasure."""
        with suppress(BrokerUnavailable):
            await self.remove_erased()

    async def _is_erased(self, tx: AsyncConnection, letter: DeadLetter) -> bool:
        hashes = [self._vault.suppression_hash(each) for each in _identities(letter)]
        return bool(await run(tx, "erased_since", hashes=hashes, at=letter.sent_at))


def _identities(letter: DeadLetter) -> set[str]:
    return {each for text in strings(letter.payload()) for each in emails(text) | phones(text)}
