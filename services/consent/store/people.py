"""Who a person is: the row that every change locks, and the key that seals what is kept of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.tables import (
    consent_state,
    erasure,
    link_mail,
    opt_in,
    permit,
    person,
    suppression,
)
from services.consent.vault import PersonKey, Vault, WrappedKey


@dataclass(frozen=True, slots=True)
class Person:
    id: UUID
    wrapped_key: WrappedKey

    def key(self, vault: Vault) -> PersonKey:
        return vault.unwrap(self.id, self.wrapped_key)


class Lock:
    """How a transaction holds the person's row (protocol B, step 3)."""

    PERMIT: Final = "FOR SHARE"
    CHANGE: Final = "FOR UPDATE"
    NONE: Final = ""


_FIND = "SELECT id, master_key_id, wrapped_key FROM person WHERE address_hash = :hash "


async def find(
    tx: AsyncConnection, vault: Vault, address: str, lock: str = Lock.NONE
) -> Person | None:
    statement = sa.text(_FIND + lock).columns(
        id=sa.Uuid, master_key_id=sa.Text, wrapped_key=sa.LargeBinary
    )
    found = await tx.execute(statement, {"hash": vault.address_hash(address)})
    row = found.one_or_none()
    if row is None:
        return None
    return Person(row.id, WrappedKey(row.master_key_id, row.wrapped_key))


_ENTER = sa.text("""
    INSERT INTO person (id, address_hash, master_key_id, wrapped_key)
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:masters AS text[]),
        CAST(:wrapped AS bytea[])
    )
    ON CONFLICT DO NOTHING
""")


# In the order of the hashes, as the insert: two batches cannot wait for each other.
_FIND_ALL = """
    SELECT id, address_hash, master_key_id, wrapped_key FROM person
    WHERE address_hash = ANY(CAST(:hashes AS bytea[])) ORDER BY address_hash
"""


async def enter_all(
    tx: AsyncConnection, vault: Vault, addresses: Iterable[str], lock: str
) -> dict[str, Person]:
    """Lock these persons' rows, made first for the addresses that are new.

    The row must exist before anything is decided: a lock on nothing holds nobody back. A known
    address takes the same steps, so that time does not tell it from a new one.
    """
    asked = sorted((vault.address_hash(address), address) for address in set(addresses))
    hashes = [address_hash for address_hash, _ in asked]
    while True:
        ids = [uuid4() for _ in asked]
        wrapped = [vault.new_key(person_id)[1] for person_id in ids]
        await tx.execute(
            _ENTER,
            {
                "ids": [str(person_id) for person_id in ids],
                "hashes": hashes,
                "masters": [each.master_key_id for each in wrapped],
                "wrapped": [each.wrapped for each in wrapped],
            },
        )
        found = await tx.execute(
            sa.text(_FIND_ALL + lock).columns(
                id=sa.Uuid,
                address_hash=sa.LargeBinary,
                master_key_id=sa.Text,
                wrapped_key=sa.LargeBinary,
            ),
            {"hashes": hashes},
        )
        rows = {row.address_hash: row for row in found}
        if len(rows) == len(asked):
            return {
                address: Person(row.id, WrappedKey(row.master_key_id, row.wrapped_key))
                for address_hash, address in asked
                for row in (rows[address_hash],)
            }


async def enter(tx: AsyncConnection, vault: Vault, address: str, lock: str) -> Person:
    return (await enter_all(tx, vault, [address], lock))[address]


async def lock(tx: AsyncConnection, person_id: UUID) -> None:
    await tx.execute(sa.select(person.c.id).where(person.c.id == person_id).with_for_update())


# In the order of the hashes, as `enter_all` locks them.
_WRAPPED_BEFORE = sa.text("""
    SELECT id, address_hash, master_key_id, wrapped_key FROM person
    WHERE address_hash > :after AND master_key_id <> :current
    ORDER BY address_hash LIMIT :batch FOR UPDATE
""").columns(
    id=sa.Uuid, address_hash=sa.LargeBinary, master_key_id=sa.Text, wrapped_key=sa.LargeBinary
)


