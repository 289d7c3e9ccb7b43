"""Data subjects: the row that every change locks, and the key that encrypts a subject's data."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.sql import run
from services.consent.store.tables import (
    consent_state,
    erasure,
    link_mail,
    permit,
    preference,
    restriction,
    suppression,
    undeliverable,
)
from services.consent.store.vault import SubjectKey, Vault, WrappedKey


@dataclass(frozen=True, slots=True)
class SubjectRow:
    id: UUID
    wrapped_key: WrappedKey

    def key(self, vault: Vault) -> SubjectKey:
        return vault.unwrap(self.id, self.wrapped_key)


class Lock:
    """How a transaction locks the subject's row (protocol B, step 3)."""

    PERMIT: Final = "find_for_share"
    CHANGE: Final = "find_for_update"
    NONE: Final = "find"


async def find(
    tx: AsyncConnection, vault: Vault, identity: str, lock: str = Lock.NONE
) -> SubjectRow | None:
    return _row((await run(tx, lock, hash=vault.lookup_hash(identity))).one_or_none())


def _row(row: Any) -> SubjectRow | None:
    return row and SubjectRow(row.id, WrappedKey(row.master_key_id, row.wrapped_key))


async def find_by_id(tx: AsyncConnection, subject_id: UUID) -> SubjectRow | None:
    """Find a subject who was not erased."""
    return _row((await run(tx, "find_by_id", subject=subject_id)).one_or_none())


async def get_or_create(tx: AsyncConnection, vault: Vault, identity: str, lock: str) -> SubjectRow:
    """Lock the subject's row; create it first if the subject is new.

    The row must exist before anything is decided, because a missing row cannot be locked. A known
    address takes the same steps, so that timing does not reveal it.
    """
    while True:
        await _insert(tx, vault, uuid4(), vault.lookup_hash(identity))
        if row := await find(tx, vault, identity, lock):
            return row


async def create_by_hash(
    tx: AsyncConnection, vault: Vault, subject_id: UUID, lookup_hash: bytes
) -> UUID:
    """Create a subject known only by its hash.

    :returns: this id, or the one that already has the hash
    """
    await _insert(tx, vault, subject_id, lookup_hash)
    known_id: UUID = (await run(tx, Lock.NONE, hash=lookup_hash)).one().id
    return known_id


async def _insert(tx: AsyncConnection, vault: Vault, subject_id: UUID, lookup_hash: bytes) -> None:
    _, wrapped = vault.new_key(subject_id)
    key = {"master": wrapped.master_key_id, "key": wrapped.wrapped}
    await run(tx, "insert_subject", id=subject_id, hash=lookup_hash, **key)


async def lock(tx: AsyncConnection, subject_id: UUID) -> None:
    await run(tx, "lock_subject", subject=subject_id)


async def rewrap(
    tx: AsyncConnection, vault: Vault, after: bytes, batch: int
) -> tuple[int, bytes | None]:
    """Wrap some subjects' keys with the current master key.

    :param after: the lookup hash up to which that is done
    :returns: how many, and the hash to continue after; None at the end
    :raises KeyError: one is wrapped with a master key that is not configured
    """
    rows = await run(tx, "wrapped_before", hash=after, current=vault.current, batch=batch)
    if not rows:
        return 0, None
    keys = [vault.rewrap(row.id, WrappedKey(row.master_key_id, row.wrapped_key)) for row in rows]
    await run(
        tx,
        "rewrap",
        current=vault.current,
        ids=[str(row.id) for row in rows],
        wrapped=[key.wrapped for key in keys],
    )
    return len(rows), rows[-1].lookup_hash


async def restricted(tx: AsyncConnection, subject_id: UUID) -> Any:
    """Return `since` and `kept` of a restriction in force."""
    return (await run(tx, "restricted", subject=subject_id)).one_or_none()


async def restricted_since(tx: AsyncConnection, vault: Vault, identity: str) -> datetime | None:
    row = await find(tx, vault, identity)
    found = row and await restricted(tx, row.id)
    return found.since if found else None


async def forget(tx: AsyncConnection, subject_id: UUID) -> None:
    """Delete hash and key, without which the remaining rows identify no one."""
    await run(tx, "forget", subject=subject_id)


_STORED: Final[dict[str, tuple[sa.Column[Any], str]]] = {
    "states": (consent_state.c.subject_id, "purpose state version changed_at"),
    "restrictions": (restriction.c.subject_id, "since"),
    "permits": (permit.c.subject_id, "message attempt purpose granted_at returned_at"),
    "preferences": (preference.c.subject_id, "purpose paused_until days"),
    "undeliverable": (undeliverable.c.subject_id, "since takes_mail"),
    "suppressions": (suppression.c.suppression_hash, "purpose created_at keep_until"),
    "link_mails": (link_mail.c.suppression_hash, "kind first_at last_at count"),
    "erasures": (erasure.c.suppression_hash, "status requested_at confirmed_at finished_at"),
}


async def stored_data(
    tx: AsyncConnection, subject_id: UUID | None, suppression_hash: bytes
) -> dict[str, list[dict[str, Any]]]:
    """Read a subject's records outside the trail, by kind, for an export.

    :param suppression_hash: what it finds may outlive the subject's row
    """
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _STORED}
    for kind, (column, names) in _STORED.items():
        whose = subject_id if column.name == "subject_id" else suppression_hash
        if whose is None:  # as a condition it would find the tombstones of permits
            continue
        shown = (column.table.c[name] for name in names.split())
        rows = (await tx.execute(sa.select(*shown).where(column == whose))).mappings()
        found[kind] = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


async def known(tx: AsyncConnection, subject_ids: Iterable[UUID]) -> dict[UUID, bool]:
    """Return, for each id that has a row, whether the subject is not erased."""
    rows = await run(tx, "known", ids=[str(subject_id) for subject_id in subject_ids])
    return {row.id: row.alive for row in rows}
