"""A database per test, cloned from a template that was migrated once."""

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, cursor, make_dsn

from deploy.local.servers import Postgres
from deploy.provision import ROLES, close_database, provision_postgres
from libs.common import migrate

SERVICES = Path(__file__).parents[2] / "services"
PASSWORDS = {role: f"{role}-password" for role in ROLES}


class DatabaseUrl(str):
    """The runtime role's URL; the owner's and the superuser's (psycopg2) beside it."""

    __slots__ = ("name", "owner_url", "superuser_url")
    name: str
    owner_url: str
    superuser_url: str


class Databases:
    def __init__(self, server: Postgres) -> None:
        self.server = server
        self._templates: dict[str | None, str] = {}

    @contextmanager
    def _superuser(self) -> Iterator[cursor]:
        with closing(psycopg2.connect(self.server.dsn)) as connection:
            connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
            with connection.cursor() as opened:
                yield opened

    def _template(self, service: str | None) -> str:
        if service not in self._templates:
            name = f"template_{service or 'empty'}"
            provision_postgres(self.server.dsn, PASSWORDS, database=name)
            migrations = SERVICES / str(service) / "migrations"
            if service is not None:
                migrate.upgrade(service, self.url(service, name).owner_url, migrations)
            self._templates[service] = name
        return self._templates[service]

    def url(self, service: str, name: str, driver: str = "postgresql+aiopg") -> DatabaseUrl:
        def account(role: str) -> str:
            return f"{role}:{PASSWORDS[role]}@127.0.0.1:{self.server.port}/{name}"

        url = DatabaseUrl(f"{driver}://{account(service)}")
        url.name = name
        url.owner_url = f"postgresql://{account(f'{service}_owner')}"
        url.superuser_url = make_dsn(self.server.dsn, dbname=name)
        return url

    def create(self, service: str, *, migrated: bool = True) -> DatabaseUrl:
        template = self._template(service if migrated else None)
        name = f"test_{uuid.uuid4().hex}"
        with self._superuser() as opened:
            opened.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
            close_database(opened, name)
        return self.url(service, name)

    def drop(self, name: str) -> None:
        with self._superuser() as opened:
            opened.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
