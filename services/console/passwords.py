"""Password hashes: argon2id, in threads, few at a time."""

import asyncio
import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

T = TypeVar("T")

AT_ONCE = 2
"""Each takes a core for 30 ms and 19 MiB."""
MOST_WAITING = 16


class TooManyError(Exception):
    """too many people log in at once; try again in a moment"""


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._running = asyncio.Semaphore(AT_ONCE)
        self._inside = 0
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        return await self._run(self._hasher.hash, password)

    async def verify(self, found: str | None, password: str) -> bool:
        """:param found: the hash; None: verify another one all the same, which takes as long"""
        try:
            await self._run(self._hasher.verify, found or self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return False
        return found is not None

    def is_old(self, found: str) -> bool:
        return self._hasher.check_needs_rehash(found)

    async def _run(self, work: Callable[..., T], *arguments: str) -> T:
        """:raises TooManyError: as many wait as may"""
        if self._inside >= AT_ONCE + MOST_WAITING:
            raise TooManyError
        self._inside += 1
        try:
            async with self._running:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._inside -= 1
