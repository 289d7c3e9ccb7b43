"""The database: one engine a process, what its failures mean, and LISTEN."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeoutError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from libs.common import dialect, logs

log = logs.get_logger(__name__)

CONNECT_SECONDS = 5.0
POOL_SECONDS = 5.0
DEAD_PEER_MS = 10_000

_SERVER_SETTINGS = {
    # below the deadline of a request: every cancelled query costs a reconnection
    "statement_timeout": "5000",
    "idle_in_transaction_session_timeout": "10000",
    "client_connection_check_interval": "1000",
}
# Not the statement's fault: the server is away, starting, stopping, or out of something.
_UNAVAILABLE_CLASSES = ("08", "53", "57P")


@asynccontextmanager
async def connect(
    url: str,
    *,
    application_name: str,
    pool_size: int = 10,
    statement_timeout: float = 5.0,
    autocommit: bool = False,
) -> AsyncIterator[AsyncEngine]:
    """Open an engine; connections are made when first used, so the server may be away at start.

    :param url: `postgresql+aiopg://…` or `postgresql+asyncpg://…`; all of `libs.common` works
        with both
    :param statement_timeout: seconds
    """
    settings = _SERVER_SETTINGS | {"statement_timeout": str(int(statement_timeout * 1000))}
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        connect_args=_connect_args(url, application_name, settings),
        **({"isolation_level": "AUTOCOMMIT"} if autocommit else {}),
    )
    _replace_dead_connections(engine)
    try:
        yield engine
    finally:
        await engine.dispose()


def _connect_args(url: str, application_name: str, settings: dict[str, str]) -> dict[str, Any]:
    if make_url(url).get_driver_name() == "asyncpg":
        return {
            "timeout": CONNECT_SECONDS,
            "server_settings": settings | {"application_name": application_name},
        }
    return {
        "timeout": CONNECT_SECONDS,
        "application_name": application_name,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        "tcp_user_timeout": DEAD_PEER_MS,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }


def _replace_dead_connections(engine: AsyncEngine) -> None:
    # Both drivers notice a closed socket by themselves; asking the server before each use
    # (pool_pre_ping) costs a quarter of the CPU.
    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(_: Any, record: Any, __: Any) -> None:
        driver = record.driver_connection
        closed = driver.closed if hasattr(driver, "closed") else driver.is_closed()
        if closed:
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
    """LISTEN on a connection of its own: an error on a shared one would end its notifications.

    It reconnects by itself for as long as the context is open. A listener saves waiting, nothing
    else: whoever uses it polls as well.
    """
    listener = Listener()
    task = asyncio.create_task(_listen_forever(url, channel, listener), name=f"listen {channel}")
    try:
        yield listener
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _listen_forever(url: str, channel: str, listener: Listener) -> None:
    wait = (
        _wait_asyncpg
        if make_url(url).get_driver_name() == "asyncpg"
        else dialect.wait_notifications
    )
    while True:
        try:
            await wait(url, channel, listener.event)
        except Exception as error:  # noqa: BLE001 - any fault of the connection means: connect again
            log.warning("db.listen_lost", channel=channel, error=type(error).__name__)
        await asyncio.sleep(1)


async def _wait_asyncpg(url: str, channel: str, notified: asyncio.Event) -> None:
    import asyncpg

    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS)
    lost = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(channel, lambda *_: notified.set())
        notified.set()
        await lost.wait()
    finally:
        connection.terminate()
