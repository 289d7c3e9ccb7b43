"""A record of who was erased."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.followups.store.sql import run

KEPT_DAYS = 7
"""As in the inbox: longer than a submission may wait in a queue or in a browser."""


class Erased:
    """Remembers for a week who was erased, by keyed hashes: what they sent before is not stored.

    A submission that was accepted before the erasure may still be in a queue, in `.retry`, or in
    a running handler. So both transactions lock the contact before they do anything else:
    whichever is second sees the first.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        """:param keys: the first one hashes; any may have hashed"""
        self._keys = list(keys)

    @staticmethod
    async def lock(tx: AsyncConnection, contacts: Sequence[str]) -> None:
        """Prevent anyone from storing what these sent until this transaction ends."""
        await run(tx, "lock_erased", contacts=list(contacts))

    async def mark(self, tx: AsyncConnection, contacts: Sequence[str]) -> None:
        """Remember them, in the transaction that deletes their data and has locked them."""
        hashes = [self._hash(self._keys[0], contact) for contact in set(contacts)]
        await run(tx, "mark_erased", hashes=hashes)

    async def since(self, tx: AsyncConnection, contacts: Sequence[str], at: datetime) -> bool:
        """Return whether one of them was erased after this time; lock them until the end."""
        await self.lock(tx, contacts)
        hashes = [self._hash(key, contact) for key in self._keys for contact in contacts]
        return bool((await run(tx, "erased_since", hashes=hashes, at=at)).scalar_one())

    @staticmethod
    def _hash(key: bytes, contact: str) -> str:
        return hmac.digest(key, f"erased {contact}".encode(), hashlib.sha256).hex()
