"""`postgresql+aiopg://`: SQLAlchemy 2.1's asyncio engine over aiopg 1.4 (docs/decisions/0001).

aiopg's own SQLAlchemy layer needs SQLAlchemy below 1.5.
"""
# mypy: allow-untyped-calls
# ruff: noqa: SLF001 - SQLAlchemy's own adapters keep the driver's connection in `_connection`

import collections
from collections.abc import Sequence
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
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2, PGExecutionContext_psycopg2
from sqlalchemy.util.concurrency import await_

from libs.common.database.aiopg_private import Connection

_PAGE = 100


class AdaptedCursor(AsyncAdapt_dbapi_cursor):
    __slots__ = ("_rowcount",)
    _awaitable_cursor_close = False
    _adapt_connection: Any
    _cursor: Any
    _soft_closed_memoized: Any

    def __init__(self, adapt_connection: Any) -> None:
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection._connection
        self._cursor = self._connection.raw.cursor()
        self._soft_closed_memoized = {}
        self._rows = collections.deque()
        self._rowcount: int | None = None

    @property
    def rowcount(self) -> int:
        count = self._rowcount
        return int(self._cursor.rowcount) if count is None else count

    async def _execute_async(self, operation: Any, parameters: Any) -> None:
        await self._adapt_connection.send(self._cursor, operation, parameters)
        if self._cursor.description:
            self._rows.extend(self._cursor.fetchall())

    async def _executemany_async(self, operation: Any, seq_of_parameters: Sequence[Any]) -> None:
        # psycopg2 has no executemany for async connections: send pages.
        mogrify, rows = self._cursor.mogrify, list(seq_of_parameters)
        for start in range(0, len(rows), _PAGE):
            page = b";".join([mogrify(operation, row) for row in rows[start : start + _PAGE]])
            await self._execute_async(page, None)
            self._rows.clear()
        self._rowcount = -1

    def setinputsizes(self, *inputsizes: Any) -> None:
        pass


class AdaptedConnection(AsyncAdapt_terminate, AsyncAdapt_dbapi_connection):
    """psycopg2's async connections are autocommit only.

    BEGIN, COMMIT and ROLLBACK are sent here; libpq's state shows whether a transaction is open.
    """

    __slots__ = ("_has_ended", "autocommit", "deferrable", "isolation_level", "readonly")
    _cursor_cls = AdaptedCursor
    _connection: Any

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self.autocommit = self.readonly = self.deferrable = self._has_ended = False
        self.isolation_level: str | None = None

    @property
    def closed(self) -> bool:
        return bool(self._connection.closed)

    @property
    def _idle(self) -> bool:
        status = self._connection.raw.get_transaction_status()
        return bool(status == extensions.TRANSACTION_STATUS_IDLE)

    async def send(self, cursor: Any, operation: Any, parameters: Any = None) -> None:
        """Execute with psycopg2's cursor; send any BEGIN with it, which saves a round trip."""
        async with self._execute_mutex:
            self._has_ended = False
            begin = self._begin_prefix()
            if begin:
                operation = (
                    begin.encode() + operation
                    if isinstance(operation, bytes)
                    else begin + operation
                )
            await self._connection.execute(cursor, operation, parameters)
            is_text = isinstance(operation, str)
            self._has_ended = is_text and operation.endswith(("COMMIT", "ROLLBACK"))

    def _begin_prefix(self) -> str:
        if self.autocommit or not self._idle:
            return ""
        level = f" ISOLATION LEVEL {self.isolation_level}" if self.isolation_level else ""
        readonly = " READ ONLY" if self.readonly else ""
        deferrable = " DEFERRABLE" if self.deferrable else ""
        return f"BEGIN{level}{readonly}{deferrable};"

    @property
    def must_end(self) -> bool:
        """Whether a transaction is open, or the connection closed, which SQLAlchemy must notice.

        It may close between the answer to a COMMIT and the task's next step: that one has ended.
        """
        return not self._has_ended and (self.closed or not self._idle)

    def _end(self, sql: str) -> None:
        if self.must_end:
            try:
                await_(self.send(self._connection.raw.cursor(), sql))
            except Exception as error:  # noqa: BLE001 - SQLAlchemy translates it
                self._handle_exception(error)

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
        """Log no notices: psycopg2's code asks the cursor for its connection, which aiopg hides."""


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
        # Skip PGDialect_psycopg2's, which asks for hstore synchronously.
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
