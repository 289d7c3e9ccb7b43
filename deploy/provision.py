"""Creates what the services may not: accounts, schemas, exchanges, permissions, policies.

Idempotent. `make up`, the containers and the tests all use it.
"""

import importlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, connection
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - its instances are called cursor

from deploy.up.servers import manage
from libs.common import beside
from libs.common.database.postgres import advisory_key
from libs.common.database.primary import connect_primary
from libs.domain import shipped

DATABASE = "ostoja"
VHOST = "ostoja"
CONNECTIONS = {"alerts": 21, "consent": 11, "followups": 11, "console": 6}
"""Per process: pool and listener."""
SCHEMAS = tuple(CONNECTIONS)  # one per service; the gateway has no tables
ROLES = tuple(role for name in SCHEMAS for role in (name, f"{name}_owner"))
OTHER_CONNECTIONS = 10  # of owners, backups and operators
REPLIES = "replies"  # shared: each service binds its exclusive reply queue to it
OTHER_RETRY_SECONDS = 10
SHIPPED_RETRY_DELAYS = (300,)  # for a target that sets none


_FOLDER = Path(__file__).parent
RIGHTS = tomllib.loads((_FOLDER / "rabbitmq" / "rights.toml").read_text(encoding="utf-8"))
_ROLES, _SCHEMA = beside.text(__file__, ".sql").split("\n\n")
"""SQL for one service: in the server, and in our database."""


def provision_postgres(
    superuser_dsn: str, passwords: Mapping[str, str], *, database: str = DATABASE
) -> None:
    """Create the database, with a schema and two roles per service.

    `<svc>_owner` owns the schema and migrates it. `<svc>` may only read and write its rows;
    migrations restrict that further where rows must not change.

    :param passwords: by role, for each of ROLES
    """
    with closing(_connect(superuser_dsn)) as server, server.cursor() as cursor:
        # Three hosts may be set up at once. Held until this connection is closed.
        cursor.execute("SELECT pg_advisory_lock(%s)", (advisory_key("provision"),))
        # A commit that no standby confirms keeps its connection after the client has given up.
        # Without limits, the attempts of one service would use up the connections of all.
        cursor.execute("SELECT current_setting('max_connections')::int")
        (most,) = cursor.fetchone() or (0,)
        for schema, share in CONNECTIONS.items():
            _execute(
                cursor,
                _ROLES,
                **_names(schema),
                password=sql.Literal(passwords[schema]),
                owner_password=sql.Literal(passwords[f"{schema}_owner"]),
                limit=sql.Literal((most - OTHER_CONNECTIONS) * share // sum(CONNECTIONS.values())),
            )
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if cursor.fetchone() != (True,):  # a hosted server: it makes schemas for the owners
            _execute(cursor, "GRANT {owners} TO CURRENT_USER", owners=_list(ROLES[1::2]))
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
        if cursor.fetchone() is None:
            _execute(cursor, "CREATE DATABASE {database}", database=sql.Identifier(database))
        close_database(cursor, database)
        with closing(_connect(superuser_dsn, dbname=database)) as inside, inside.cursor() as own:
            own.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            for schema in SCHEMAS:
                _execute(own, _SCHEMA, **_names(schema))
            # For the search of leads. Its owner may not: a trusted extension needs CREATE here.
            own.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA followups")


def close_database(cursor: Cursor, database: str) -> None:
    """Let only the services' roles connect. A clone of a database does not inherit this."""
    _execute(
        cursor,
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC; "
        "GRANT CONNECT ON DATABASE {database} TO {roles}",
        database=sql.Identifier(database),
        roles=_list(ROLES),
    )


def _connect(url: str, **options: str) -> connection:
    connected: connection = connect_primary(url, **options)
    connected.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)  # for CREATE DATABASE
    return connected


def _execute(cursor: Cursor, statements: str, **names: sql.Composable) -> None:
    cursor.execute(sql.SQL(statements).format(**names))


def _names(schema: str) -> dict[str, sql.Composable]:
    return {"service": sql.Identifier(schema), "owner": sql.Identifier(f"{schema}_owner")}


def _list(names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def exchanges() -> list[tuple[str, str]]:
    """Return name and type of each exchange, from the services' own topologies."""
    found = [(REPLIES, "direct")]
    for service, rights in RIGHTS.items():
        if rights.get("owns", True):
            topology = importlib.import_module(f"services.{service}.topology")
            found += [(exchange.name, exchange.kind) for exchange in topology.EXCHANGES]
    return found


def retry_policies(alerts_config: Path) -> list[dict[str, Any]]:
    """TTLs of the `.retry` queues, as policies: a queue's own arguments can never change."""
    targets = shipped.read(alerts_config, "alerts").whole["targets"]
    return [
        retry_policy("other-retry", r"\.retry$", OTHER_RETRY_SECONDS),
        *(
            retry_policy(
                f"alerts-{name}-retry",
                rf"^alerts\.{name}\.retry$",
                target.get("retry_delays", SHIPPED_RETRY_DELAYS)[0],
                priority=10,
            )
            for name, target in targets.items()
        ),
    ]


def retry_policy(name: str, pattern: str, seconds: float, *, priority: int = 0) -> dict[str, Any]:
    return {
        "name": name,
        "pattern": pattern,
        "apply-to": "queues",
        "definition": {"message-ttl": round(seconds * 1000)},
        "priority": priority,
    }


_EXCHANGE = {"durable": True, "auto_delete": False, "internal": False, "arguments": {}}


def _permissions(service: str) -> dict[str, str]:
    """Allow everything named after a service, and what rights.toml says of others'."""
    rights = RIGHTS[service]
    own = [rf"{service}(\..*)?"] if rights.get("owns", True) else []
    others = {
        "configure": [],
        "write": rights.get("publishes", []),
        "read": rights.get("listens", []),
    }
    every = {what: [*own, *map(re.escape, names)] for what, names in others.items()}
    return {what: f"^({'|'.join(each)})$" if each else "^$" for what, each in every.items()}


def definitions(
    passwords: Mapping[str, str], policies: Sequence[Mapping[str, Any]], vhost: str = VHOST
) -> dict[str, list[dict[str, Any]]]:
    """Return the vhost, a least-privilege account per service, the exchanges and the policies.

    :param passwords: by service, for each of RIGHTS
    """
    return {
        "vhosts": [{"name": vhost}],
        "users": [{"name": one, "password": passwords[one], "tags": []} for one in RIGHTS],
        "permissions": [
            {"user": service, "vhost": vhost, **_permissions(service)} for service in RIGHTS
        ],
        "exchanges": [
            {"name": name, "vhost": vhost, "type": kind, **_EXCHANGE} for name, kind in exchanges()
        ],
        "policies": [{"vhost": vhost, **policy} for policy in policies],
    }


def provision_rabbitmq(
    management_url: str,
    admin: tuple[str, str],
    passwords: Mapping[str, str],
    policies: Sequence[Mapping[str, Any]],
    *,
    vhost: str = VHOST,
    tls_dir: Path | None = None,
) -> None:
    """Create what `definitions` returns.

    :param tls_dir: our certificate, if the URL is https
    """
    document = definitions(passwords, policies, vhost)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    document["permissions"].append({"user": admin[0], "vhost": vhost, **everything})
    manage(management_url, admin, "POST", "definitions", document, tls_dir=tls_dir)
