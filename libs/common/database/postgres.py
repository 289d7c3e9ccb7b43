"""PostgreSQL: one engine per process, classification of errors, and LISTEN."""

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

from sqlalchemy import URL, event, exc, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util.concurrency import await_

import libs.common.database.aiopg_dialect  # noqa: F401 - makes postgresql+aiopg:// known to SQLAlchemy
from libs.common.database.engine import Engine, alone
from libs.common.plain import plain
from libs.common.process import sockets, tasks
from libs.common.process.logs import log

CONNECT_SECONDS = 5.0
HOST_SECONDS = 1.5  # for each of several hosts: of three, the last is reached within POOL_SECONDS
POOL_SECONDS = 5.0
DEAD_PEER_SECONDS = 10.0
GRACE_SECONDS = 2.0  # to receive an answer after the server's own statement time-out
IDLE_SECONDS = 10.0  # the server ends a transaction that is idle for this long
RECONNECT_SECONDS = 1.0
CLOCKS_APART_SECONDS = 5  # a host's clock and the server's, at most (docs/cluster.md)
STATEMENT_SECONDS = 5.0  # below the deadline of a request: a cancelled query costs a reconnection

# Data exceptions: the message itself quotes the value.
_QUOTING_CLASS = "22"
# The data is at fault: an invalid value, or a violated constraint.
_DATA_CLASSES = ("22", "23")
# The server is a standby, or a former primary: another connection may reach the new primary.
_READ_ONLY = "25006"


@asynccontextmanager
async def connect(
    url: str,
    *,
    application_name: str,
    pool_size: int = 10,
    statement_timeout: float = STATEMENT_SECONDS,
) -> AsyncIterator[AsyncEngine]:
    """Open an engine. It connects on first use, so the server may be unavailable at start.

    :param url: `postgresql+aiopg://…`; of several hosts (see sockets.each_host) the one that
        accepts writes is used
    :param statement_timeout: seconds
    """
    engine = _engine(
        url,
        application_name,
        statement_timeout,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


def _engine(url: str, application_name: str, statement_timeout: float, **pool: Any) -> AsyncEngine:
    settings = {
        "statement_timeout": f"{statement_timeout * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS * 1000:.0f}",
        "client_connection_check_interval": "1000",  # ends the query of a cancelled task
        # Queries are short: starting parallel workers takes longer than they save.
        "max_parallel_workers_per_gather": "0",
    }
    hosts = [make_url(each) for each in sockets.each_host(url)]
    arguments: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        # a frozen server keeps connections alive and applies no time-out
        "command_timeout": statement_timeout + GRACE_SECONDS,
        "application_name": application_name,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        "tcp_user_timeout": int(DEAD_PEER_SECONDS * 1000),
        "keepalives_idle": sockets.DEAD_PEER_SECONDS,
        "keepalives_interval": 1,
    }
    if len(hosts) > 1:
        arguments |= {"timeout": HOST_SECONDS, "target_session_attrs": "read-write"}
    # hide_parameters: they are personal data, and errors are logged
    pool |= {"hide_parameters": True, "json_serializer": partial(json.dumps, default=plain)}
    made = create_async_engine(hosts[0], connect_args=arguments, **pool)
    engine = Engine(made.sync_engine)
    event.listen(engine.sync_engine, "do_connect", _Hosts(hosts).open if hosts[1:] else _open)
    event.listen(engine.sync_engine, "handle_error", _translate)
    event.listen(engine.sync_engine, "checkout", _discard_closed)
    return engine


# The driver raises some network errors as OSError or TimeoutError. Callers could not tell them from
# their own (e.g. of a mail server), so they become database errors.


def _open(driver: Any, _: Any, arguments: Any, keywords: Any) -> Any:
    try:
        return driver.connect(*arguments, **keywords | await_(_host_address(**keywords)))
    except OSError as error:
        raise driver.dbapi.OperationalError(f"cannot connect: {error!r}") from error


async def _host_address(
    timeout: float,  # noqa: ASYNC109 - the driver's argument
    host: str = "",
    port: int = 5432,
    **_: Any,
) -> dict[str, str]:
    """Try addresses in parallel: libpq tries one after another, each with the full time-out."""
    if not host or host.startswith("/"):  # a socket path
        return {}
    async with asyncio.timeout(timeout):
        return {"hostaddr": await sockets.reachable(host, port)}


