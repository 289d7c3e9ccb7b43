"""Gives each gateway process the keys in force, and learns from its next call that it has them.

A call waits until there is another version, for as long as it asks. One task polls the version for
all waiters. A process that asks is noted, and one that was not seen for long no longer counts. So
time in which this process, or the database, was away must not count as unseen.
"""

import asyncio
import time
from dataclasses import asdict
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.process.logs import log
from services.console import metrics
from services.console.messages import Report
from services.console.store import people, versions
from services.console.store.sql import run
from services.console.store.versions import KeysRestoredError, Version

LOOK_SECONDS = 0.25
UNSEEING_SECONDS = 5.0
"""A longer gap between polls of the database says nothing about gateways; and this much later each
gateway process, which asks every second, has been seen again."""


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
        """Poll the version. While the database is unavailable, waiters keep waiting."""
        while True:
            with postgres.through_outages():
                await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        async with self._engine.begin() as tx:
            if time.monotonic() - self._looked_at >= UNSEEING_SECONDS:
                await run(tx, "see_all")
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
        has = Version(report.epoch, report.version) if report.epoch else None
        await self._note(report, has)
        found = await self._newer(has)
        if found is None:
            await self._wait(report.wait, has)
            found = await self._newer(has)
        return found

    async def leave(self, process: str, instance: str) -> None:
        await run.alone(self._engine, "leave", process=process, instance=instance)

    async def _note(self, report: Report, has: Version | None) -> None:
        """Commit before the keys are read: see keys.py."""
        new = False
        async with self._engine.begin() as tx:
            # In one order everywhere, so that two processes do not wait for each other.
            for use in sorted(report.used, key=lambda use: use.id):
                await run(tx, "use_key", key=use.id, at=use.at, calls=use.calls)
            who = {"process": report.process, "instance": report.instance}
            await run(tx, "see_reader", **who, version=has.version if has else 0)
            if has is not None and not (await run(tx, "is_known", **asdict(has))).scalar():
                held = None if report.held is None else [*map(bytes.fromhex, report.held)]
                lacking = {**asdict(has), "held": held, "people": report.people}
                new = bool((await run(tx, "note_restore", **lacking)).scalar_one())
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
            keys = [each._asdict() for each in await run(tx, "keys_in_force")]
            found = {"keys": keys, "people": await people.standing(tx)}
        return {"epoch": str(version.epoch), "version": version.version, **found}

    async def _wait(self, seconds: float, has: Version | None) -> None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            async with asyncio.timeout(seconds):
                while self._version in {None, has} and not self._stopping.is_set():
                    changed = asyncio.ensure_future(self._changed.wait())
                    await asyncio.wait({changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
        except TimeoutError:
            pass
        finally:
            stopping.cancel()
