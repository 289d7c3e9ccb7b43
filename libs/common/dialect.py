"""`postgresql+aiopg://`: SQLAlchemy 2.1's asyncio engine over aiopg 1.4 (docs/decisions/0001).

aiopg's own SQLAlchemy layer needs SQLAlchemy below 1.5, and its connection has defects; each is
mended here, where the comment says what happens without.
"""
# mypy: allow-untyped-calls
# ruff: noqa: SLF001 - mending aiopg's connection means touching what it keeps to itself

import asyncio
import collections
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import aiopg
import psycopg2
from psycopg2 import extensions, extras
from sqlalchemy.connectors.asyncio import (
    AsyncAdapt_dbapi_connection,
    AsyncAdapt_dbapi_cursor,
    AsyncAdapt_dbapi_module,
    AsyncAdapt_terminate,
)
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg2 import (
    PGDialect_psycopg2,
    PGExecutionContext_psycopg2,
)
from sqlalchemy.util.concurrency import await_

_LOOK_AGAIN_SECONDS = 1.0
_PAGE = 100

# Bytes, as from every other driver, and not psycopg2's memoryview.
_BYTES = extensions.new_type(
    psycopg2.BINARY.values,
    "BYTES",
    lambda value, cursor: None if value is None else bytes(psycopg2.BINARY(value, cursor)),
)


class Connection(aiopg.Connection):
    """aiopg.Connection with its defects mended, each where it is."""

    _connecting = True
    _inode: int | None = None
    _fileno: Any  # None while nothing is watched
    _timeout: Any
    _weakref: Any

    def __init__(
        self,
        dsn: str | None = None,
        timeout: float = 10.0,
        *,
        command_timeout: float | None = None,
        enable_hstore: bool = False,
        **kw: Any,
    ) -> None:
        """Connect within `timeout` seconds; each statement is answered in `command_timeout`."""
        super().__init__(dsn, timeout, enable_hstore=enable_hstore, **kw)
        self._command_timeout = command_timeout
        # libpq closes its descriptor itself when the connection breaks, and opens another for
        # the next host of a list, both unknown to the loop, which then is deaf (or, uvloop,
        # broken for that number): so the loop watches a duplicate which only this class closes.
        self._loop.remove_reader(self._fileno)
        self._fileno = None
        self._watch()

    async def _connect(self) -> "Connection":
        await super()._connect()
        self._connecting = False
        self._timeout = self._command_timeout
        extensions.register_type(_BYTES, self._conn)
        return self

    def is_closed(self) -> bool:
        """Look at the socket now: its end counts before the loop has told of it."""
        for _ in range(2):  # the server's last words are read before the end
            if not self._conn.closed:
                self._ready(self._weakref)
        return bool(self._conn.closed)

    async def wait_notified(self) -> None:
        """Wait for the next notification.

        :raises psycopg2.Error: the connection is lost
        """
        with self._looking():
            await self.notifies.get()

    def _watch(self) -> None:
        fileno = self._conn.fileno()
        inode = os.fstat(fileno).st_ino
        if inode != self._inode:
            self._unwatch()
            self._inode, self._fileno = inode, os.dup(fileno)
            self._loop.add_reader(self._fileno, self._ready, self._weakref)

    def _unwatch(self) -> None:
        fileno, self._fileno, self._writing = self._fileno, None, False
        if fileno is None:
            return
        if not self._loop.is_closed():
            for remove in self._loop.remove_reader, self._loop.remove_writer:
                with contextlib.suppress(RuntimeError):  # uvloop, above
                    remove(fileno)
        os.close(fileno)

    @staticmethod
    def _ready(weak_self: Any) -> None:
        # aiopg's, at every SQL error, closes the queue of notifications and calls select(), which
        # raises for descriptors >= 1024, so that the query waits for its time-out.
        self: Connection | None = weak_self()
        if self is None:
            return
        conn, waiter = self._conn, self._waiter
        try:
            state = conn.poll()
            while conn.notifies:
                self._notifies.put_nowait(conn.notifies.pop(0))
            if self._connecting:
                self._watch()
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiter must hear it
            if conn.closed:
                self._unwatch()
                self._notifies_proxy.close(error)
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
            return
        if state == extensions.POLL_OK and waiter is not None and not waiter.done():
            waiter.set_result(None)
        writing = state == extensions.POLL_WRITE
        if writing != self._writing:
            self._writing = writing
            with contextlib.suppress(RuntimeError):  # uvloop, above
                if writing:
                    self._loop.add_writer(self._fileno, self._ready, self._weakref)
                else:
                    self._loop.remove_writer(self._fileno)

    async def _poll(self, waiter: asyncio.Future[None], timeout: float | None) -> None:  # noqa: ASYNC109 - aiopg's signature
        # aiopg's turns QueryCanceledError (statement_timeout!) into CancelledError.
        #
        # A query whose task was cancelled ends with its connection: the server looks each
        # client_connection_check_interval whether its client is there. psycopg2's cancel() is no
        # way to end it sooner: it holds the GIL, the whole process, until the server answers.
        self._ready(self._weakref)
        try:
            with self._looking():
                async with asyncio.timeout(timeout or None):
                    await waiter
        except (asyncio.CancelledError, TimeoutError):
            self.close()
            raise
        finally:
            self._waiter = None

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        # uvloop drops a descriptor whose connection was reset after one last call, in which only
        # what came before the reset may be read: while somebody waits, look again each second.
        if isinstance(self._loop, asyncio.BaseEventLoop):
            yield
            return

        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            timer = self._loop.call_later(_LOOK_AGAIN_SECONDS, look)
            self._ready(self._weakref)

        timer = self._loop.call_later(_LOOK_AGAIN_SECONDS, look)
        try:
            yield
        finally:
            timer.cancel()

    def _close(self) -> None:
        self._unwatch()
        super()._close()


