"""The database: one engine a process, what its failures mean, and LISTEN."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

import libs.common.dialect  # noqa: F401 - makes postgresql+aiopg:// known to SQLAlchemy
from libs.common import logs, tasks

log = logs.get_logger(__name__)

CONNECT_SECONDS = 5.0
POOL_SECONDS = 5.0
DEAD_PEER_SECONDS = 10.0
GRACE_SECONDS = 2.0  # for an answer to come after the server must have given up the statement
IDLE_SECONDS = 10.0  # the server ends a transaction in which nothing happens for so long
RECONNECT_SECONDS = 1.0
STATEMENT_SECONDS = 5.0  # below the deadline of a request: a cancelled query costs a reconnection

# The message itself quotes the value: data exceptions.
_QUOTING_CLASS = "22"
# Not the statement's fault: the server is away, starting, stopping, or out of something.
_UNAVAILABLE_CLASSES = ("08", "53", "57P")
# Nor this: serialisation, deadlock, a lock not to be had, statement_timeout.
_PASSING_STATES = ("40001", "40P01", "55P03", "57014")


@asynccontextmanager
async def connect(
    url: str,
    *,
    application_name: str,
    pool_size: int = 10,
    statement_timeout: float = STATEMENT_SECONDS,
    autocommit: bool = False,
) -> AsyncIterator[AsyncEngine]:
    """Open an engine; connections are made when first used, so the server may be away at start.

    :param url: `postgresql+aiopg://…` or `postgresql+asyncpg://…`; all of `libs.common` works
        with both
    :param statement_timeout: seconds
    """
    engine = _engine(
        url,
        application_name,
        statement_timeout,
        autocommit=autocommit,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


def _engine(
    url: str, application_name: str, statement_timeout: float, *, autocommit: bool, **pool: Any
) -> AsyncEngine:
    settings = {
        "statement_timeout": f"{statement_timeout * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS * 1000:.0f}",
        "client_connection_check_interval": "1000",  # ends the query of a task that was cancelled
        # What is asked here is short: to start workers for it takes longer than they save.
        "max_parallel_workers_per_gather": "0",
    }
    arguments: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        # a server that is frozen keeps its connections alive and keeps no time-out of its own
        "command_timeout": statement_timeout + GRACE_SECONDS,
    }
    if make_url(url).get_driver_name() == "asyncpg":
        arguments["server_settings"] = settings | {"application_name": application_name}
    else:
        arguments |= {
            "application_name": application_name,
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            "tcp_user_timeout": int(DEAD_PEER_SECONDS * 1000),
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
    if autocommit:
        pool["isolation_level"] = "AUTOCOMMIT"
    # hide_parameters: they are people's addresses, and an error ends in a log
    engine = create_async_engine(url, connect_args=arguments, hide_parameters=True, **pool)
    event.listen(engine.sync_engine, "do_connect", _open)
    event.listen(engine.sync_engine, "handle_error", _translate)
    event.listen(engine.sync_engine, "checkout", _check)
    return engine


# The drivers let some faults of the network through as OSError or TimeoutError. A caller could not
# tell them from its own (of a mail server, say), so they become errors of the database.


def _open(driver: Any, _: Any, arguments: Any, keywords: Any) -> Any:
    try:
        return driver.connect(*arguments, **keywords)
    except OSError as error:
        raise driver.dbapi.OperationalError(f"cannot connect: {error!r}") from error


def _translate(context: ExceptionContext) -> OperationalError | None:
    error = context.original_exception
    if not isinstance(error, OSError):
        _conceal(context, error)
        return None
    context.is_disconnect = True
    return OperationalError(context.statement, None, error, connection_invalidated=True)


def _conceal(context: ExceptionContext, error: BaseException) -> None:
    """Leave of the server's message what holds no row: an error ends in a log.

    PostgreSQL shows the row in DETAIL ("Failing row contains (…)"), a document in CONTEXT, and
    psycopg2's statement, in which the parameters stand, in LINE.
    """
    shown = context.sqlalchemy_exception
    if shown is None:
        return
    state = str(getattr(error, "pgcode", None) or "")
    said = str(error)
    told = f"SQLSTATE {state}" if state.startswith(_QUOTING_CLASS) else said.partition("\n")[0]
    shown.args = (str(shown.args[0]).replace(said, told),)
    error.args = (told,)
    if (cause := error.__cause__) is not None:  # asyncpg's own, which a traceback shows as well
        cause.args = (told,)
        vars(cause).update(detail=None, hint=None)


def _check(_: Any, record: Any, __: Any) -> None:
    # Both drivers know of a closed socket; asking the server before each use (pool_pre_ping)
    # costs a quarter of the CPU.
    if record.driver_connection.is_closed():
        raise DisconnectionError


def is_unavailable(error: BaseException) -> bool:
    """Say whether the database is away, so that the same work may succeed later, unchanged.

    Any exception may be asked about: one that is not the database's is no sign of its absence.
    """
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeoutError | DisconnectionError)
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "pgcode", None)
    if state is not None:
        return str(state).startswith(_UNAVAILABLE_CLASSES)
    return isinstance(error, OperationalError | InterfaceError)


def may_pass(error: BaseException) -> bool:
    """Say whether the same work may succeed later: as `is_unavailable`, or slow, or in a lock."""
    state = getattr(error.orig, "pgcode", None) if isinstance(error, DBAPIError) else None
    return state in _PASSING_STATES or is_unavailable(error)


def advisory_key(name: str) -> int:
    """Turn a name into a key for PostgreSQL's advisory locks (signed 64 bit)."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class Listener:
    """`event` is set at every notification, and after each reconnection (some may be missed)."""

    def __init__(self) -> None:
        self.event = asyncio.Event()


@asynccontextmanager
async def listen(url: str, channel: str) -> AsyncIterator[Listener]:
    """LISTEN on a connection of its own, and connect again for as long as the context is open.

    A listener saves waiting, nothing else: whoever uses it polls as well.
    """
    engine = _engine(
        url, f"listen {channel}", STATEMENT_SECONDS, autocommit=True, poolclass=NullPool
    )
    listener = Listener()
    task = asyncio.create_task(_listen(engine, channel, listener.event), name=f"listen {channel}")
    try:
        yield listener
    finally:
        await tasks.end(task)


async def _listen(engine: AsyncEngine, channel: str, notified: asyncio.Event) -> None:
    wait = _wait_asyncpg if engine.driver == "asyncpg" else _wait_aiopg
    while True:
        try:
            await wait(engine, channel, notified)
        except Exception as error:  # noqa: BLE001 - whatever the fault, the cure is to connect again
            log.warning("db.listen_lost", channel=channel, error=type(error).__name__)
        await asyncio.sleep(RECONNECT_SECONDS)


async def _wait_aiopg(engine: AsyncEngine, channel: str, notified: asyncio.Event) -> None:
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        name = engine.dialect.identifier_preparer.quote_identifier(channel)
        await connection.execute(text(f"LISTEN {name}"))
        while True:
            notified.set()
            await driver.wait_notified()


async def _wait_asyncpg(engine: AsyncEngine, channel: str, notified: asyncio.Event) -> None:
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        lost = asyncio.Event()
        driver.add_termination_listener(lambda _: lost.set())
        await driver.add_listener(channel, lambda *_: notified.set())
        notified.set()
        await lost.wait()
