"""Where a gateway keeps the console's keys, to start without it: a file, or Redis.

A new pod has no file. Redis keeps one copy for all gateways, signed with CONSOLE_INTERNAL_KEY:
whoever can write there can remove keys or restore an older copy, as anyone with an old disk can,
but cannot make keys.
"""

import asyncio
import fcntl
import hmac
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from libs.common.database.redis_pipeline import RedisPipeline

KEYS_IN_REDIS = Path("redis")
"""The value of KEYS_STATE_FILE for that."""
REDIS_KEY = "ostoja:keys"
CONNECTING = 40


class Kept(BaseModel):
    """What the console hands out and a store keeps."""

    epoch: str
    version: int
    """Grows from one change to the next, and from an epoch to the next."""
    keys: list[Any]
    people: dict[str, str] = {}
    """What the console wants back if its database is restored; nothing here reads it."""


class KeyFile:
    """Its methods, and those of `KeysInRedis`, raise OSError or ValueError."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def read(self) -> Kept | None:
        try:
            return Kept.model_validate_json(await asyncio.to_thread(self._file.read_bytes))
        except FileNotFoundError:
            return None

    async def keep(self, keys: Kept) -> None:
        """Return once these keys, or newer ones, are kept."""
        await asyncio.to_thread(self._write, keys)

    def _write(self, keys: Kept) -> None:
        """Write the file to the disk, unless another worker has written a newer one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(OSError, ValueError):
                if Kept.model_validate_json(self._file.read_bytes()).version >= keys.version:
                    return
            new = self._file.with_suffix(".new")
            new.unlink(missing_ok=True)
            new.touch(0o600)
            with new.open("wb") as written:
                written.write(keys.model_dump_json().encode())
                written.flush()
                os.fsync(written.fileno())
            new.replace(self._file)
            folder = os.open(self._file.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


class KeysInRedis:
    def __init__(self, redis: RedisPipeline, secret: str) -> None:
        self._redis = redis
        self._secret = secret.encode()

    async def read(self) -> Kept | None:
        for _ in range(CONNECTING):  # this is the first that a start asks
            if self._redis.connected:
                break
            await asyncio.sleep(0.05)
        if not (signed := await self._evaluate("0", b"", "")):
            return None
        if (kept := self._opened(signed)) is None:
            raise ValueError("the keys in Redis have another signature")
        return kept

    async def keep(self, keys: Kept) -> None:
        text = keys.model_dump_json().encode()
        signed = self._signature(text) + text
        for how in ("", "over"):  # over what we did not sign, or signed before: that is no race
            kept = self._opened(await self._evaluate(str(keys.version), signed, how))
            if kept is not None and kept.version >= keys.version:
                return
        raise OSError("Redis does not keep the keys")

    async def _evaluate(self, version: str, signed: bytes, how: str) -> bytes:
        """:raises OSError: Redis is unavailable"""
        found: list[bytes] = []
        await self._redis.evaluate("keep", (REDIS_KEY,), (version, signed, how), found.append)
        return found[0]

    def _opened(self, signed: bytes) -> Kept | None:
        signature, text = signed[:32], signed[32:]
        valid = hmac.compare_digest(signature, self._signature(text))
        return Kept.model_validate_json(text) if valid else None

    def _signature(self, text: bytes) -> bytes:
        return hmac.digest(self._secret, b"api keys\n" + text, "sha256")


KeyStore = KeyFile | KeysInRedis
