"""The keys of the stored hashes, and rehashing with an additional key.

A process with other keys would find no subject and mail suppressed addresses, so it must not start.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.sql import run

BATCH = 5_000
_HASHES = (
    ("data_subject", "lookup_hash"),
    *((table, "suppression_hash") for table in ("suppression", "erasure", "link_mail")),
)


async def applied(tx: AsyncConnection, configured: Sequence[str]) -> tuple[str, ...]:
    """Return the keys' fingerprints, oldest first; record the oldest in a new database."""
    await run(tx, "add_hash_key", position=1, fingerprint=configured[0])
    return tuple((await run(tx, "hash_keys")).scalars())


async def rehash(
    tx: AsyncConnection, made_by: int, configured: Sequence[str], hashed: Callable[[bytes], bytes]
) -> int:
    """Replace every hash in the caller's transaction: a partial rehash would lose subjects.

    :param made_by: the number of keys that made the stored hashes
    :returns: how many were replaced
    """
    count = 0
    for table, column in _HASHES:
        every = text(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL")
        old = list((await tx.execute(every)).scalars())
        for start in range(0, len(old), BATCH):
            part = old[start : start + BATCH]
            replace = text(f"""
                UPDATE {table} SET {column} = given.new
                FROM unnest(CAST(:old AS bytea[]), CAST(:new AS bytea[])) AS given (old, new)
                WHERE {column} = given.old
            """)
            await tx.execute(replace, {"old": part, "new": [hashed(each) for each in part]})
        count += len(old)
    for position, fingerprint in enumerate(configured[made_by:], made_by + 1):
        await run(tx, "add_hash_key", position=position, fingerprint=fingerprint)
    return count
