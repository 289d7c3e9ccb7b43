"""Password hashes: argon2id, in threads, few at a time; and whether a password is too weak."""

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from services.console.messages import RefusedError
from services.console.rules import LONGEST, SHORTEST

T = TypeVar("T")

AT_ONCE = 2
"""Each takes a core for 30 ms and 19 MiB."""
MOST_WAITING = 16
JUDGED = 24
"""Letters. The work grows fast with more: of these 0.1 s at worst."""
STRONG = 3
"""zxcvbn: 10^8 guesses or more."""


class TooManyError(Exception):
    """too many people log in at once; try again in a moment"""


class WeakPasswordError(RefusedError):
    """too short, too long or too weak"""

    status = 422


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._running = asyncio.Semaphore(AT_ONCE)
        self._inside = 0
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    async def new(self, password: str, *known: str) -> str:
        """Return the hash of a password that somebody chose.

        :param known: what an attacker tries first, such as the person's name
        :raises WeakPasswordError:
        """
        if not SHORTEST <= len(password) <= LONGEST:
            raise WeakPasswordError("too_short" if len(password) < SHORTEST else "too_long")
        if await self._run(_score, password[:JUDGED], *known) < STRONG:
            raise WeakPasswordError("too_weak")
        return await self.hash(password)

    async def hash(self, password: str) -> str:
        return await self._run(self._hasher.hash, password)

    async def verify(self, found: str | None, password: str) -> bool:
        """:param found: the hash; None: verify another one anyway, which takes as long"""
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


def _score(password: str, *known: str) -> int:
    words = [word for text in known for word in (text, *re.findall(r"\w{3,}", text))]
    score: int = zxcvbn(password, user_inputs=words)["score"]
    return score
