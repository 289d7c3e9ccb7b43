"""Compares a service's schema with its code; if they differ, says what an operator must do.

Without alembic, whose import takes a third of a second of each start.
"""

import asyncio
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres, primary
from libs.common.process.logs import log
from libs.common.process.service import Service

VERSIONS = "alembic_version"
LOOK_SECONDS = 60.0
OLDER = (
    "the schema {service} lacks migrations of this version. Run them: make up, docker compose up "
    "and helm upgrade do, or OWNER_DATABASE_URL=… python -m services.{service} migrate"
)
NEWER = (
    "a newer version has migrated this schema. This one runs beside it until the upgrade is done; "
    "do not stay on it: docs/upgrade.md"
)


class Version(StrEnum):
    """The schema's version, seen from this code."""

    CURRENT = "current"
    OLDER = "older"
    """It lacks migrations of this code, or is empty."""
    NEWER = "newer"
    """It has a migration that this code does not know."""


class SchemaOlderError(Exception):
    """The schema lacks migrations; the text says what to do."""


async def require(
    service: Service, engine: AsyncEngine, migrations: Path, *, may_lack: bool = False
) -> None:
    """Stop a service whose schema lacks migrations, now or, after a restore, later.

    If the database is unavailable, the service starts, and stops once it knows. A newer schema is
    only logged: releases overlap during an upgrade.

    :param may_lack: only log that migrations are missing, because the service can run them itself
    :raises SystemExit: it lacks some now
    """

    async def look() -> None:
        with postgres.through_outages() as outage:
            async with engine.connect() as tx:
                found = await tx.run_sync(head)
        if outage.error:
            log.warning("schema.not_checked", error=type(outage.error).__name__)
            return
        version = await asyncio.to_thread(compare, found, migrations)
        if version is Version.NEWER:
            log.warning("schema.newer", found=found, to_do=NEWER)
        elif version is Version.OLDER:
            to_do = OLDER.format(service=service.name)
            if not may_lack:
                raise SchemaOlderError(to_do)
            log.error("schema.older", found=found, to_do=to_do)

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await look()

    try:
        await look()
    except SchemaOlderError as error:
        raise SystemExit(str(error)) from None
    service.spawn("schema version", watch())


def version(url: str, migrations: Path) -> Version:
    """Compare the schema's version with this code's; works for both roles."""
    with primary.transaction(url) as connection:
        return compare(head(connection), migrations)


def head(connection: Connection) -> str | None:
    """Return the schema's version, None for an empty schema."""
    if not inspect(connection).has_table(VERSIONS):
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSIONS}"))
    return found


def compare(found: str | None, migrations: Path) -> Version:
    """:param found: the schema's version"""
    known = [number for number, _ in in_order(migrations)]
    if found == known[-1]:
        return Version.CURRENT
    return Version.OLDER if found is None or found in known else Version.NEWER


def in_order(migrations: Path) -> list[tuple[str, Path]]:
    """Return each migration's number and file.

    :raises ValueError: one is not SQL
    """
    versions = migrations / "versions"
    if stray := next(versions.glob("*.py"), None):
        raise ValueError(f"{stray}: a migration is SQL (docs/upgrade.md)")
    return [(path.name.partition("_")[0], path) for path in sorted(versions.glob("*.sql"))]
