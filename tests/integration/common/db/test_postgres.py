"""Each claim on both event loops."""

import asyncio
import os
import resource
import select
import socket
import struct
import threading
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from deploy.up.servers import Postgres
from libs.common import beside
from libs.common.database import aiopg_private
from libs.common.database import postgres as db
from libs.common.database.engine import alone
from tests.support.databases import Databases, DatabaseUrl
from tests.support.eventually import eventually
from tests.support.proxy import UP, Proxy

TABLE = beside.toml(__file__)


@pytest.fixture(scope="module")
def made(databases: Databases) -> Iterator[DatabaseUrl]:
    fresh = databases.create("alerts", migrated=False)
    execute(
        fresh.owner_url,
        "CREATE TABLE thing"
        " (id uuid PRIMARY KEY, body jsonb, ids uuid[], at timestamptz, raw bytea)",
    )
    execute(
        fresh.owner_url,
        "CREATE TABLE person (email text UNIQUE, age integer CHECK (age > 0), "
        "born date NOT NULL DEFAULT now())",
    )
    execute(fresh.owner_url, "CREATE TABLE once (id integer UNIQUE INITIALLY DEFERRED)")
    yield fresh
    databases.drop(fresh.name)


@pytest.fixture
def url(made: DatabaseUrl) -> str:
    return str(made)


@pytest.fixture
def name() -> str:
    """Of the test's own: a query of the one before may still run."""
    return f"test {uuid.uuid4()}"


@pytest.fixture
async def engine(url: str, name: str) -> AsyncIterator[AsyncEngine]:
    async with db.connect(url, application_name=name, pool_size=1) as opened:
        yield opened


