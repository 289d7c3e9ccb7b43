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

from libs.common import beside
from libs.common.database import schema_version
from libs.common.database.queries import texts
from libs.common.process import sockets
from libs.common.process.finding import Finding, clock, say

PATIENCE = 5
"""Seconds for each step."""
_SQL = texts(beside.path(__file__, ".sql"))


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
                there, standby = _row(connection, _SQL["server"])
                yield clock(f"PostgreSQL{host}", float(there), before, now())
                standbys += standby
                if not standby:
                    yield _rights(role, *_row(connection, _SQL["rights"]))
                    yield say(f"schema-{schema_version.version(each, migrations)}", service=role)
        except (psycopg2.Error, SQLAlchemyError) as error:
            faults += 1
            fault = str(error).strip().splitlines()[-1]
            yield say("postgres-fault", role=role, host=host, fault=fault)
    if standbys == len(urls):
        yield say("postgres-standbys")
    elif not faults:
        yield say("postgres", role=role)


def _connect(url: str) -> Any:
    options = f"-c statement_timeout={PATIENCE}s"
    connection = psycopg2.connect(url, connect_timeout=PATIENCE, options=options)
    connection.set_session(readonly=True, autocommit=True)
    return connection


def _row(connection: Any, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


def _rights(role: str, privileged: bool, schemas: list[str], tables: list[str]) -> Finding:  # noqa: FBT001 - a row
    faults = ["is a superuser or may create roles"] if privileged else []
    faults += [f"may use the schema {name}" for name in schemas]
    faults += [f"owns the table {name}" for name in tables]
    return say("rights-more" if faults else "rights", role=role, faults="; ".join(faults))