class AdaptedCursor(AsyncAdapt_dbapi_cursor):
    __slots__ = ("_rowcount",)
    _awaitable_cursor_close = False
    _adapt_connection: Any
    _cursor: Any
    _soft_closed_memoized: Any

    def __init__(self, adapt_connection: Any) -> None:
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection._connection
        self._cursor = adapt_connection.aiopg_cursor()
        self._soft_closed_memoized = {}
        self._rows = collections.deque()
        self._rowcount: int | None = None

    @property
    def rowcount(self) -> int:
        count = self._rowcount
        return int(self._cursor.raw.rowcount) if count is None else count

    async def _execute_async(self, operation: Any, parameters: Any) -> None:
        async with self._adapt_connection._execute_mutex:
            begin = self._adapt_connection.begin_prefix()
            if begin:  # rides along: no round trip of its own
                operation = (
                    begin.encode() + operation
                    if isinstance(operation, bytes)
                    else begin + operation
                )
            await self._cursor.execute(operation, parameters)
            if self._cursor.raw.description:
                self._rows.extend(self._cursor.raw.fetchall())

    async def _executemany_async(self, operation: Any, seq_of_parameters: Sequence[Any]) -> None:
        # psycopg2 has no executemany for async connections: send pages.
        mogrify, rows = self._cursor.raw.mogrify, list(seq_of_parameters)
        for start in range(0, len(rows), _PAGE):
            page = b";".join([mogrify(operation, row) for row in rows[start : start + _PAGE]])
            await self._execute_async(page, None)
            self._rows.clear()
        self._rowcount = -1

    def setinputsizes(self, *inputsizes: Any) -> None:
        pass


