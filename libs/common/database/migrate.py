"""Alembic per service: each has its own versions and version table, and migrates one at a time.

`services/<name>/migrations/` contains only `versions/*.py`; the environment is here. The owner's
`search_path` is the service's schema, so that neither tables nor migrations name it.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from libs.common.database.postgres import advisory_key
from libs.common.process import certificates

VERSIONS = "alembic_version"


def upgrade(service: str, owner_url: str, migrations: Path) -> None:
    """Bring the service's schema up to date, as its owner, in one transaction.

    Any number of replicas may call it concurrently: one migrates, the others wait and do nothing.
    """
    config, script = _script(migrations)

    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - as alembic's own command

    with (
        transaction(owner_url) as connection,
        EnvironmentContext(config, script, fn=steps) as environment,
    ):
        # Lock before reading the version, or it could be out of date. Without the lock, most of
        # eight concurrent migrations fail.
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:key)"), {"key": advisory_key(f"alembic:{service}")}
        )
        environment.configure(connection, version_table=VERSIONS)
        environment.run_migrations()
        # The runtime role may read every table of the schema and write it; not this one.
        role = connection.dialect.identifier_preparer.quote_identifier(service)
        connection.execute(text(f"REVOKE INSERT, UPDATE, DELETE ON {VERSIONS} FROM {role}"))


def pending(url: str, migrations: Path) -> bool:
    """Return whether the schema's version differs from the code's; works for both roles."""
    _, script = _script(migrations)
    with transaction(url) as connection:
        current = MigrationContext.configure(connection).get_current_heads()
    return set(current) != set(script.get_heads())


def command(service: str, migrations: Path, arguments: Sequence[str]) -> int:
    """Run `python -m services.<service> migrate`.

    :returns: the exit code
    """
    if list(arguments) != ["migrate"]:
        sys.stderr.write(f"usage: python -m services.{service} [migrate]\n")
        return 2
    owner_url = os.environ.get("OWNER_DATABASE_URL")
    if path := os.environ.get("OWNER_DATABASE_URL_FILE"):
        owner_url = owner_url or Path(path).read_text(encoding="utf-8").strip()
    if not owner_url:
        sys.stderr.write("cannot migrate: OWNER_DATABASE_URL is not set\n")
        return 2
    upgrade(service, certificates.in_url(owner_url, certificates.of_environment()), migrations)
    return 0


@contextmanager
def transaction(url: str) -> Iterator[Connection]:
    # Use psycopg2, because alembic is synchronous; the URL may name another driver.
    sync_url = make_url(url).set(drivername="postgresql+psycopg2")
    engine = create_engine(sync_url, poolclass=NullPool, connect_args={"connect_timeout": 10})
    with engine.begin() as connection:
        yield connection


def _script(migrations: Path) -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config, ScriptDirectory.from_config(config)
