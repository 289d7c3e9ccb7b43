"""A Statement does what SQLAlchemy's execute does."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy import exc, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.database.engine import alone
from libs.common.database.statement import Statement
from tests.support.consumers import until
from tests.support.databases import Databases, DatabaseUrl

TYPES: dict[str, Any] = {
    "id": sa.Uuid,
    "body": JSONB,
    "ids": ARRAY(sa.Uuid),
    "at": sa.DateTime(timezone=True),
    "raw": sa.LargeBinary,
    "name": sa.Text,
}
BOUND = [sa.bindparam(name, type_=kind) for name, kind in TYPES.items()]
ADD = Statement(
    text("INSERT INTO thing VALUES (:id, :body, :ids, :at, :raw, :name)").bindparams(*BOUND)
)
READ = text("SELECT * FROM thing ORDER BY id").columns(**TYPES)


@pytest.fixture(scope="module")
def made(databases: Databases) -> Iterator[DatabaseUrl]:
    fresh = databases.create("alerts", migrated=False)
    dsn = fresh.owner_url.replace("+aiopg", "")
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE thing (id uuid PRIMARY KEY, body jsonb, ids uuid[], at timestamptz,"
            " raw bytea, name text CHECK (name <> 'x'))"
        )
    yield fresh
    databases.drop(fresh.name)


@pytest.fixture
async def engine(made: DatabaseUrl) -> AsyncIterator[AsyncEngine]:
    async with postgres.connect(str(made), application_name="statement", pool_size=1) as opened:
        async with opened.begin() as tx:
            await tx.execute(text("DELETE FROM thing"))
        yield opened


def row(**others: object) -> dict[str, object]:
    each = {
        "id": uuid.uuid4(),
        "body": {"ą": [1, None, "%(id)s"]},
        "ids": [uuid.uuid4()],
        "at": datetime(2026, 11, 28, tzinfo=UTC),
        "raw": b"\x00%s",
        "name": None,
    }
    return each | others


async def count(engine: AsyncEngine) -> int:
    async with engine.begin() as tx:
        return int((await Statement("SELECT count(*) FROM thing").execute(tx)).scalar_one())


async def test_values_are_those_of_sqlalchemy(engine: AsyncEngine) -> None:
    given = [row(), row(body=None, ids=None, at=None, raw=None, name="100 % :id")]
    async with engine.begin() as tx:
        for each in given:
            assert (await ADD.execute(tx, each)).rowcount == 1
        theirs = (await tx.execute(READ)).mappings().all()
        ours = [each._asdict() for each in await Statement(READ).execute(tx)]
    assert ours == [dict(each) for each in theirs]
    assert ours == sorted(given, key=lambda each: str(each["id"]))


async def test_a_value_in_the_clause_may_be_left_out(engine: AsyncEngine) -> None:
    clause = text("SELECT 7 % :by AS rest, 'a%b' AS plain")
    rest = Statement(clause.bindparams(sa.bindparam("by", 4, type_=sa.Integer)))
    async with engine.begin() as tx:
        assert tuple((await rest.execute(tx)).one()) == (3, "a%b")
        assert (await rest.execute(tx, {"by": 5})).one().rest == 2
        with pytest.raises(exc.StatementError):
            await ADD.execute(tx, {"id": uuid.uuid4()})


async def test_an_error_is_sqlalchemys_and_hides_the_row(engine: AsyncEngine) -> None:
    with pytest.raises(exc.IntegrityError) as caught:
        async with engine.begin() as tx:
            await ADD.execute(tx, row(name="x"))
    assert not postgres.is_transient(caught.value)
    assert "Failing row" not in str(caught.value)
    assert "2026-11-28" not in str(caught.value)
    with pytest.raises(exc.ProgrammingError):
        async with engine.begin() as tx:
            await Statement("SELECT * FROM nothing").execute(tx)
    assert await count(engine) == 0


async def test_a_connection_lost_between_statements_is_invalidated(
    engine: AsyncEngine, made: DatabaseUrl
) -> None:
    ending = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid")
    async with engine.connect() as connection:
        pid = (await Statement("SELECT pg_backend_pid()").execute(connection)).scalar_one()
        async with (
            postgres.connect(str(made), application_name="other") as other,
            other.begin() as tx,
        ):
            await tx.execute(ending, {"pid": pid})
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await until(driver.is_closed)
        with pytest.raises(exc.DBAPIError) as caught:
            await Statement("SELECT 1").execute(connection)
        assert caught.value.connection_invalidated
    assert await count(engine) == 0


async def test_the_last_statement_commits_and_nothing_follows_it(engine: AsyncEngine) -> None:
    for listens in (False, True):  # SQLAlchemy's own transaction, once somebody listens
        if listens:
            sa.event.listen(engine.sync_engine, "commit", lambda _: None)
        async with engine.begin() as tx:
            await ADD.execute(tx, row())
            await ADD.execute(tx, row(), commits=True)
            with pytest.raises(exc.InvalidRequestError):
                await ADD.execute(tx, row())
        assert await count(engine) == 2 * (1 + listens)
    tx = await engine.connect()
    await ADD.execute(tx, row())
    with pytest.raises(exc.IntegrityError):
        await ADD.execute(tx, row(name="x"), commits=True)
    await tx.close()
    assert await count(engine) == 4


async def test_a_statement_alone_is_a_transaction(engine: AsyncEngine) -> None:
    async with alone(engine) as tx:
        with pytest.raises(exc.IntegrityError):
            await ADD.execute(tx, row(name="x"))
        await ADD.execute(tx, row())
        await tx.execute(text("SELECT 1"))
    async with engine.connect() as connection:  # the same one, which begins transactions again
        await ADD.execute(connection, row())
    assert await count(engine) == 1