_REWRAP = sa.text("""
    UPDATE person SET master_key_id = :current, wrapped_key = new.wrapped
    FROM unnest(CAST(:ids AS uuid[]), CAST(:wrapped AS bytea[])) AS new (id, wrapped)
    WHERE person.id = new.id
""")


async def rewrap(
    tx: AsyncConnection, vault: Vault, after: bytes, batch: int
) -> tuple[int, bytes | None]:
    """Wrap some persons' keys by the current master key.

    :param after: the address hash up to which that was done
    :returns: how many, and where to go on; None at the end
    :raises KeyError: one is wrapped by a master key that is not configured
    """
    values = {"after": after, "current": vault.current, "batch": batch}
    rows = (await tx.execute(_WRAPPED_BEFORE, values)).all()
    if not rows:
        return 0, None
    keys = [vault.rewrap(row.id, WrappedKey(row.master_key_id, row.wrapped_key)) for row in rows]
    await tx.execute(
        _REWRAP,
        {
            "current": vault.current,
            "ids": [str(row.id) for row in rows],
            "wrapped": [key.wrapped for key in keys],
        },
    )
    return len(rows), rows[-1].address_hash


async def forget(tx: AsyncConnection, person_id: UUID) -> None:
    """Forget who this is: without hash and key the rows that stay are nobody's."""
    await tx.execute(
        sa.update(person)
        .where(person.c.id == person_id)
        .values(address_hash=None, master_key_id=None, wrapped_key=None, erased_at=sa.func.now())
    )
    await tx.execute(sa.delete(opt_in).where(opt_in.c.person_id == person_id))


async def held(
    tx: AsyncConnection, person_id: UUID | None, address_hash: bytes
) -> dict[str, list[dict[str, Any]]]:
    """Read what is held on a person beside the trail, for an export, by kind.

    :param address_hash: the suppression list's: what it finds may outlive the person
    """
    questions = {
        "states": sa.select(
            consent_state.c.purpose,
            consent_state.c.state,
            consent_state.c.version,
            consent_state.c.changed_at,
        ).where(consent_state.c.person_id == person_id),
        "permits": sa.select(
            permit.c.message, permit.c.attempt, permit.c.granted_at, permit.c.returned_at
        ).where(permit.c.person_id == person_id),
        "suppressions": sa.select(
            suppression.c.purpose, suppression.c.created_at, suppression.c.keep_until
        ).where(suppression.c.address_hash == address_hash),
        "link_mails": sa.select(
            link_mail.c.kind, link_mail.c.first_at, link_mail.c.last_at, link_mail.c.count
        ).where(link_mail.c.address_hash == address_hash),
        "erasures": sa.select(
            erasure.c.status,
            erasure.c.requested_at,
            erasure.c.confirmed_at,
            erasure.c.finished_at,
        ).where(erasure.c.address_hash == address_hash),
    }
    found = {}
    for kind, question in questions.items():
        rows = (await tx.execute(question)).mappings()
        found[kind] = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


async def known(tx: AsyncConnection, persons: Iterable[UUID]) -> dict[UUID, bool]:
    """Say of those of whom there is a row, whether it still leads to somebody."""
    rows = await tx.execute(
        sa.text(
            "SELECT id, erased_at IS NULL AS alive FROM person WHERE id = ANY(CAST(:ids AS uuid[]))"
        ).columns(id=sa.Uuid, alive=sa.Boolean),
        {"ids": [str(person_id) for person_id in persons]},
    )
    return {row.id: row.alive for row in rows}


async def person_of(tx: AsyncConnection, person_id: UUID) -> Person | None:
    """Find a person who was not erased by id."""
    found = await tx.execute(
        sa.select(person).where(person.c.id == person_id, person.c.erased_at.is_(None))
    )
    row = found.one_or_none()
    if row is None:
        return None
    return Person(row.id, WrappedKey(row.master_key_id, row.wrapped_key))