class _Hosts:
    """The hosts of one database, tried in order from the one that accepted writes last.

    Not libpq's list: without blocking it ignores connect_timeout, so one host that drops packets
    uses up the time for all.
    """

    def __init__(self, hosts: list[URL]) -> None:
        self._hosts = deque(hosts)

    def open(self, driver: Any, record: Any, arguments: Any, keywords: Any) -> Any:
        faults = []
        for url in list(self._hosts):
            place = {"host": url.host, "port": url.port or 5432}
            try:
                opened = _open(driver, record, arguments, keywords | place)
            except exc.MissingGreenlet:  # see Engine: it is tried again, with one
                raise
            except driver.dbapi.Error as error:
                faults.append(f"{url.host}:{url.port}: {str(error).partition(chr(10))[0]}")
                continue
            # Other tasks may have rotated the list by now, to this host or to another.
            self._hosts.rotate(-self._hosts.index(url))
            return opened
        raise driver.dbapi.OperationalError(f"no host accepts writes: {'; '.join(faults)}")


def _translate(context: ExceptionContext) -> exc.OperationalError | None:
    error = context.original_exception
    if not isinstance(error, OSError):
        _redact(context, error)
        if getattr(error, "pgcode", None) == _READ_ONLY:
            context.is_disconnect = True  # of all connections of the pool
        return None
    context.is_disconnect = True
    return exc.OperationalError(context.statement, None, error, connection_invalidated=True)


def _redact(context: ExceptionContext, error: BaseException) -> None:
    """Remove row data from the server's message: errors are logged.

    PostgreSQL shows the row in DETAIL ("Failing row contains (…)"), a document in CONTEXT, and the
    statement in LINE, where psycopg2 has inserted the parameters.
    """
    shown = context.sqlalchemy_exception
    if shown is None:
        return
    state = str(getattr(error, "pgcode", None) or "")
    said = str(error)
    safe = f"SQLSTATE {state}" if state.startswith(_QUOTING_CLASS) else said.partition("\n")[0]
    shown.args = (str(shown.args[0]).replace(said, safe),)
    error.args = (safe,)


def _discard_closed(_: Any, record: Any, __: Any) -> None:
    # The driver notices a closed socket. Pinging before each use (pool_pre_ping) costs a quarter
    # of the CPU.
    if record.driver_connection.is_closed():
        raise exc.DisconnectionError


def is_transient(error: BaseException) -> bool:
    """Return whether the same work may succeed later, unchanged.

    Accepts any exception. Of PostgreSQL's errors only those of the data itself are permanent: a
    failover, or a missing right, migration or disk space, is not the message's fault.
    """
    if not isinstance(error, exc.DBAPIError):
        return isinstance(error, exc.TimeoutError | exc.DisconnectionError)
    state = getattr(error.orig, "pgcode", None)
    if error.connection_invalidated or state is None:
        return error.connection_invalidated or isinstance(
            error, exc.OperationalError | exc.InterfaceError
        )
    return not str(state).startswith(_DATA_CLASSES)


class through_outages:  # noqa: N801 - read as a function, like contextlib.suppress
    """End the block, without an error, when the database is unavailable; raise every other error.

    A lost statement was rolled back or is unknown: whatever follows must be safe to repeat.
    """

    error: BaseException | None = None

    def __init__(self, event: str | None = None) -> None:
        """:param event: the line to log; None: somebody else logs the outage"""
        self._event = event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None or not is_transient(error):
            return False
        self.error = error
        if self._event is not None:
            log.warning(self._event, error=type(error).__name__)
        return True


def advisory_key(name: str) -> int:
    """Return the key of PostgreSQL's advisory lock for a name (signed 64 bit)."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@asynccontextmanager
async def listen(url: str, channel: str) -> AsyncIterator[asyncio.Event]:
    """LISTEN on a dedicated connection, and reconnect while the context is open.

    The event is set by each notification and after each reconnection, when some may be missed. It
    only shortens waits: its users must poll as well.
    """
    engine = _engine(url, f"listen {channel}", STATEMENT_SECONDS, poolclass=NullPool)
    notified = asyncio.Event()
    task = asyncio.create_task(_listen(engine, channel, notified), name=f"listen {channel}")
    try:
        yield notified
    finally:
        await tasks.end(task)


async def _listen(engine: AsyncEngine, channel: str, notified: asyncio.Event) -> None:
    while True:
        try:
            await _wait(engine, channel, notified)
        except Exception as error:  # noqa: BLE001 - reconnect after any error
            log.warning("database.listen_lost", channel=channel, error=type(error).__name__)
        await asyncio.sleep(RECONNECT_SECONDS)


async def _wait(engine: AsyncEngine, channel: str, notified: asyncio.Event) -> None:
    async with alone(engine) as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        name = engine.dialect.identifier_preparer.quote_identifier(channel)
        await connection.execute(text(f"LISTEN {name}"))
        while True:
            notified.set()
            await driver.wait_notified()
