"""A database per test, cloned from a template that was migrated once."""

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, cursor, make_dsn
from psycopg2.extras import NamedTupleCursor

from deploy.provision import ROLES, close_database, provision_postgres
from deploy.up.servers import Postgres
from libs.common.database import migrate

SERVICES = Path(__file__).parents[2] / "services"
PASSWORDS = {role: f"{role}-password" for role in ROLES}


def rows(dsn: str, statement: str, values: tuple[Any, ...] | None = None) -> list[Any]:
    """Ask, or change, a database past every service; rows have names."""
    with (
        closing(psycopg2.connect(dsn, connect_timeout=5)) as connection,
        connection,
        connection.cursor(cursor_factory=NamedTupleCursor) as asking,
    ):
        asking.execute(statement, values)  # type: ignore[no-untyped-call]  # its stub's fault
        return asking.fetchall() if asking.description else []


class DatabaseUrl(str):
    """The runtime role's URL; beside it the others' on the same database."""

    __slots__ = ("_databases", "name", "service")
    name: str
    service: str
    _databases: "Databases"

    @property
    def owner_url(self) -> str:
        return self._databases.account_url(f"{self.service}_owner", self.name, "postgresql")

    @property
    def superuser_url(self) -> str:
        return make_dsn(self._databases.server.dsn, dbname=self.name)

    def of(self, service: str) -> "DatabaseUrl":
        return self._databases.url(service, self.name)


class Databases:
    def __init__(self, server: Postgres) -> None:
        self.server = server
        self._templates: set[str] = set()

    def url(self, service: str, name: str) -> DatabaseUrl:
        url = DatabaseUrl(self.account_url(service, name, "postgresql+aiopg"))
        url.name, url.service, url._databases = name, service, self
        return url

    def account_url(self, role: str, name: str, driver: str) -> str:
        return f"{driver}://{role}:{PASSWORDS[role]}@127.0.0.1:{self.server.port}/{name}"

    def create(self, *services: str, migrated: bool = True) -> DatabaseUrl:
        """Clone a template in which these services are migrated; the URL is the first one's."""
        template = self._template(services if migrated else ())
        name = f"test_{uuid.uuid4().hex}"
        with self._superuser() as opened:
            opened.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
            close_database(opened, name)
        return self.url(services[0], name)

    def drop(self, name: str) -> None:
        with self._superuser() as opened:
            opened.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _template(self, services: tuple[str, ...]) -> str:
        name = "_".join(["template", *services])
        if name not in self._templates:
            provision_postgres(self.server.dsn, PASSWORDS, database=name)
            for service in services:
                migrate.upgrade(
                    service, self.url(service, name).owner_url, SERVICES / service / "migrations"
                )
            self._templates.add(name)
        return name

    @contextmanager
    def _superuser(self) -> Iterator[cursor]:
        with closing(psycopg2.connect(self.server.dsn)) as connection:
            connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
            with connection.cursor() as opened:
                yield opened
