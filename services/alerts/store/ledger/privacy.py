"""Finds and empties rows that name a data subject; keeps tombstones of the erased."""

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database import postgres
from libs.common.database.queries import Queries
from services.alerts.rules.subjects import Hash
from services.alerts.store.tables import attempt, names

PAGE: Final = 16
"""Rows per reply: a payload may be 256 KiB, and RabbitMQ takes no message above 16 MiB."""
BATCH: Final = 500
Key = tuple[UUID, str]
BEGINNING: Final[Key] = (UUID(int=0), "")

run = Queries(
    __file__, json=["payload"], of_attempt=names(attempt), page=PAGE,
    batch=BATCH, intake=postgres.advisory_key("alerts erasure"),
    clocks_apart_seconds=postgres.CLOCKS_APART_SECONDS,
)  # fmt: skip


async def erased_since(tx: AsyncConnection, hashes: Iterable[Hash]) -> dict[Hash, Any]:
    """Return when these were erased, if they were; an erasure waits for this transaction."""
    await run(tx, "share")
    # A separate statement: its snapshot must be younger than the lock.
    return await erased_at(tx, hashes)


async def erased_at(tx: AsyncConnection, hashes: Iterable[Hash]) -> dict[Hash, Any]:
    """Return the same without making an erasure wait."""
    return dict(await run(tx, "erased", hashes=sorted(hashes)))
