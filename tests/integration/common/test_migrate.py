import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from libs.common.database import migrate
from tests.conftest import NewDatabase
from tests.support.databases import DatabaseUrl, differences

VERSIONS = {
    "0001_thing.py": """
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.execute("CREATE TABLE thing (id uuid PRIMARY KEY, name text NOT NULL)")
    op.execute("CREATE INDEX thing_name ON thing (name)")
""",
    "0002_at.py": """
from alembic import op

revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None


def upgrade():
    op.execute("ALTER TABLE thing ADD COLUMN at timestamptz")
""",
}
BROKEN = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "0003", "0002", None, None


def upgrade():
    op.execute("CREATE TABLE other ()")
    op.execute("SELECT 1 / 0")
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


def things(*columns: sa.Column[object], index: bool = True) -> sa.MetaData:
    metadata = sa.MetaData()
    table = sa.Table("thing", metadata, sa.Column("id", sa.Uuid, primary_key=True), *columns)
    if index:
        sa.Index("thing_name", table.c.name)
    return metadata


def tables(url: DatabaseUrl) -> set[tuple[str, str]]:
    with closing(psycopg2.connect(url.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT schemaname, tablename FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        return {(schema, table) for schema, table in cursor.fetchall()}


def test_migrating_makes_the_tables_and_the_version_table_in_the_services_own_schema(
    url: DatabaseUrl, migrations: Path
) -> None:
    assert migrate.pending(url.owner_url, migrations)
    migrate.upgrade("alerts", url.owner_url, migrations)
    assert tables(url) == {("alerts", "thing"), ("alerts", "alembic_version")}
    assert not migrate.pending(url.owner_url, migrations)


def test_the_runtime_role_can_see_whether_a_migration_is_pending(
    url: DatabaseUrl, migrations: Path
) -> None:
    assert migrate.pending(url, migrations)
    migrate.upgrade("alerts", url.owner_url, migrations)
    assert not migrate.pending(url, migrations)


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO alembic_version VALUES ('x')",
        "UPDATE alembic_version SET version_num = 'x'",
        "DELETE FROM alembic_version",
        "TRUNCATE alembic_version",
    ],
)
def test_the_runtime_role_cannot_change_the_version(
    url: DatabaseUrl, migrations: Path, change: str
) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    runtime = url.replace("+aiopg", "")
    with (
        closing(psycopg2.connect(runtime)) as connection,
        connection.cursor() as cursor,
        pytest.raises(psycopg2.errors.InsufficientPrivilege),
    ):
        cursor.execute(change)


def test_migrating_again_changes_nothing(url: DatabaseUrl, migrations: Path) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    migrate.upgrade("alerts", url.owner_url, migrations)
    assert not migrate.pending(url.owner_url, migrations)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(
    url: DatabaseUrl, migrations: Path
) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    (migrations / "versions" / "0003_broken.py").write_text(BROKEN)
    with pytest.raises(sa.exc.DataError, match="division by zero"):
        migrate.upgrade("alerts", url.owner_url, migrations)
    assert ("alerts", "other") not in tables(url)
    (migrations / "versions" / "0003_broken.py").unlink()
    assert not migrate.pending(url.owner_url, migrations)


def test_eight_processes_migrating_at_once_all_succeed(url: DatabaseUrl, migrations: Path) -> None:
    script = (
        "import sys, pathlib; from libs.common.database import migrate; "
        "print('ready', flush=True); "
        "sys.stdin.read(); "
        "sys.exit(migrate.command('alerts', pathlib.Path(sys.argv[1]), ['migrate']))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(migrations)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OWNER_DATABASE_URL": url.owner_url},
        )
        for _ in range(EIGHT)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * EIGHT, errors
    assert not migrate.pending(url.owner_url, migrations)


def test_tables_like_the_migrated_ones_do_not_differ(url: DatabaseUrl, migrations: Path) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    metadata = things(
        sa.Column("name", sa.Text, nullable=False), sa.Column("at", sa.DateTime(timezone=True))
    )
    assert differences(url.owner_url, metadata) == []


@pytest.mark.parametrize(
    "metadata",
    [
        sa.MetaData(),
        things(sa.Column("name", sa.Text, nullable=False)),
        things(
            sa.Column("name", sa.Integer, nullable=False),
            sa.Column("at", sa.DateTime(timezone=True)),
        ),
        things(sa.Column("name", sa.Text), sa.Column("at", sa.DateTime(timezone=True))),
        things(
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("at", sa.DateTime(timezone=True)),
            index=False,
        ),
    ],
    ids=["table", "column", "type", "null", "index"],
)
def test_a_table_unlike_the_migrated_one_differs(
    url: DatabaseUrl, migrations: Path, metadata: sa.MetaData
) -> None:
    migrate.upgrade("alerts", url.owner_url, migrations)
    assert differences(url.owner_url, metadata) != []


@pytest.mark.parametrize("arguments", [[], ["upgrade"], ["migrate", "now"]])
def test_an_unknown_command_prints_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrate.command("alerts", Path(), arguments) == 2
    assert "usage: python -m services.alerts [migrate]" in capsys.readouterr().err


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
    assert not migrate.pending(url.owner_url, migrations)
