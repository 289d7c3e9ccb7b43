"""Statements of fixed text, which skip SQLAlchemy's work for each execution.

For each one SQLAlchemy looks up the compiled statement, makes a context, a cursor and a result, and
switches greenlets: a quarter of a chat turn's CPU (docs/decisions/0046). Here a statement is
compiled once, and its parameters go to the driver. The pool, the transaction and the translation of
errors remain SQLAlchemy's.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util.concurrency import greenlet_spawn

from libs.common.database.aiopg_dialect import AdaptedCursor

NAMES: dict[type, set[str]] = {
    sa.Connection: {"_handle_dbapi_exception"},
    AdaptedCursor: {"_execute_async"},
}


class Rows(IteratorResult[Any]):
    """SQLAlchemy's result, with the number of rows that were read or changed."""

    def __init__(self, columns: SimpleResultMetaData, found: Iterable[Any], rowcount: int) -> None:
        super().__init__(columns, iter(found))
        self.rowcount = rowcount


class _Compiled(NamedTuple):
    sql: str
    defaults: dict[str, Any]
    processors: dict[str, Callable[[Any], Any]]
    """Of the parameters whose type converts them, as JSON."""


class Statement:
    """A statement that is executed often. It has no list of values that SQLAlchemy expands (`IN`).

    aiopg's rows are as the driver made them, of JSON and UUIDs as well. asyncpg's need the types of
    columns in the clause. A parameter of None is NULL with aiopg, also where its type is JSON.
    """

    def __init__(self, clause: str | sa.Executable) -> None:
        self._clause: Any = sa.text(clause) if isinstance(clause, str) else clause
        self._compiled: _Compiled | None = None
        self._columns: SimpleResultMetaData | None = None

    async def execute(self, tx: AsyncConnection, given: Mapping[str, Any] | None = None) -> Rows:
        """Execute it, as `tx.execute` does.

        :param given: the parameters; those with a value in the clause may be missing
        :raises sqlalchemy.exc.DBAPIError: as from `tx.execute`
        """
        if tx.dialect.driver != "aiopg":
            return await self._execute_slowly(tx, given)
        if not tx.in_transaction():
            await tx.begin()
        sql, defaults, processors = self._compiled or self._compile(tx.dialect)
        parameters = defaults | dict(given or {})
        for name in processors.keys() & parameters.keys():
            if (value := parameters[name]) is not None:
                parameters[name] = processors[name](value)
        connection: Any = tx.sync_connection
        fairy = connection.connection
        try:
            cursor = fairy.cursor()
            for listener in connection.dispatch.before_cursor_execute:
                listener(connection, cursor, sql, parameters, None, False)  # noqa: FBT003
            await cursor._execute_async(sql, parameters)  # noqa: SLF001
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy raises its own
            await greenlet_spawn(_raise, connection, error, sql, parameters)
        if self._columns is None:
            self._columns = SimpleResultMetaData([each[0] for each in cursor.description or ()])
        return Rows(self._columns, cursor.fetchall(), cursor.rowcount)

    async def _execute_slowly(self, tx: AsyncConnection, given: Mapping[str, Any] | None) -> Rows:
        result = await tx.execute(self._clause, given)
        keys, found = (tuple(result.keys()), result.all()) if result.returns_rows else ((), [])
        return Rows(SimpleResultMetaData(keys), found, result.rowcount)

    def _compile(self, dialect: sa.Dialect) -> _Compiled:
        compiled = self._clause.compile(dialect=dialect)
        binds: dict[str, sa.BindParameter[Any]] = compiled.binds
        processors = {
            name: bind.type.dialect_impl(dialect).bind_processor(dialect)
            for name, bind in binds.items()
        }
        self._compiled = _Compiled(
            compiled.string,
            {name: bind.value for name, bind in binds.items() if not bind.required},
            {name: process for name, process in processors.items() if process is not None},
        )
        return self._compiled


def _raise(connection: Any, error: BaseException, sql: str, given: Mapping[str, Any]) -> None:
    """Raise SQLAlchemy's exception for the driver's, and invalidate what is lost."""
    try:
        raise error  # noqa: TRY301 - it asks sys.exc_info(), which each greenlet has of its own
    except BaseException as raised:  # noqa: BLE001
        connection._handle_dbapi_exception(raised, sql, given, None, None)  # noqa: SLF001
