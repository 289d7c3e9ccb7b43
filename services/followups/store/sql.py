"""The statements of queries.sql, with the columns of each table that they name as a whole."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from libs.common.messaging import outbox
from services.followups.store.tables import Row, lead, metadata

_columns = {f"of_{name}": ", ".join(table.c.keys()) for name, table in metadata.tables.items()}
_columns["of_lead"] = ", ".join(f"lead.{name}" for name in lead.c.keys())  # noqa: SIM118 - it is no dict

run = Queries(
    __file__,
    "queries.sql",
    json=("state", "leads", "rows", "imported", "facts", "told", "words", "data", "submission"),
    outbox_add=outbox.ADD,
    **_columns,
)


async def rows(tx: AsyncConnection, name: str, /, **given: Any) -> list[Row]:
    return [each._asdict() for each in await run(tx, name, **given)]


async def row(tx: AsyncConnection, name: str, /, **given: Any) -> Row | None:
    return next(iter(await rows(tx, name, **given)), None)
