"""Data subjects: the row that every change locks, and the key that encrypts a subject's data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.domain import phone_number
from libs.domain.email_address import normalise
from services.consent.rules import Subject
from services.consent.store.sql import run
from services.consent.store.vault import SubjectKey, Vault, WrappedKey


def channel_of(identity: str) -> str:
    """Return the means of contact by which this address or number is reached."""
    return "email" if "@" in identity else "phone"


def parse_subject(text: str) -> Subject:
    """Read an e-mail address or a phone number.

    :raises ValueError: it is neither
    """
    if "@" in text:
        return Subject(email=normalise(text))
    return Subject(phone=phone_number.normalise(text))


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
        await insert(tx, vault, uuid4(), vault.lookup_hash(identity))
        if row := await find(tx, vault, identity, lock):
            return row


async def insert(tx: AsyncConnection, vault: Vault, subject_id: UUID, lookup_hash: bytes) -> None:
    """Add a subject with a key of its own, unless one has this hash."""
    _, wrapped = vault.new_key(subject_id)
    key = {"master": wrapped.master_key_id, "key": wrapped.wrapped}
    await run(tx, "insert_subject", id=subject_id, hash=lookup_hash, **key)


async def restricted(tx: AsyncConnection, subject_id: UUID) -> Any:
    """Return `since` and `kept` of a restriction in force."""
    return (await run(tx, "restricted", subject=subject_id)).one_or_none()


async def known(tx: AsyncConnection, subject_ids: Iterable[UUID]) -> dict[UUID, bool]:
    """Return, for each id that has a row, whether the subject is not erased."""
    rows = await run(tx, "known", ids=[str(subject_id) for subject_id in subject_ids])
    return {row.id: row.alive for row in rows}
