"""PostgreSQL: each service's role can connect, is migrated, and can only append to the trail."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from deploy.up.environment import ROOT, WITH_TABLES
from libs.common.database import migrate
from libs.common.database.migrate import Version
from libs.common.process import sockets
from ostoja.doctor.clock import judged
from ostoja.doctor.deployment import PATIENCE, RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, wrong

APPEND_ONLY = "consent.consent_audit_log"
TRIGGERS = ("trail_link", "trail_refuse")
_SERVER = "SELECT extract(epoch FROM clock_timestamp()), pg_is_in_recovery()"
_RIGHTS = """
    SELECT current_user AS role, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls
        AS privileged,
        ARRAY(SELECT nspname FROM pg_namespace WHERE nspname = ANY(%(others)s)
            AND has_schema_privilege(oid, 'USAGE')) AS foreign_schemas,
        ARRAY(SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname = current_user AND relowner = r.oid) AS owned_tables
    FROM pg_roles r WHERE rolname = current_user
"""
_TRAIL = f"""
    SELECT
        ARRAY(SELECT what FROM unnest(ARRAY['UPDATE', 'REFERENCES']) what
            WHERE has_any_column_privilege('{APPEND_ONLY}', what))
        || ARRAY(SELECT what FROM unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) what
            WHERE has_table_privilege('{APPEND_ONLY}', what)) AS may,
        ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = '{APPEND_ONLY}'::regclass
            AND tgenabled = 'A') AS enabled
"""


def check(deployment: Deployment, now: Callable[[], float]) -> Iterator[Finding]:
    """:param now: this machine's clock, as `time.time`"""
    reached: list[str] = []
    for role in WITH_TABLES:
        urls = sockets.each_host(deployment.database_url(role))
        standbys = 0
        for url in urls:
            host = _of_several(url, urls)
            try:
                with closing(_connect(url)) as connection:
                    before = now()
                    ((clock, standby),) = _rows(connection, _SERVER)
                    if role == WITH_TABLES[0]:
                        yield judged(f"PostgreSQL{host}", float(clock), before, now())
                    standbys += standby
                    if standby:
                        continue
                    yield from _rights(connection, role)
                    yield from _migrated(url, role)
                    if role == "consent":
                        yield from _trail(connection)
                reached.append(role)
            except (psycopg2.Error, SQLAlchemyError) as error:
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
    if reached:
        yield ok("PostgreSQL", f"reached as {', '.join(reached)}")


def _of_several(url: str, urls: Sequence[str]) -> str:
    return f" at {url.rpartition('@')[2].partition('/')[0]}" if len(urls) > 1 else ""


def _connect(url: str) -> Any:
    connection = psycopg2.connect(
        url, connect_timeout=int(PATIENCE), options=f"-c statement_timeout={int(PATIENCE)}s"
    )
    connection.set_session(readonly=True, autocommit=True)
    return connection


def _rows(connection: Any, statement: str, values: Any = None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _migrated(url: str, service: str) -> Iterator[Finding]:
    migrations = ROOT / "services" / service / "migrations"
    match migrate.version(url, migrations):
        case Version.CURRENT:
            yield ok("migrations", f"the schema {service} is up to date")
        case Version.OLDER:
            lacks = f"the schema {service} lacks migrations of this version"
            yield wrong("migrations", lacks, f"{RESTART} migrates it")
        case Version.NEWER:
            newer = f"a newer version has migrated the schema {service}"
            yield wrong("migrations", newer, "finish the upgrade: update this checkout")


def _rights(connection: Any, role: str) -> Iterator[Finding]:
    others = [name for name in WITH_TABLES if name != role]
    ((_, privileged, foreign_schemas, owned_tables),) = _rows(
        connection, _RIGHTS, {"others": others}
    )
    faults = ["is a superuser or may create roles"] if privileged else []
    faults += [f"may use the schema {name}" for name in foreign_schemas]
    faults += [f"owns the table {name}" for name in owned_tables]
    if faults:
        yield wrong(
            "rights",
            f"the role {role} {'; '.join(faults)}",
            f"revoke it manually (psql as postgres: \\du, \\dn+, \\dt {role}.*)",
        )
    else:
        yield ok("rights", f"the role {role} can reach only its own schema")


def _trail(connection: Any) -> Iterator[Finding]:
    ((may, enabled),) = _rows(connection, _TRAIL)
    disabled = [name for name in TRIGGERS if name not in enabled]
    if may or disabled:
        found = [f"consent may {', '.join(may)} rows" if may else ""]
        found += [f"the trigger {name} is disabled" for name in disabled]
        yield wrong(
            "trail",
            f"it is not append-only: {'; '.join(filter(None, found))}",
            "ostoja consent verify; then REVOKE it, or ALTER TABLE … ENABLE ALWAYS TRIGGER",
        )
    else:
        yield ok("trail", "append-only for the role consent")
