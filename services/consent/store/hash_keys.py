"""The keys of the stored hashes, and rehashing with an additional key.

A process with other keys would find no subject and mail suppressed addresses, so it must not start.
"""

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.sql import run
from services.consent.store.tables import data_subject, erasure, hash_key, link_mail, suppression

BATCH = 5_000
_HASHES: tuple[sa.Column[bytes], ...] = (
    data_subject.c.lookup_hash,
    *(table.c.suppression_hash for table in (suppression, erasure, link_mail)),
)


async def applied(tx: AsyncConnection, configured: Sequence[str]) -> tuple[str, ...]:
    """Return the keys' fingerprints, oldest first; record the oldest in a new database."""
    await run(tx, "first_hash_key", fingerprint=configured[0])
    return tuple((await run(tx, "hash_keys")).scalars())


async def rehash(
    tx: AsyncConnection, made_by: int, configured: Sequence[str], hashed: Callable[[bytes], bytes]
) -> int:
    """Replace every hash in the caller's transaction: a partial rehash would lose subjects.

    :param made_by: the number of keys that made the stored hashes
    :returns: how many were replaced
    """
    count = 0
    for column in _HASHES:
        found = await tx.execute(sa.select(column).distinct().where(column.is_not(None)))
        old = list(found.scalars())
        for start in range(0, len(old), BATCH):
            part = old[start : start + BATCH]
            await tx.execute(
                sa.text(f"""
                    UPDATE {column.table.name} SET {column.name} = given.new
                    FROM unnest(CAST(:old AS bytea[]), CAST(:new AS bytea[])) AS given (old, new)
                    WHERE {column.name} = given.old
                """),
                {"old": part, "new": [hashed(each) for each in part]},
            )
        count += len(old)
    added = enumerate(configured[made_by:], made_by + 1)
    await tx.execute(
        sa.insert(hash_key), [{"position": place, "fingerprint": each} for place, each in added]
    )
    return count
