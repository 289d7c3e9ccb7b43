"""The database: one engine a process, what its failures mean, and LISTEN."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from libs.common import (
    dialect,  # noqa: F401 - makes postgresql+aiopg:// known to SQLAlchemy
    logs,
    tasks,
)

log = logs.get_logger(__name__)

CONNECT_SECONDS = 5.0
POOL_SECONDS = 5.0
DEAD_PEER_SECONDS = 10.0

RECONNECT_SECONDS = 1.0
STATEMENT_SECONDS = 5.0  # below the deadline of a request: a cancelled query costs a reconnection

# Not the statement's fault: the server is away, starting, stopping, or out of something.
_UNAVAILABLE_CLASSES = ("08", "53", "57P")


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
    _replace_dead_connections(engine)
    try:
        yield engine
    finally:
        await engine.dispose()


def _engine(
    url: str, application_name: str, statement_timeout: float, *, autocommit: bool, **pool: Any
) -> AsyncEngine:
    settings = {
        "statement_timeout": f"{statement_timeout * 1000:.0f}",
        "idle_in_transaction_session_timeout": "10000",
        "client_connection_check_interval": "1000",
    }
    if make_url(url).get_driver_name() == "asyncpg":
        arguments = {
            "timeout": CONNECT_SECONDS,
            # of the client, for a peer that is gone: asyncpg sets no option of the socket
            "command_timeout": statement_timeout + DEAD_PEER_SECONDS,
            "server_settings": settings | {"application_name": application_name},
        }
    else:
        arguments = {
            "timeout": CONNECT_SECONDS,
            "application_name": application_name,
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            "tcp_user_timeout": int(DEAD_PEER_SECONDS * 1000),
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
    if autocommit:
        pool["isolation_level"] = "AUTOCOMMIT"
    return create_async_engine(url, connect_args=arguments, **pool)


def _replace_dead_connections(engine: AsyncEngine) -> None:
    # Both drivers know of a closed socket; asking the server before each use (pool_pre_ping)
    # costs a quarter of the CPU.
    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(_: Any, record: Any, __: Any) -> None:
        if record.driver_connection.is_closed():
            raise DisconnectionError


def is_unavailable(error: BaseException) -> bool:
    """Say whether the database is away, so that the same work may succeed later, unchanged."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        state = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None)
        if state is not None:
            return str(state).startswith(_UNAVAILABLE_CLASSES)
        return isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, PoolTimeoutError | DisconnectionError | ConnectionError | TimeoutError)


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
