"""PostgreSQL takes each query of a queries.sql as asyncpg sends it: the services use aiopg."""

import importlib
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy.dialects.postgresql import asyncpg

from tests.conftest import NewDatabase


@pytest.mark.parametrize("service", ["consent", "console"])
async def test_each_query_can_be_prepared(database: NewDatabase, service: str) -> None:
    run = importlib.import_module(f"services.{service}.store.sql").run
    url = await database(service)
    with closing(psycopg2.connect(url.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET search_path = {service}")
        for name, statement in run._statements.items():
            dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]  # its stub's fault
            sql = str(statement._clause.compile(dialect=dialect))
            if not sql.startswith("LOCK"):  # which cannot be prepared
                cursor.execute(f"PREPARE {name}_ AS {sql}")
