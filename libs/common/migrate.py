"""Alembic per service: its own folder, its own version table, one migration at a time."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine, make_url, text

from libs.common.db import advisory_key

_SCRIPT_TEMPLATE = "script.py.mako"


def upgrade(service: str, owner_url: str, migrations: Path) -> None:
    """Bring the service's schema up to date, as its owner, in one transaction.

    Any number of replicas may call it at once: the lock is the first statement, so the second
    caller waits and then finds nothing to do. (Without it most of eight at once fail.)
    """
    script = ScriptDirectory.from_config(_config(migrations))

    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - as alembic's own command

    engine = create_engine(_sync_url(owner_url))
    try:
        with engine.begin() as connection:
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:key)"),
                {"key": advisory_key(f"alembic:{service}")},
            )
            with EnvironmentContext(_config(migrations), script, fn=steps) as environment:
                environment.configure(connection, version_table="alembic_version")
                environment.run_migrations()
    finally:
        engine.dispose()


def new_revision(migrations: Path, message: str) -> None:
    command.revision(_config(migrations), message)


def differences(owner_url: str, metadata: MetaData) -> list[Any]:
    """What the migrated schema has and the code's tables have not, and the other way round."""
    engine = create_engine(_sync_url(owner_url))
    try:
        with engine.connect() as connection:
            return list(compare_metadata(_context(connection), metadata))
    finally:
        engine.dispose()


def pending(owner_url: str, migrations: Path) -> bool:
    """Say whether the schema is behind the code."""
    engine = create_engine(_sync_url(owner_url))
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_heads()
    finally:
        engine.dispose()
    return set(current) != set(ScriptDirectory.from_config(_config(migrations)).get_heads())


def _context(connection: Connection) -> MigrationContext:
    def ours(name: str | None, kind: str, _: Any) -> bool:
        return not (kind == "table" and name == "alembic_version")

    return MigrationContext.configure(connection, opts={"include_name": ours, "compare_type": True})


def _config(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _sync_url(url: str) -> Any:
    return make_url(url).set(drivername="postgresql+psycopg2", query={})
