"""The dead-letter relation: is it there, and its making, where the deployment lets us."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import migrate

MIGRATIONS = Path(__file__).parent / "migrations"
RELATION = "dead_letter_queue"
COMMAND = "OWNER_DATABASE_URL=… python -m services.alerts migrate"


class NotOwner(Exception):  # noqa: N818 - reads as what happened
    """The schema is not up to date, and its owner's access is not configured here."""


@dataclass(frozen=True, slots=True)
class Found:
    current: bool
    """Of the version that this code was written for."""
    tables: list[str]
    indexes: list[str]

    @property
    def complete(self) -> bool:
        return self.current and RELATION in self.tables


_TABLES = sa.text("""
    SELECT relname FROM pg_class
    WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind IN ('r', 'v')
        AND relname <> 'alembic_version'
    ORDER BY relname
""").columns(relname=sa.Text)
_INDEXES = sa.text("""
    SELECT indexname FROM pg_indexes
    WHERE schemaname = current_schema() AND starts_with(indexname, :relation) ORDER BY indexname
""").columns(indexname=sa.Text)


class Schema:
    def __init__(self, engine: AsyncEngine, url: str, owner_url: str | None) -> None:
        self._engine = engine
        self._url = url
        self._owner_url = owner_url

    async def look(self) -> Found:
        pending = await asyncio.to_thread(migrate.pending, self._url, MIGRATIONS)
        async with self._engine.connect() as tx:
            tables = list((await tx.execute(_TABLES)).scalars())
            indexes = list((await tx.execute(_INDEXES, {"relation": RELATION})).scalars())
        return Found(not pending, tables, indexes)

    async def create(self) -> tuple[Found, bool]:
        """Bring the schema up to date; nothing happens where it is.

        :returns: what there is now, and whether something was done
        :raises NotOwner:
        """
        found = await self.look()
        if found.complete:
            return found, False
        if self._owner_url is None:
            raise NotOwner
        await asyncio.to_thread(migrate.upgrade, "alerts", self._owner_url, MIGRATIONS)
        return await self.look(), True