@pytest.fixture
async def other(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection beside the engine under test; each statement is its own transaction."""
    async with (
        db.connect(url, application_name="other") as opened,
        alone(opened) as connection,
    ):
        yield connection


@pytest.fixture
async def proxy(postgres: Postgres) -> AsyncIterator[Proxy]:
    async with Proxy(postgres.port) as opened:
        yield opened


def at_port(url: str, port: int) -> str:
    return make_url(url).set(port=port).render_as_string(hide_password=False)


def execute(url: str, sql: str, *values: object) -> None:
    dsn = url.replace("+aiopg", "")
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql, values)


async def scalar(engine: AsyncEngine, sql: str, **values: object) -> object:
    async with engine.begin() as tx:
        return (await tx.execute(text(sql), values)).scalar_one()


async def pid_of(engine: AsyncEngine) -> int:
    async with engine.begin() as tx:
        return await pid(tx)


async def pid(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def unavailable(asked: Awaitable[object]) -> None:
    with pytest.raises(DBAPIError) as failed:
        await asked
    assert db.is_transient(failed.value)


async def runs(other: AsyncConnection, name: str) -> bool:
    sql = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = :name AND state = 'active' AND query LIKE '%pg_sleep%'"
    )
    return bool((await other.execute(text(sql), {"name": name})).scalar_one())


class Tearing:
    """A way to the server through a thread, where one loop cannot see one thing after the other.

    `tear` ends the connection in half a message and a reset, both at once.
    """

    def __init__(self, server_port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server_port = server_port
        self._told, self._torn = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def tear(self) -> None:
        self._told.set()
        assert self._torn.wait(5)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError), self._listener:  # it is shut down
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
                    while self._pass(client, server):
                        pass
                if self._told.is_set():
                    self._torn.set()

    def _pass(self, client: socket.socket, server: socket.socket) -> bool:
        for end in select.select([client, server], [], [], 0.02)[0]:
            data = end.recv(65536)
            if not data:
                return False
            (server if end is client else client).sendall(data)
        if not self._told.is_set() or self._torn.is_set():
            return True
        client.sendall(b"T\0\0")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


# Transactions


async def test_a_commit_that_fails_is_a_database_error_and_the_connection_stays(
    engine: AsyncEngine,
) -> None:
    async def add_twice() -> None:
        async with engine.begin() as tx:
            await tx.execute(text("INSERT INTO once VALUES (1), (1)"))

    before = await pid_of(engine)
    with pytest.raises(IntegrityError) as failed:
        await add_twice()
    assert not db.is_transient(failed.value)
    assert await pid_of(engine) == before
    assert await scalar(engine, "SELECT count(*) FROM once") == 0


# Settings


async def test_a_statement_over_its_time_is_a_database_error_and_the_connection_stays(
    url: str,
) -> None:
    async with db.connect(
        url, application_name="test", pool_size=1, statement_timeout=0.2
    ) as engine:
        before = await pid_of(engine)
        with pytest.raises(DBAPIError, match="statement timeout"):
            await scalar(engine, "SELECT pg_sleep(30)")
        assert await pid_of(engine) == before


async def test_a_pool_that_stays_empty_means_unavailable(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "POOL_SECONDS", 0.05)
    async with (
        db.connect(url, application_name="test", pool_size=1) as engine,
        engine.begin(),
    ):
        with pytest.raises(sa.exc.TimeoutError) as failed:
            await scalar(engine, "SELECT 1")
    assert db.is_transient(failed.value)


# Lost connections


async def test_a_connection_ended_while_idle_is_replaced_at_its_next_use(
    made: DatabaseUrl, engine: AsyncEngine
) -> None:
    before = await pid_of(engine)
    # The loop stands still until the server's process is gone, and with it its end of the socket.
    execute(made, "SELECT pg_terminate_backend(%s, 5000)", before)
    assert await pid_of(engine) != before


async def test_a_connection_ended_in_a_statement_means_unavailable(engine: AsyncEngine) -> None:
    await unavailable(scalar(engine, "SELECT pg_terminate_backend(pg_backend_pid())"))
    assert await scalar(engine, "SELECT 1") == 1


@pytest.mark.parametrize("ends_with", [None, LookupError])
async def test_a_connection_ended_before_the_end_of_a_transaction_means_unavailable(
    made: DatabaseUrl, engine: AsyncEngine, ends_with: type[Exception] | None
) -> None:
    async def lose() -> None:
        async with engine.begin() as tx:
            execute(made, "SELECT pg_terminate_backend(%s, 5000)", await pid(tx))
            if ends_with is not None:
                raise ends_with

    await unavailable(lose())
    assert await pid_of(engine)


@pytest.mark.parametrize("ends_with", [None, LookupError])
async def test_a_connection_ended_after_its_commit_or_rollback_was_answered_changes_nothing(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, ends_with: type[Exception] | None
) -> None:
    execute_one = aiopg_private.Connection.execute

    async def execute_and_close(self: Any, cursor: Any, operation: Any, given: Any = None) -> None:
        await execute_one(self, cursor, operation, given)
        if operation in {"COMMIT", "ROLLBACK"}:
            self.close()

    async def end() -> None:
        async with engine.begin() as tx:
            await tx.execute(text("SELECT 1"))
            if ends_with is not None:
                raise ends_with

    monkeypatch.setattr(aiopg_private.Connection, "execute", execute_and_close)
    with pytest.raises(ends_with) if ends_with else nullcontext():
        await end()
    assert await pid_of(engine)


async def test_a_connection_reset_in_a_statement_means_unavailable(url: str, proxy: Proxy) -> None:
    async with db.connect(at_port(url, proxy.port), application_name="test") as engine:
        assert await scalar(engine, "SELECT 1") == 1
        sent = proxy.stall_after(UP, b"pg_sleep")
        asking = asyncio.create_task(scalar(engine, "SELECT pg_sleep(4)"))
        await sent.wait()
        proxy.reset()
        await unavailable(asyncio.wait_for(asking, 3))
        await proxy.resume()
        assert await scalar(engine, "SELECT 1") == 1


async def test_a_partial_answer_followed_by_a_reset_means_unavailable(
    url: str, other: AsyncConnection, name: str, postgres: Postgres
) -> None:
    with closing(Tearing(postgres.port)) as way:
        async with db.connect(at_port(url, way.port), application_name=name) as engine:
            asking = asyncio.create_task(scalar(engine, "SELECT pg_sleep(4)"))
            await eventually(lambda: runs(other, name))
            way.tear()
            await unavailable(asyncio.wait_for(asking, 3))
            assert await scalar(engine, "SELECT 1") == 1


async def test_an_unreachable_server_means_unavailable(url: str) -> None:
    async with db.connect(at_port(url, 1), application_name="test") as engine:
        await unavailable(scalar(engine, "SELECT 1"))


async def test_a_server_that_never_answers_means_unavailable(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with db.connect(at_port(url, port), application_name="test") as engine:
            await unavailable(scalar(engine, "SELECT 1"))


async def test_a_server_that_falls_silent_in_a_statement_means_unavailable(
    url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "GRACE_SECONDS", 0.1)
    async with db.connect(
        at_port(url, proxy.port), application_name="test", statement_timeout=0.1
    ) as engine:
        assert await scalar(engine, "SELECT 1") == 1
        proxy.stall()
        await unavailable(scalar(engine, "SELECT 1"))
        await proxy.resume()
        assert await scalar(engine, "SELECT 1") == 1


# Cancellation


async def test_a_cancelled_query_stops_in_the_server(
    engine: AsyncEngine, other: AsyncConnection, name: str
) -> None:
    async def rests() -> bool:
        return not await runs(other, name)

    asking = asyncio.create_task(scalar(engine, "SELECT pg_sleep(4)"))
    await eventually(lambda: runs(other, name))
    asking.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await asking
    await eventually(rests, seconds=2.5)
    assert await scalar(engine, "SELECT 1") == 1


async def test_a_query_cancelled_during_server_silence_does_not_block(
    url: str, proxy: Proxy
) -> None:
    async with db.connect(at_port(url, proxy.port), application_name="test") as engine:
        assert await scalar(engine, "SELECT 1") == 1
        proxy.stall()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await scalar(engine, "SELECT 1")
        await proxy.resume()
        assert await scalar(engine, "SELECT 1") == 1


# Many descriptors


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] < 1100:
        taken.append(os.dup(taken[0]))
    yield
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_error_is_noticed_at_once_with_more_than_1024_descriptors(
    engine: AsyncEngine, many_descriptors: None
) -> None:
    async with asyncio.timeout(3):
        with pytest.raises(DBAPIError, match="22012"):
            await scalar(engine, "SELECT 1 / 0")
        assert await scalar(engine, "SELECT 1") == 1


# LISTEN


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[asyncio.Event]:
    async with db.listen(url, "Some channel") as notified, asyncio.timeout(20):
        await notified.wait()
        notified.clear()
        yield notified


async def test_a_listener_hears_each_notification(url: str, other: AsyncConnection) -> None:
    async with listening(url) as notified:
        for _ in range(3):
            await other.execute(text('NOTIFY "Some channel"'))
            await notified.wait()
            notified.clear()


async def test_a_listener_and_a_pool_work_again_after_the_server_restarted(
    url: str, engine: AsyncEngine, postgres: Postgres
) -> None:
    await pid_of(engine)
    async with listening(url) as notified:
        await asyncio.to_thread(postgres.stop)
        await unavailable(scalar(engine, "SELECT 1"))
        await asyncio.to_thread(postgres.start)
        await notified.wait()
        notified.clear()
        await scalar(engine, """SELECT pg_notify('Some channel', '') IS NULL""")
        await notified.wait()


ANNA = "anna@example.com"


@pytest.mark.parametrize(("statement", "kept"), TABLE["kept"])
async def test_no_value_of_a_row_or_a_statement_reaches_a_log(
    engine: AsyncEngine, postgres: Postgres, statement: str, kept: str
) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with engine.begin() as tx:
            await tx.execute(text(statement), {"anna": ANNA})
    written = "".join(traceback.format_exception(caught.value))
    assert ANNA not in written
    assert kept in written
    assert ANNA not in postgres.log.read_text(encoding="utf-8", errors="replace")
