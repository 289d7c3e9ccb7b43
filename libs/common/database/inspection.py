"""Checks each host of a service's database: the role's rights, the version, the clock.

It opens a new connection, because the connections of a pool outlive a changed password.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from libs.common.database import migrate
from libs.common.database.migrate import Version
from libs.common.process import sockets
from libs.common.process.finding import RESTART, Finding, clock, ok, wrong

PATIENCE = 5
"""Seconds for each step."""
_SERVER = "SELECT extract(epoch FROM clock_timestamp()), pg_is_in_recovery()"
_RIGHTS = """
    SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls,
        ARRAY(SELECT nspname::text FROM pg_namespace
            WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public', rolname)
            AND has_schema_privilege(oid, 'USAGE')),
        ARRAY(SELECT relname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname = rolname AND relowner = r.oid)
    FROM pg_roles r WHERE rolname = current_user
"""


def findings(
    url: str, role: str, migrations: Path, now: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """:param now: this machine's clock"""
    urls = sockets.each_host(f"postgresql{url[url.index('://') :]}")
    standbys, faults = 0, 0
    for each in urls:
        host = f" at {each.rpartition('@')[2].partition('/')[0]}" if len(urls) > 1 else ""
        try:
            with closing(_connect(each)) as connection:
                before = now()
                there, standby = _row(connection, _SERVER)
                yield clock(f"PostgreSQL{host}", float(there), before, now())
                standbys += standby
                if not standby:
                    yield _rights(role, *_row(connection, _RIGHTS))
                    yield _version(role, migrate.version(each, migrations))
        except (psycopg2.Error, SQLAlchemyError) as error:
            faults += 1
            yield wrong(
                "PostgreSQL",
                f"as {role}{host}: {str(error).strip().splitlines()[-1]}",
                f"{RESTART} starts it, and sets the roles' passwords as .env has them",
            )
    if standbys == len(urls):
        yield wrong(
            "PostgreSQL",
            "each host is a standby: nothing can be written",
            "promote one (patronictl list, patronictl failover)",
        )
    elif not faults:
        yield ok("PostgreSQL", f"reached as {role}")


def _connect(url: str) -> Any:
    options = f"-c statement_timeout={PATIENCE}s"
    connection = psycopg2.connect(url, connect_timeout=PATIENCE, options=options)
    connection.set_session(readonly=True, autocommit=True)
    return connection


def _row(connection: Any, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


def _version(service: str, found: Version) -> Finding:
    if found is Version.OLDER:
        lacks = f"the schema {service} lacks migrations of this version"
        return wrong("migrations", lacks, f"{RESTART} migrates it")
    if found is Version.NEWER:
        newer = f"a newer version has migrated the schema {service}"
        return wrong("migrations", newer, "finish the upgrade: update this checkout")
    return ok("migrations", f"the schema {service} is up to date")


def _rights(role: str, privileged: bool, schemas: list[str], tables: list[str]) -> Finding:  # noqa: FBT001 - a row
    faults = ["is a superuser or may create roles"] if privileged else []
    faults += [f"may use the schema {name}" for name in schemas]
    faults += [f"owns the table {name}" for name in tables]
    if not faults:
        return ok("rights", f"the role {role} can reach only its own schema")
    return wrong(
        "rights",
        f"the role {role} {'; '.join(faults)}",
        f"revoke it manually (psql as postgres: \\du, \\dn+, \\dt {role}.*)",
    )
