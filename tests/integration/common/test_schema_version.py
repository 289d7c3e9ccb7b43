from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from libs.common.database import migrate, postgres, schema_version
from libs.common.process.service import Service
from tests.conftest import NewDatabase
from tests.support.databases import SERVICES, DatabaseUrl
from tests.support.ports import Ports

MIGRATIONS = SERVICES / "alerts" / "migrations"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    running = Service("alerts")
    yield running
    running.stopping.set()
    await running.close()


@pytest.fixture
async def url(database: NewDatabase) -> DatabaseUrl:
    return await database("alerts", migrated=False)


@pytest.fixture
async def engine(url: DatabaseUrl) -> AsyncIterator[AsyncEngine]:
    async with postgres.connect(url, application_name="test", pool_size=2) as opened:
        yield opened


def _without_the_newest(folder: Path) -> Path:
    """Return migrations that lack the newest one of the schema."""
    versions = folder / "versions"
    versions.mkdir()
    first = next((MIGRATIONS / "versions").glob("0001_*.sql"))
    (versions / first.name).symlink_to(first)
    return folder


async def test_a_schema_without_migrations_stops_the_start_with_what_to_do(
    service: Service, engine: AsyncEngine
) -> None:
    with pytest.raises(SystemExit, match=r"python -m services\.alerts migrate"):
        await schema_version.require(service, engine, MIGRATIONS)


async def test_a_service_that_can_migrate_itself_starts_and_says_what_to_do(
    service: Service, engine: AsyncEngine
) -> None:
    with capture_logs() as logged:
        await schema_version.require(service, engine, MIGRATIONS, may_lack=True)
    (told,) = logged
    assert (told["log_level"], told["event"]) == ("error", "schema.older")
    assert "python -m services.alerts migrate" in told["to_do"]


async def test_a_service_starts_beside_a_newer_version_and_says_so(
    service: Service, engine: AsyncEngine, url: DatabaseUrl, tmp_path: Path
) -> None:
    migrate.upgrade("alerts", url.owner_url, MIGRATIONS)
    with capture_logs() as logged:
        await schema_version.require(service, engine, _without_the_newest(tmp_path))
    (told,) = logged
    assert (told["log_level"], told["event"]) == ("warning", "schema.newer")
    assert "docs/upgrade.md" in told["to_do"]


async def test_a_service_starts_without_its_database_and_stops_once_it_lacks_migrations(
    service: Service, database: NewDatabase, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_version, "LOOK_SECONDS", 0.05)
    async with AsyncExitStack() as stack:
        away = f"postgresql+aiopg://alerts:x@127.0.0.1:{ports.take()}/none"
        gone = await stack.enter_async_context(
            postgres.connect(away, application_name="test", pool_size=1)
        )
        await schema_version.require(service, gone, MIGRATIONS)
        assert not service.stopping.is_set()
    url = await database("alerts")
    other = Service("alerts")
    async with postgres.connect(url, application_name="test", pool_size=1) as restored:
        await schema_version.require(other, restored, MIGRATIONS)
        with migrate.transaction(url.owner_url) as owner:
            owner.execute(text(f"DELETE FROM {migrate.VERSIONS}"))
        await other.stopping.wait()
        assert other.failed
        await other.close()