class AdaptedConnection(AsyncAdapt_terminate, AsyncAdapt_dbapi_connection):
    """psycopg2's async connections are autocommit only.

    BEGIN, COMMIT and ROLLBACK are sent from here, and libpq's own state tells what is open.
    """

    __slots__ = ("autocommit", "deferrable", "isolation_level", "readonly")
    _cursor_cls = AdaptedCursor
    _connection: Any

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self.autocommit = self.readonly = self.deferrable = False
        self.isolation_level: str | None = None

    def aiopg_cursor(self) -> Any:
        # Not by aiopg's own cursor(): that is a coroutine, which waits for nothing.
        connection = self._connection
        return aiopg.Cursor(
            connection, connection.raw.cursor(), connection.timeout, connection.echo
        )

    @property
    def closed(self) -> bool:
        return bool(self._connection.closed)

    @property
    def _idle(self) -> bool:
        status = self._connection.raw.get_transaction_status()
        return bool(status == extensions.TRANSACTION_STATUS_IDLE)

    def begin_prefix(self) -> str:
        if self.autocommit or not self._idle:
            return ""
        level = f" ISOLATION LEVEL {self.isolation_level}" if self.isolation_level else ""
        readonly = " READ ONLY" if self.readonly else ""
        deferrable = " DEFERRABLE" if self.deferrable else ""
        return f"BEGIN{level}{readonly}{deferrable};"

    def _end(self, sql: str) -> None:
        if self.closed or not self._idle:  # closed: SQLAlchemy must hear of it
            try:
                await_(self._end_async(sql))
            except Exception as error:  # noqa: BLE001 - SQLAlchemy translates it
                self._handle_exception(error)

    async def _end_async(self, sql: str) -> None:
        async with self._execute_mutex:
            cursor = self.aiopg_cursor()
            await cursor.execute(sql)
            cursor.close()

    def commit(self) -> None:
        self._end("COMMIT")

    def rollback(self) -> None:
        self._end("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    async def _terminate_graceful_close(self) -> None:
        self._connection.close()

    def _terminate_force_close(self) -> None:
        self._connection.close()


class DBAPI(AsyncAdapt_dbapi_module):
    def __init__(self) -> None:
        super().__init__(aiopg, dbapi_module=psycopg2)
        for name in (
            *("Warning", "Error", "InterfaceError", "DatabaseError", "DataError"),
            *("OperationalError", "IntegrityError", "InternalError", "ProgrammingError"),
            *("NotSupportedError", "STRING", "NUMBER", "DATETIME", "BINARY", "ROWID"),
            *("Binary", "paramstyle", "__version__"),
        ):
            setattr(self, name, getattr(psycopg2, name))

    def connect(self, *args: Any, async_creator_fn: Any = Connection, **kw: Any) -> Any:
        return await_(AdaptedConnection.create(self, async_creator_fn(*args, **kw)))


class ExecutionContext(PGExecutionContext_psycopg2):
    def post_exec(self) -> None:
        """Log no notices: psycopg2's asks the cursor for its connection, which aiopg's hides."""


class PGDialect_aiopg(PGDialect_psycopg2):  # noqa: N801 - as SQLAlchemy names its own
    driver = "aiopg"
    is_async = True
    has_terminate = True
    supports_statement_cache = True
    supports_server_side_cursors = False
    execution_ctx_cls = ExecutionContext

    def __init__(self, **kw: Any) -> None:
        super().__init__(use_native_hstore=False, **kw)

    @classmethod
    def import_dbapi(cls) -> Any:
        return DBAPI()

    def initialize(self, connection: Any) -> None:
        # Without PGDialect_psycopg2's, which asks for hstore synchronously.
        super(PGDialect_psycopg2, self).initialize(connection)
        self.supports_sane_multi_rowcount = False

    def create_connect_args(self, url: Any) -> Any:
        args, opts = super().create_connect_args(url)
        if "timeout" in opts:
            opts["timeout"] = float(opts["timeout"])
        if self.client_encoding is not None:
            opts["client_encoding"] = self.client_encoding
        return args, opts

    def on_connect(self) -> Any:
        def on_connect(adapted: AdaptedConnection) -> None:
            if self._json_deserializer:
                for register in extras.register_default_json, extras.register_default_jsonb:
                    register(adapted._connection.raw, loads=self._json_deserializer)

        return on_connect

    def set_isolation_level(self, adapted: Any, level: str) -> None:
        adapted.rollback()
        adapted.autocommit = level == "AUTOCOMMIT"
        adapted.isolation_level = None if adapted.autocommit else level

    def do_executemany(
        self,
        cursor: Any,
        statement: Any,
        parameters: Any,
        context: Any = None,  # noqa: ARG002
    ) -> None:
        cursor.executemany(statement, parameters)

    def do_terminate(self, adapted: Any) -> None:
        adapted.terminate()

    def get_driver_connection(self, adapted: Any) -> Any:
        return adapted._connection


registry.register("postgresql.aiopg", __name__, "PGDialect_aiopg")
