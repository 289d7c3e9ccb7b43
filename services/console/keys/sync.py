"""Gives each gateway process the keys in force, and learns from its next call that it has them.

A call is held until there is another version, for as long as it asks. One task looks at the version
for all who wait. A process that asks is noted, and one that was not seen for long no longer counts:
so the time in which this process, or the database, was away must not count as unseen.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.process import logs
from services.console import metrics
from services.console.store import keys, people, versions
from services.console.store.versions import KeysRestoredError, Version

log = logs.get_logger(__name__)

LOOK_SECONDS = 0.25
UNSEEING_SECONDS = 5.0
"""After this long without a look at the database, nobody has been seen meanwhile; and this much
later each gateway process, which asks every second, has been seen again."""


@dataclass(frozen=True, slots=True)
class Use:
    key_id: str
    at: datetime
    calls: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a gateway process has, and which keys it has seen since its last report."""

    process: str
    instance: str
    """Tells a process from its successor of the same name."""
    version: Version | None
    wait: float
    """Seconds for which the answer may be held."""
    used: Sequence[Use]
    held: list[bytes] | None
    """The digests in force there, if it was told that this database was restored."""
    people: dict[str, str] | None = None
    """What it was told of people (people.standing), likewise."""


class Sync:
    def __init__(self, engine: AsyncEngine, stopping: asyncio.Event) -> None:
        self._engine = engine
        self._stopping = stopping
        self._version: Version | None = None
        self._changed = asyncio.Event()
        self._looked_at = self._seeing_since = float("-inf")

    @property
    def settled(self) -> bool:
        """Return whether every gateway process that serves is noted."""
        now = time.monotonic()
        looked = now - self._looked_at < UNSEEING_SECONDS
        return looked and now - self._seeing_since >= UNSEEING_SECONDS

    async def run(self) -> None:
        """Look at the version. While the database is unavailable, waiters keep waiting."""
        while True:
            with postgres.through_outages():
                await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        async with self._engine.begin() as tx:
            if time.monotonic() - self._looked_at >= UNSEEING_SECONDS:
                await versions.see_all(tx)
                self._seeing_since = time.monotonic()
            found = await versions.current(tx)
        self._looked_at = time.monotonic()
        if found != self._version:
            self._version = found
            self._changed.set()
            self._changed = asyncio.Event()

    async def answer(self, report: Report) -> dict[str, Any] | None:
        """Return the keys in force; None if the process has them.

        :raises KeysRestoredError: some process has a version that this database does not know
        """
        await self._note(report)
        found = await self._newer(report.version)
        if found is None:
            await self._wait(report)
            found = await self._newer(report.version)
        return found

    async def leave(self, process: str, instance: str) -> None:
        async with self._engine.begin() as tx:
            await versions.leave(tx, process, instance)

    async def forget_unseen(self) -> None:
        async with self._engine.begin() as tx:
            await versions.forget_unseen(tx)

    async def _note(self, report: Report) -> None:
        """Commit before the keys are read: see keys.py."""
        has = report.version
        new = False
        async with self._engine.begin() as tx:
            # In one order everywhere, so that two processes do not wait for each other.
            for use in sorted(report.used, key=lambda use: use.key_id):
                await keys.used(tx, use.key_id, use.at, use.calls)
            number = has.version if has else 0
            await versions.seen(tx, report.process, report.instance, number)
            if has is not None and not await versions.is_known(tx, has):
                new = await versions.note_restore(tx, has, report.held, report.people)
        if new:
            log.error("keys.behind", process=report.process, epoch=has and has.epoch)

    async def _newer(self, has: Version | None) -> dict[str, Any] | None:
        async with self._engine.connect() as tx:
            restored = bool(await versions.open_restores(tx))
            metrics.KEYS_BEHIND.set(restored)
            if restored:
                raise KeysRestoredError
            # Before the keys: they may be newer than this version, and then are asked for again.
            version = await versions.current(tx)
            if version == has:
                return None
            found = {"keys": await keys.in_force(tx), "people": await people.standing(tx)}
        return {"epoch": str(version.epoch), "version": version.version, **found}

    async def _wait(self, report: Report) -> None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            async with asyncio.timeout(report.wait):
                while self._version in {None, report.version} and not self._stopping.is_set():
                    changed = asyncio.ensure_future(self._changed.wait())
                    await asyncio.wait({changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
        except TimeoutError:
            pass
        finally:
            stopping.cancel()
