"""The versions of the set of keys, who has which, and what a restored database lacks.

A version is a time in milliseconds, larger than the one before. All are kept: after a restore the
gateways have versions that are not among them, whatever was changed since.
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.postgres import advisory_key
from services.console.rules import RefusedError
from services.console.store.tables import key_reader, key_restore, key_version

LOCK = advisory_key("console:keys")
HELD = sa.exists().where(key_restore.c.accepted_at.is_(None))
"""Whether this database was restored from a backup, and nobody has accepted that yet."""
UNSEEN_SECONDS = 600
"""A gateway process that was not seen for this long is assumed to serve nobody."""
REPLACED_SECONDS = 30
"""The same, of one that has a successor of its name."""


class KeysRestoredError(RefusedError):
    """a gateway has keys that this database lacks: it was restored from a backup; run
    `ostoja keys accept-restore`
    """

    fault = "restored_text"


@asynccontextmanager
async def people_change(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open the transaction of one change of people. Gateways hear of it, for a restore."""
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


@dataclass(frozen=True, slots=True)
class Reader:
    process: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Restore:
    """What a gateway has and this database lacks."""

    epoch: str
    version: int
    held: Sequence[bytes] | None
    people: Mapping[str, str] | None
    noticed_at: datetime


async def current(tx: AsyncConnection) -> Version:
    table = key_version.c
    found = await tx.execute(
        sa.select(table.epoch, table.version).order_by(table.version.desc()).limit(1)
    )
    return Version(*found.one())


async def lock(tx: AsyncConnection) -> None:
    """Let one change of the keys be under way: versions commit in the order of their numbers."""
    await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))


async def advance(tx: AsyncConnection, *, new_epoch: bool = False) -> Version:
    """Begin the next version; the caller has the lock."""
    now = sa.func.floor(sa.extract("epoch", sa.func.clock_timestamp()) * 1000)
    restored = sa.select(sa.func.max(key_restore.c.version)).scalar_subquery()
    asked = await tx.execute(sa.select(sa.func.greatest(now, restored + 1)))  # ignores NULL
    last = await current(tx)
    number = max(last.version + 1, int(asked.scalar_one()))
    fresh = Version(_epoch(number) if new_epoch else last.epoch, number)
    await tx.execute(sa.insert(key_version).values(epoch=fresh.epoch, version=fresh.version))
    return fresh


def _epoch(version: int) -> str:
    """Return the name of an epoch that begins now; it sorts behind all others."""
    began = datetime.fromtimestamp(version / 1000, UTC)
    return f"{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


async def is_known(tx: AsyncConnection, version: Version) -> bool:
    known = sa.union_all(
        *(
            sa.select(sa.true()).where(
                table.c.epoch == version.epoch, table.c.version == version.version, *more
            )
            for table, more in (
                (key_version, ()),
                (key_restore, (key_restore.c.accepted_at.is_not(None),)),
            )
        )
    )
    return (await tx.execute(known.limit(1))).first() is not None


async def seen(tx: AsyncConnection, process: str, instance: str, version: int) -> None:
    """Note that a process has this version."""
    values = {"version": version, "seen_at": sa.func.clock_timestamp()}
    statement = insert(key_reader).values(process=process, instance=instance, **values)
    await tx.execute(
        statement.on_conflict_do_update(index_elements=["process", "instance"], set_=values)
    )


async def leave(tx: AsyncConnection, process: str, instance: str) -> None:
    table = key_reader.c
    await tx.execute(
        sa.delete(key_reader).where(table.process == process, table.instance == instance)
    )


async def readers(tx: AsyncConnection) -> list[tuple[Reader, int]]:
    """Return each process that may serve, with its version."""
    table, successor = key_reader.c, key_reader.alias("successor")
    replaced = sa.exists().where(
        successor.c.process == table.process, successor.c.seen_at > table.seen_at
    )
    found = await tx.execute(
        sa.select(table.process, table.seen_at, table.version)
        .where(table.seen_at > _ago(UNSEEN_SECONDS))
        .where((table.seen_at > _ago(REPLACED_SECONDS)) | ~replaced)
        .order_by(table.process)
    )
    return [(Reader(process, seen_at), version) for process, seen_at, version in found]


def _ago(seconds: int) -> Any:
    return sa.func.now() - sa.text(f"interval '{seconds} seconds'")


async def see_all(tx: AsyncConnection) -> None:
    """Count each process as seen now: nobody could be seen until now."""
    await tx.execute(sa.update(key_reader).values(seen_at=sa.func.now()))


async def forget_unseen(tx: AsyncConnection) -> None:
    """Delete readers of the day before; `readers` has left them out since long."""
    await tx.execute(sa.delete(key_reader).where(key_reader.c.seen_at < _ago(24 * 3600)))


async def note_restore(
    tx: AsyncConnection, lacking: Version, held: list[bytes] | None, people: Any
) -> bool:
    """Note a version that this database lacks.

    :returns: whether it was not noted yet
    """
    found = {"held": held, "people": sa.null() if people is None else people}
    statement = insert(key_restore).values(epoch=lacking.epoch, version=lacking.version, **found)
    new, old = statement.excluded, key_restore.c
    keep = {name: sa.func.coalesce(new[name], old[name]) for name in found}
    done: sa.Result[tuple[bool]] = await tx.execute(
        statement.on_conflict_do_update(index_elements=["epoch", "version"], set_=keep).returning(
            sa.literal_column("xmax = 0")  # inserted, not updated
        )
    )
    return bool(done.scalar_one())


async def open_restores(tx: AsyncConnection) -> list[Restore]:
    table = key_restore.c
    found = await tx.execute(
        sa.select(table.epoch, table.version, table.held, table.people, table.noticed_at)
        .where(table.accepted_at.is_(None))
        .order_by(table.noticed_at)
    )
    return [
        Restore(epoch, version, None if held is None else [*map(bytes, held)], people, at)
        for epoch, version, held, people, at in found
    ]


async def accept_restores(tx: AsyncConnection) -> None:
    await tx.execute(
        sa.update(key_restore)
        .where(key_restore.c.accepted_at.is_(None))
        .values(accepted_at=sa.func.now())
    )
