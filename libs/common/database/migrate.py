"""Alembic per service: each has its own versions and version table, and migrates one at a time.

A migration is `services/<name>/migrations/versions/NNNN_thing.sql`, and follows the one before. The
owner's `search_path` is the service's schema, so that neither tables nor migrations name it.

A migration runs while the previous release serves, so it may only add what that release ignores,
and it must not hold a lock for long: docs/upgrade.md has the rules, and `make lint` checks the SQL.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from alembic import op
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionMap
from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from libs.common.database import primary
from libs.common.database.postgres import advisory_key
from libs.common.database.schema_version import VERSIONS, in_order
from libs.common.process import certificates

# A statement that waits for a lock makes every later one on the table wait behind it.
LOCK_SECONDS = 2
TRIES = 30
PAUSE_SECONDS = 2.0
POLL_SECONDS = 0.2


class SchemaBusyError(Exception):
    """A migration did not get its lock; what is committed so far stays, and a retry continues."""


def upgrade(service: str, owner_url: str, migrations: Path) -> None:
    """Bring the service's schema up to date, as its owner, each migration in its own transaction.

    Any number of replicas may call it concurrently: one migrates, the others wait and do nothing.
    A kill leaves the schema at a whole migration; the next call continues there.

    :raises SchemaBusyError: it got no lock in TRIES tries
    """
    with primary.engine(owner_url).connect() as connection:
        # Lock before reading the version, or it could be out of date. Without the lock, most of
        # eight concurrent migrations fail. It is the session's: concurrent indexes need commits.
        key = {"key": advisory_key(f"alembic:{service}")}
        # Polled: an index that is built concurrently waits for every transaction that waits.
        while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one():
            connection.rollback()
            time.sleep(POLL_SECONDS)
        connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
        connection.commit()
        for tries_left in reversed(range(TRIES)):
            try:
                _run(service, connection, migrations)
            except OperationalError as error:
                if not isinstance(error.orig, LockNotAvailable):
                    raise
                connection.rollback()
                if not tries_left:
                    raise SchemaBusyError(
                        f"the schema {service} is in use: a lock was not free for "
                        f"{LOCK_SECONDS} s in {TRIES} tries. Look for old transactions "
                        "(SELECT pid, xact_start, state FROM pg_stat_activity ORDER BY 2), then "
                        "migrate again"
                    ) from error
                time.sleep(PAUSE_SECONDS)
            else:
                return


@contextmanager
def _environment(
    migrations: Path, connection: Connection | None, options: dict[str, Any], **context: Any
) -> Iterator[EnvironmentContext]:
    config, script = _script(migrations)

    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - as alembic's own command

    with EnvironmentContext(config, script, fn=steps, **options) as environment:
        environment.configure(
            connection, version_table=VERSIONS, transaction_per_migration=True, **context
        )
        with environment.begin_transaction():
            yield environment


def _run(service: str, connection: Connection, migrations: Path) -> None:
    with _environment(migrations, connection, {}) as environment:
        environment.run_migrations()
    # The runtime role may read and write every table of the schema but this one. Repeated each
    # time, for a run that was killed before it.
    role = connection.dialect.identifier_preparer.quote_identifier(service)
    connection.execute(text(f"REVOKE INSERT, UPDATE, DELETE ON {VERSIONS} FROM {role}"))
    connection.commit()


# An index on a table that may be large is built while it is written.
_CONCURRENT = re.compile(r"^(CREATE (?:UNIQUE )?INDEX CONCURRENTLY (\w+)[^;]*);\n", re.MULTILINE)
_INCLUDED = re.compile(r"^\\ir (\S+)\n", re.MULTILINE)  # as psql has it: beside this file
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


def _execute(migration: Path) -> None:
    """Execute its SQL; an index that is built concurrently commits what is before it.

    One that an interrupted build left behind, which PostgreSQL never uses, is dropped first.
    """
    sql = migration.read_text(encoding="utf-8")
    sql = _INCLUDED.sub(lambda line: (migration.parent / line[1]).read_text(encoding="utf-8"), sql)
    at = 0
    for index in _CONCURRENT.finditer(sql):
        _execute_some(sql[at : index.start()])
        at = index.end()
        with op.get_context().autocommit_block():
            op.execute("SET lock_timeout = 0")  # it blocks no reader and no writer while it waits
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index[2]}")
            op.execute(index[1])
            op.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    _execute_some(sql[at:])


def _execute_some(sql: str) -> None:
    if _COMMENT.sub("", sql).strip():
        op.execute(sql)


def _revisions(migrations: Path) -> Iterator[Script]:
    before = None
    for number, path in in_order(migrations):

        def upgrade(path: Path = path) -> None:
            _execute(path)

        module = ModuleType(path.stem)
        module.__dict__.update(down_revision=before, upgrade=upgrade)
        yield Script(module, number, path)
        before = number


def offline_sql(migrations: Path, after: str | None, output: TextIO) -> None:
    """Write the SQL of the migrations after a revision, or of all, without a database."""
    options = {"as_sql": True, "starting_rev": after}
    with _environment(
        migrations, None, options, dialect_name="postgresql", output_buffer=output
    ) as environment:
        output.write(f"SET lock_timeout = '{LOCK_SECONDS}s';\n")
        environment.run_migrations()


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
    try:
        upgrade(service, certificates.in_url(owner_url, certificates.of_environment()), migrations)
    except SchemaBusyError as error:
        sys.stderr.write(f"cannot migrate: {error}\n")
        return 1
    return 0


def _script(migrations: Path) -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    script.revision_map = RevisionMap(partial(_revisions, migrations))
    return config, script
