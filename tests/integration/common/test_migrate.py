import io
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from libs.common.database import migrate, postgres, primary, schema_version
from libs.common.database.schema_version import Version
from libs.common.process.service import Service
from tests.conftest import NewDatabase
from tests.support.databases import SERVICES, DatabaseUrl
from tests.support.ports import Ports

VERSIONS = {
    "0001_thing.sql": """
CREATE TABLE thing (id uuid PRIMARY KEY, name text NOT NULL);
CREATE INDEX thing_name ON thing (name);
""",
    "0002_at.sql": "ALTER TABLE thing ADD COLUMN at timestamptz;",
}
BROKEN = """
CREATE TABLE other ();
SELECT 1 / 0;
"""
EIGHT = 8


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    for name, source in VERSIONS.items():
        (versions / name).write_text(source)
    return versions.parent


@pytest.fixture
async def url(database: NewDatabase) -> DatabaseUrl:
    return await database("alerts", migrated=False)


def tables(url: DatabaseUrl) -> set[tuple[str, str]]:
    with closing(psycopg2.connect(url.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT schemaname, tablename FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        return {(schema, table) for schema, table in cursor.fetchall()}


def test_the_runtime_role_cannot_change_the_version(url: DatabaseUrl, migrations: Path) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    with closing(psycopg2.connect(url.replace("+aiopg", ""))) as runtime:
        for change in (
            "INSERT INTO alembic_version VALUES ('x')",
            "UPDATE alembic_version SET version_num = 'x'",
            "DELETE FROM alembic_version",
            "TRUNCATE alembic_version",
        ):
            with runtime, runtime.cursor() as cursor, pytest.raises(InsufficientPrivilege):
                cursor.execute(change)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(
    url: DatabaseUrl, migrations: Path
) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    (migrations / "versions" / "0003_broken.sql").write_text(BROKEN)
    with pytest.raises(sa.exc.DataError, match="division by zero"):
        migrate.upgrade("alerts", url.owner_url, migrations)
    assert ("alerts", "other") not in tables(url)
    (migrations / "versions" / "0003_broken.sql").unlink()
    assert schema_version.version(url.owner_url, migrations) is Version.CURRENT


NOT_NULL = "ALTER TABLE thing ADD COLUMN note text NOT NULL DEFAULT '';"
INDEX = "CREATE INDEX CONCURRENTLY thing_at ON thing (at);\n"


@contextmanager
def busy(url: DatabaseUrl, statement: str = "SELECT 1 FROM thing") -> Iterator[None]:
    """Keep the locks of a statement, as a transaction that goes on does."""
    with closing(psycopg2.connect(url.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        yield


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LOCK_SECONDS", 1), ("TRIES", 2), ("PAUSE_SECONDS", 0.1)):
        monkeypatch.setattr(migrate, name, value)


def test_a_migration_gives_up_its_place_for_a_lock_and_says_what_to_do(
    url: DatabaseUrl,
    migrations: Path,
    hurried: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    (migrations / "versions" / "0003_note.sql").write_text(NOT_NULL)
    monkeypatch.setenv("OWNER_DATABASE_URL", url.owner_url)
    with busy(url):
        assert migrate.command("alerts", migrations, ["migrate"]) == 1
    said = capsys.readouterr().err
    assert "the schema alerts is in use" in said
    assert "pg_stat_activity" in said
    assert schema_version.version(url, migrations) is Version.OLDER
    migrate.upgrade("alerts", url.owner_url, migrations)
    assert schema_version.version(url, migrations) is Version.CURRENT


def test_a_migration_tries_again_until_it_has_its_lock(
    url: DatabaseUrl, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    (migrations / "versions" / "0003_note.sql").write_text(NOT_NULL)
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 1)
    with ExitStack() as until_it_pauses:
        until_it_pauses.enter_context(busy(url))
        monkeypatch.setattr(time, "sleep", lambda _: until_it_pauses.close())
        migrate.upgrade("alerts", url.owner_url, migrations)
    assert schema_version.version(url, migrations) is Version.CURRENT


def _validity(url: DatabaseUrl, index: str) -> list[bool]:
    with closing(psycopg2.connect(url.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (index,)
        )
        return [valid for (valid,) in cursor.fetchall()]


def test_an_index_is_built_while_rows_are_written(url: DatabaseUrl, migrations: Path) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    (migrations / "versions" / "0003_at.sql").write_text(INDEX)
    insert = "INSERT INTO thing VALUES (gen_random_uuid(), 'x')"
    with ThreadPoolExecutor() as pool:
        with busy(url, insert):  # it holds up the index until it ends
            built = pool.submit(migrate.upgrade, "alerts", url.owner_url, migrations)
            while not _validity(url, "thing_at"):
                assert not built.done(), built.exception()
                time.sleep(0.01)
            with closing(psycopg2.connect(url.owner_url)) as connection, connection:
                connection.cursor().execute(insert)  # and no other writer
            assert not built.done()
            waiting = pool.submit(migrate.upgrade, "alerts", url.owner_url, migrations)
            with pytest.raises(TimeoutError):  # and no other replica stands in its way
                waiting.result(1)
        built.result(30)
        waiting.result(30)
    assert _validity(url, "thing_at") == [True]
    assert schema_version.version(url, migrations) is Version.CURRENT


def test_an_index_that_a_kill_left_invalid_is_built_again(
    url: DatabaseUrl, migrations: Path
) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    (migrations / "versions" / "0003_at.sql").write_text(INDEX)
    script = (
        "import sys, pathlib; from libs.common.database import migrate; "
        "migrate.upgrade('alerts', sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    with busy(url, "INSERT INTO thing VALUES (gen_random_uuid(), 'x')"):
        killed = subprocess.Popen([sys.executable, "-c", script, url.owner_url, str(migrations)])
        while not _validity(url, "thing_at"):
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        with closing(psycopg2.connect(url.superuser_url)) as connection, connection.cursor() as own:
            own.execute(  # PostgreSQL notices a dead client only as it writes to it
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND datname = current_database()"
            )
    assert _validity(url, "thing_at") == [False]
    assert schema_version.version(url, migrations) is Version.OLDER
    migrate.upgrade("alerts", url.owner_url, migrations)
    assert _validity(url, "thing_at") == [True]


def test_a_schema_that_a_newer_version_has_migrated_is_told_from_an_older_one(
    url: DatabaseUrl, migrations: Path
) -> None:
    (migrations / "versions" / "0003_note.sql").write_text(NOT_NULL)
    migrate.upgrade("alerts", url.owner_url, migrations)
    (migrations / "versions" / "0003_note.sql").unlink()
    assert schema_version.version(url, migrations) is Version.NEWER


def test_the_sql_of_later_migrations_is_written_without_a_database(migrations: Path) -> None:
    (migrations / "versions" / "0003_at.sql").write_text(INDEX)
    output = io.StringIO()
    migrate.offline_sql(migrations, "0002", output)
    statements = [line for line in output.getvalue().splitlines() if line]
    assert statements[0] == "SET lock_timeout = '2s';"
    assert "CREATE INDEX CONCURRENTLY thing_at ON thing (at);" in statements
    assert "ALTER TABLE thing ADD COLUMN at timestamptz;" not in statements


def test_eight_replicas_migrating_at_once_all_succeed(url: DatabaseUrl, migrations: Path) -> None:
    with ThreadPoolExecutor(EIGHT) as pool:
        for done in [
            pool.submit(migrate.upgrade, "alerts", url.owner_url, migrations) for _ in range(EIGHT)
        ]:
            done.result(60)
    assert schema_version.version(url.owner_url, migrations) is Version.CURRENT


def test_migrating_without_the_owners_url_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OWNER_DATABASE_URL", raising=False)
    monkeypatch.delenv("OWNER_DATABASE_URL_FILE", raising=False)
    assert migrate.command("alerts", Path(), ["migrate"]) == 2
    assert "OWNER_DATABASE_URL" in capsys.readouterr().err


def test_the_owners_url_may_come_from_a_file(
    url: DatabaseUrl, migrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "owner"
    secret.write_text(url.owner_url + "\n")
    monkeypatch.delenv("OWNER_DATABASE_URL", raising=False)
    monkeypatch.setenv("OWNER_DATABASE_URL_FILE", str(secret))
    assert migrate.command("alerts", migrations, ["migrate"]) == 0
    assert schema_version.version(url.owner_url, migrations) is Version.CURRENT


MIGRATIONS = SERVICES / "alerts" / "migrations"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    running = Service("alerts")
    yield running
    running.stopping.set()
    await running.close()


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
        with primary.transaction(url.owner_url) as owner:
            owner.execute(text(f"DELETE FROM {schema_version.VERSIONS}"))
        await other.stopping.wait()
        assert other.failed
        await other.close()
