"""A task may be cancelled at any await: SQLAlchemy's own sweep cancels at each of them in turn.

It checks that the cancellation reaches the task, that every connection is closed, that no place in
the pool is lost and that the pool serves the same scenario again.
"""

import asyncio
import contextlib
import gc
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.testing.cancellation import sweep

from libs.common.database import postgres
from libs.common.database.engine import alone
from libs.common.database.statement import Statement
from tests.conftest import NewDatabase
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually

pytestmark = pytest.mark.dialect

Scenario = Callable[[AsyncEngine], Awaitable[None]]

NAME = "swept"
FIXED = Statement("INSERT INTO thing VALUES (gen_random_uuid(), 'a')")
thing = sa.Table(
    "thing",
    sa.MetaData(),
    sa.Column("id", sa.Uuid, primary_key=True, default=uuid.uuid4),
    sa.Column("name", sa.Text),
)


async def one_statement(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(sa.select(sa.func.now()))


async def a_transaction(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await tx.execute(thing.insert().values(name="a"))
        await tx.execute(sa.select(thing).limit(1))


async def a_statement_that_takes_time(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await tx.execute(sa.select(sa.func.pg_sleep(0.05)))


async def rows_in_pages(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await tx.execute(thing.insert(), [{"name": str(number)} for number in range(150)])
        await tx.execute(sa.text("SELECT :number"), [{"number": 1}, {"number": 2}])


async def an_error_and_a_rollback(engine: AsyncEngine) -> None:
    try:
        async with engine.begin() as tx:
            await tx.execute(sa.text("SELECT 1 / 0"))
    except sa.exc.DataError:
        pass
    else:
        pytest.fail("PostgreSQL divided by zero")


async def fixed_statements(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await FIXED.execute(tx)
    with contextlib.suppress(LookupError):
        async with engine.begin() as tx:
            await FIXED.execute(tx)
            raise LookupError
    async with engine.begin() as tx:
        await FIXED.execute(tx)
        await FIXED.execute(tx, commits=True)
    async with alone(engine) as tx:
        await FIXED.execute(tx)
        await FIXED.execute(tx)


async def a_savepoint_that_fails(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        try:
            async with tx.begin_nested():
                await tx.execute(sa.text("SELECT 1 / 0"))
        except sa.exc.DataError:
            await tx.execute(sa.select(1))


async def statements_without_a_transaction(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(sa.select(1))
        await connection.execute(sa.select(sa.literal_column("2")))


async def another_isolation_level(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="SERIALIZABLE")
        async with connection.begin():
            await connection.execute(sa.select(1))


async def a_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(sa.select(1))


async def three_at_once_for_two_connections(engine: AsyncEngine) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(a_transaction(engine))


SCENARIOS: list[Scenario] = [
    one_statement,
    a_transaction,
    a_statement_that_takes_time,
    rows_in_pages,
    an_error_and_a_rollback,
    fixed_statements,
    a_savepoint_that_fails,
    statements_without_a_transaction,
    another_isolation_level,
    a_session,
    three_at_once_for_two_connections,
]
MODES = {
    "connecting": {},
    "pooled": {"warm": True},
    "replacing": {"warm": True, "recycle": True},
}


@pytest.fixture(autouse=True)
def little_to_collect() -> Iterator[None]:
    """Keep what pytest holds out of the collections of garbage, two for each await of a sweep."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
async def url(database: NewDatabase) -> DatabaseUrl:
    made = await database("alerts", migrated=False)
    with closing(psycopg2.connect(made.owner_url)) as owner, owner, owner.cursor() as cursor:
        cursor.execute("CREATE TABLE thing (id uuid PRIMARY KEY, name text)")
    return made


async def connections(watch: AsyncEngine) -> list[str]:
    query = "SELECT query FROM pg_stat_activity WHERE application_name = :name"
    async with alone(watch) as connection:
        return list((await connection.execute(sa.text(query), {"name": NAME})).scalars())


async def assert_swept(url: DatabaseUrl, scenario: Scenario, **how: Any) -> None:
    def engine() -> AsyncEngine:
        return postgres._engine(url, NAME, 5, pool_size=2, max_overflow=0)

    swept = sweep(engine, scenario, **how)  # type: ignore[no-untyped-call]  # as SQLAlchemy has it
    assert await swept == []

    async with postgres.connect(url, application_name="watch") as watch:

        async def nothing_left() -> bool:
            return not await connections(watch)

        await eventually(nothing_left)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_a_task_cancelled_at_any_await_leaves_the_pool_healthy_and_the_server_idle(
    url: DatabaseUrl, scenario: Scenario, mode: str
) -> None:
    await assert_swept(url, scenario, **MODES[mode])


@pytest.mark.parametrize("mode", MODES)
async def test_a_task_cancelled_again_while_it_cleans_up_leaves_the_pool_healthy(
    url: DatabaseUrl, mode: str
) -> None:
    await assert_swept(url, an_error_and_a_rollback, cancels=2, **MODES[mode])
