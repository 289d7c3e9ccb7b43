"""Compares a service's schema with its code; if they differ, says what an operator must do."""

import asyncio
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import migrate, postgres
from libs.common.database.migrate import Version
from libs.common.process.logs import log
from libs.common.process.service import Service

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

    async def look() -> None:
        with postgres.through_outages() as outage:
            async with engine.connect() as tx:
                found = await tx.run_sync(migrate.heads)
        if outage.error:
            log.warning("schema.not_checked", error=type(outage.error).__name__)
            return
        version = await asyncio.to_thread(migrate.compare, found, migrations)
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
