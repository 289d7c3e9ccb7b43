import asyncio
import json
import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.exc import DBAPIError

from libs.common import db
from tests.conftest import NewDatabase

DRIVERS = ["postgresql+aiopg", "postgresql+asyncpg"]


@pytest.fixture(params=DRIVERS)
async def url(request: pytest.FixtureRequest, database: NewDatabase) -> str:
    made = await database("alerts", migrated=False)
    return make_url(made).set(drivername=request.param).render_as_string(hide_password=False)


async def test_values_come_back_as_they_went(url: str) -> None:
    number, now = uuid.uuid4(), datetime.now(UTC)
    statement = text(
        "SELECT CAST(:id AS uuid) AS id, CAST(:body AS jsonb) AS body, "
        "CAST(:at AS timestamptz) AS at, "
        "(SELECT array_agg(x) FROM unnest(CAST(:ids AS uuid[])) x) AS ids"
    ).columns(id=UUID(), body=JSONB())
    async with db.connect(url, application_name="test") as engine, engine.begin() as tx:
        row = (
            await tx.execute(
                statement,
                {"id": number, "body": json.dumps({"ą": [1]}), "at": now, "ids": [number]},
            )
        ).one()
    assert (row.id, row.body, row.at, row.ids) == (number, {"ą": [1]}, now, [number])


async def test_a_statement_over_its_time_is_a_database_error_and_no_cancellation(url: str) -> None:
    async with (
        db.connect(url, application_name="test", statement_timeout=0.2) as engine,
        engine.begin() as tx,
    ):
        with pytest.raises(DBAPIError) as failed:
            await tx.execute(text("SELECT pg_sleep(30)"))
        assert not db.is_unavailable(failed.value)


async def test_a_connection_that_died_is_replaced_at_the_next_use(url: str) -> None:
    async with db.connect(url, application_name="test", pool_size=1) as engine:
        async with engine.begin() as tx:
            pid = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        async with db.connect(url, application_name="killer") as other, other.begin() as tx:
            await tx.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        await asyncio.sleep(0.1)  # the socket's end is noticed by the loop
        async with engine.begin() as tx:
            assert (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one() != pid


async def test_a_connection_lost_in_a_statement_means_unavailable(url: str) -> None:
    async with db.connect(url, application_name="test") as engine:
        with pytest.raises(DBAPIError) as failed:
            async with engine.begin() as tx:
                await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert db.is_unavailable(failed.value)


async def test_an_unreachable_server_means_unavailable() -> None:
    url = "postgresql+aiopg://nobody:nothing@127.0.0.1:1/none"
    async with db.connect(url, application_name="test") as engine:
        with pytest.raises(Exception) as failed:  # noqa: PT011 - which one is the claim below
            async with engine.begin():
                pass
        assert db.is_unavailable(failed.value)


async def test_a_cancelled_query_stops_in_the_server(url: str, database: NewDatabase) -> None:
    async with db.connect(url, application_name="cancelled") as engine:

        async def query() -> None:
            async with engine.begin() as tx:
                await tx.execute(text("SELECT pg_sleep(60)"))

        running = text(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' "
            "AND application_name = 'cancelled' AND query LIKE '%pg_sleep(60)%'"
        )
        async with db.connect(url, application_name="watch", autocommit=True) as watch:

            async def count() -> int:
                async with watch.connect() as connection:
                    return int((await connection.execute(running)).scalar_one())

            task = asyncio.create_task(query())
            async with asyncio.timeout(10):
                while await count() == 0:
                    await asyncio.sleep(0.02)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while await count() > 0:
                    await asyncio.sleep(0.02)


async def test_a_listener_hears_notifications_also_after_its_connection_was_lost(
    url: str, postgres: object
) -> None:
    async with (
        db.listen(url, "test_outbox") as listener,
        db.connect(url, application_name="test", autocommit=True) as engine,
        engine.connect() as connection,
        asyncio.timeout(20),
    ):
        await listener.event.wait()  # connected
        listener.event.clear()
        await connection.execute(text("NOTIFY test_outbox"))
        await listener.event.wait()
        listener.event.clear()
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        )
        await listener.event.wait()  # connected again


async def test_rolled_back_work_leaves_nothing(url: str) -> None:
    async with db.connect(url, application_name="test") as engine:
        with pytest.raises(RuntimeError):
            async with engine.begin() as tx:
                await tx.execute(text("SELECT set_config('a.b', 'x', false)"))
                raise RuntimeError
        async with engine.begin() as tx:
            setting = (await tx.execute(text("SELECT current_setting('a.b', true)"))).scalar_one()
    assert setting in {None, ""}


def test_keys_of_different_names_differ_and_fit_a_bigint() -> None:
    keys = {db.advisory_key(f"alembic:{name}") for name in ("alerts", "consent", "followups")}
    assert len(keys) == 3
    assert all(-(2**63) <= key < 2**63 for key in keys)


