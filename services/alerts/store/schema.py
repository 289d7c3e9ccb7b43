"""The dead-letter relation: reports whether it exists, and creates it if allowed."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import schema_version
from libs.common.database.queries import Queries

MIGRATIONS = Path(__file__).parents[1] / "migrations"
RELATION = "dead_letter_queue"
run = Queries(__file__, "relations.sql")
COMMAND = "OWNER_DATABASE_URL=… python -m services.alerts migrate"


class NotOwner(Exception):  # noqa: N818 - reads as what happened
    """The schema is out of date, and the access of its owner is not configured."""


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    current: bool
    """The schema has the version of this code."""
    tables: list[str]
    indexes: list[str]


class Schema:
    def __init__(self, engine: AsyncEngine, url: str, owner_url: str | None) -> None:
        self._engine = engine
        self._url = url
        self._owner_url = owner_url

    async def status(self) -> SchemaStatus:
        version = await asyncio.to_thread(schema_version.version, self._url, MIGRATIONS)
        tables = (await run.alone(self._engine, "tables")).scalars()
        indexes = (await run.alone(self._engine, "indexes", relation=RELATION)).scalars()
        return SchemaStatus(version is schema_version.Version.CURRENT, tables, indexes)

    async def create(self) -> tuple[SchemaStatus, bool]:
        """Migrate the schema, unless it is up to date.

        :returns: the status now, and whether anything was done
        :raises NotOwner: it is out of date, and only its owner can change it
        """
        found = await self.status()
        if found.current:
            return found, False
        if self._owner_url is None:
            raise NotOwner
        from libs.common.database import migrate

        await asyncio.to_thread(migrate.upgrade, "alerts", self._owner_url, MIGRATIONS)
        return await self.status(), True
