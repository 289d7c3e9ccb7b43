"""PostgreSQL takes each query of the .sql files."""

import importlib
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy.dialects.postgresql import psycopg2 as driver

from tests.conftest import NewDatabase

ALERTS = (
    "breakers", "incidents", "subscriptions", "cases.cases", "cases.heartbeats", "cases.overrides",
    "cases.places", "cases.privacy", "cases.queries", "cases.silences", "ledger.gaps",
    "ledger.intake", "ledger.privacy", "ledger.queries", "ledger.transitions", "ledger.upkeep",
)  # fmt: skip
OTHERS = ("consent.store.sql", "console.store.sql", "followups.store.sql")


@pytest.mark.parametrize("module", [*(f"alerts.store.{each}" for each in ALERTS), *OTHERS])
async def test_each_query_can_be_prepared(database: NewDatabase, module: str) -> None:
    run = importlib.import_module(f"services.{module}").run
    service = module.partition(".")[0]
    url = await database(service)
    with closing(psycopg2.connect(url.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET search_path = {service}")
        for name, statement in run.statements.items():
            dialect = driver.dialect()  # type: ignore[no-untyped-call]  # its stub's fault
            sql = statement._clause.compile(dialect=dialect)
            if not str(sql).startswith(("LOCK", "SET")):  # which cannot be prepared
                given = dict.fromkeys(sql.params) | {"batch": 1}
                cursor.execute(f"PREPARE {name}_ AS {sql}", given)
