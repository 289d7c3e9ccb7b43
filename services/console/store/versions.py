"""The versions of the set of keys, who has which, and what a restored database lacks.

A version is a time in milliseconds, larger than the one before. All are kept: after a restore the
gateways have versions that are not among them, whatever was changed since.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.postgres import advisory_key
from services.console.messages import RefusedError
from services.console.store.sql import run

LOCK = advisory_key("console:keys")


class KeysRestoredError(RefusedError):
    fault = "restored_text"
    detail = (
        "a gateway has keys that this database lacks: it was restored from a backup; run "
        "`ostoja keys accept-restore`"
    )


@asynccontextmanager
async def people_change(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open the transaction of one change of people. It informs the gateways, for a restore."""
    async with change(engine) as tx:
        yield tx
        await advance(tx)


@asynccontextmanager
async def change(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open the transaction of one change of keys or people, alone; the caller begins a version.

    :raises KeysRestoredError:
    """
    async with engine.begin() as tx:
        await lock(tx)
        if await open_restores(tx):
            raise KeysRestoredError
        yield tx


@dataclass(frozen=True, slots=True)
class Version:
    epoch: str
    version: int


async def current(tx: AsyncConnection) -> Version:
    return Version(*(await run(tx, "current_version")).one())


async def lock(tx: AsyncConnection) -> None:
    """Let one change of the keys be under way: versions commit in the order of their numbers."""
    await run(tx, "lock_versions", lock=LOCK)


async def advance(tx: AsyncConnection, *, new_epoch: bool = False) -> Version:
    """Begin the next version; the caller has the lock."""
    asked = (await run(tx, "next_version")).scalar_one()
    last = await current(tx)
    number = max(last.version + 1, asked)
    fresh = Version(_epoch(number) if new_epoch else last.epoch, number)
    await run(tx, "add_version", **asdict(fresh))
    return fresh


def _epoch(version: int) -> str:
    """Return the name of an epoch that begins now; it sorts behind all others."""
    began = datetime.fromtimestamp(version / 1000, UTC)
    return f"{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


async def open_restores(tx: AsyncConnection) -> list[Any]:
    """Read what a gateway has and this database lacks: `epoch`, `version`, `held`, `people` and
    `noticed_at`.
    """
    return [
        each._replace(held=None if each.held is None else [*map(bytes, each.held)])
        for each in await run(tx, "open_restores")
    ]
