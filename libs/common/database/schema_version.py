"""Compares a service's schema with its code; if they differ, says what an operator must do."""

import asyncio
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import migrate, postgres
from libs.common.database.migrate import Version
from libs.common.process import logs
from libs.common.process.service import Service

log = logs.get_logger(__name__)

LOOK_SECONDS = 60.0
OLDER = (
    "the schema {service} lacks migrations of this version. Run them: make up, docker compose up "
    "and helm upgrade do, or OWNER_DATABASE_URL=… python -m services.{service} migrate"
)
NEWER = (
    "a newer version has migrated this schema. This one runs beside it until the upgrade is done; "
    "do not stay on it: docs/upgrade.md"
)


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
    try:
        await _look(service.name, engine, migrations, may_lack=may_lack)
    except SchemaOlderError as error:
        raise SystemExit(str(error)) from None
    service.spawn("schema version", _watch(service.name, engine, migrations, may_lack=may_lack))


async def _watch(service: str, engine: AsyncEngine, migrations: Path, *, may_lack: bool) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await _look(service, engine, migrations, may_lack=may_lack)


async def _look(service: str, engine: AsyncEngine, migrations: Path, *, may_lack: bool) -> None:
    with postgres.through_outages() as outage:
        async with engine.connect() as tx:
            # Without the table, asking for its rows would be an error.
            table = text("SELECT to_regclass(CAST(:name AS text)) IS NOT NULL")
            there = (await tx.execute(table, {"name": migrate.VERSIONS})).scalar_one()
            rows = text(f"SELECT version_num FROM {migrate.VERSIONS}")
            found = list((await tx.execute(rows)).scalars()) if there else []
    if outage.error:
        log.warning("schema.not_checked", error=type(outage.error).__name__)
        return
    version = await asyncio.to_thread(migrate.compare, found, migrations)
    if version is Version.NEWER:
        log.warning("schema.newer", found=found, to_do=NEWER)
    elif version is Version.OLDER:
        to_do = OLDER.format(service=service)
        if not may_lack:
            raise SchemaOlderError(to_do)
        log.error("schema.older", found=found, to_do=to_do)
