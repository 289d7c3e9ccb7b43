"""Statements of fixed text, which skip SQLAlchemy's work for each execution.

For each one SQLAlchemy looks up the compiled statement, makes a context, a cursor and a result, and
switches greenlets: a quarter of a chat turn's CPU (docs/decisions/0046). Here a statement is
compiled once, and its parameters go to the driver. The pool, the transaction and the translation of
errors remain SQLAlchemy's.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util.concurrency import greenlet_spawn

import libs.common.database.aiopg_dialect  # noqa: F401 - makes postgresql+aiopg:// known to SQLAlchemy

NAMES: dict[type, set[str]] = {
    sa.Connection: {"_handle_dbapi_exception", "_has_events"},
    sa.Engine: {"_has_events"},
}


class Rows(list[Any]):
    """Named tuples, with those methods of SQLAlchemy's results that are used."""

    def __init__(self, found: Iterable[Any], rowcount: int) -> None:
        """:param rowcount: the number of rows that were read or changed"""
        super().__init__(found)
        self.rowcount = rowcount

    def one(self) -> Any:
        """:raises ValueError: there are none, or several"""
        [row] = self
        return row

    def one_or_none(self) -> Any:
        return self.one() if self else None

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalar(self) -> Any:
        return self[0][0] if self else None

    def scalars(self) -> list[Any]:
        return [row[0] for row in self]


class _Compiled(NamedTuple):
    sql: str
    defaults: dict[str, Any]
    processors: dict[str, Callable[[Any], Any]]
    """By parameter, if its type converts values, such as JSON."""


class Statement:
    """A statement that is executed often. It has no list of values that SQLAlchemy expands (`IN`).

    It names its columns: a `*` fails once a column is added. A name that no field of a named tuple
    can have (`from`, `_id`, one that occurs twice) becomes its position: `_2`.
    aiopg's rows are as the driver made them, including JSON and UUIDs. asyncpg's need the types of
    columns in the clause. A parameter of None is NULL with aiopg, also where its type is JSON.
    """

    def __init__(self, clause: str | sa.Executable, *, after: sa.Executable | None = None) -> None:
        """:param after: executed first. With aiopg both are sent at once; still, in READ COMMITTED
        each of the two sees what was committed before it began.
        """
        self._clause: Any = sa.text(clause) if isinstance(clause, str) else clause
        self._after: Any = after
        self._compiled: _Compiled | None = None
        self._row: Callable[..., Any] | None = None

    async def execute(self, tx: AsyncConnection, given: Mapping[str, Any] | None = None) -> Rows:
        """Execute it, as `tx.execute` does.

        :param given: the parameters; those with a value in the clause may be missing
        :raises sqlalchemy.exc.DBAPIError: as from `tx.execute`
        """
        connection: Any = tx.sync_connection
        if connection.dialect.driver != "aiopg":
            return await self._execute_slowly(tx, given)
        if not connection.in_transaction():
            await tx.begin()
        sql, defaults, processors = self._compiled or self._compile(connection.dialect)
        parameters = {**defaults, **(given or {})}
        for name in processors.keys() & parameters.keys():
            if (value := parameters[name]) is not None:
                parameters[name] = processors[name](value)
        adapted = connection.connection.dbapi_connection
        try:
            cursor = adapted.driver_connection.raw.cursor()
            if connection._has_events or connection.engine._has_events:  # noqa: SLF001
                for listener in connection.dispatch.before_cursor_execute:
                    listener(connection, cursor, sql, parameters, None, False)  # noqa: FBT003
            await adapted.send(cursor, sql, parameters)
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy raises its own
            await greenlet_spawn(_raise, connection, error, sql, parameters)
        if cursor.description is None:
            return Rows((), cursor.rowcount)
        names = (column[0] for column in cursor.description)
        return self._rows(names, cursor.fetchall(), cursor.rowcount)

    async def _execute_slowly(self, tx: AsyncConnection, given: Mapping[str, Any] | None) -> Rows:
        if self._after is not None:
            await tx.execute(self._after, given)
        result = await tx.execute(self._clause, given)
        if not result.returns_rows:
            return Rows((), result.rowcount)
        return self._rows(result.keys(), result, result.rowcount)

    def _rows(self, names: Iterable[str], found: Iterable[Any], rowcount: int) -> Rows:
        if self._row is None:
            # Its fields are known only now.
            self._row = collections.namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024
        return Rows(itertools.starmap(self._row, found), rowcount)

    def _compile(self, dialect: sa.Dialect) -> _Compiled:
        clauses = (self._clause,) if self._after is None else (self._after, self._clause)
        compiled = [each.compile(dialect=dialect) for each in clauses]
        binds: dict[str, sa.BindParameter[Any]] = {}
        for each in compiled:
            binds |= each.binds
        processors = {
            name: bind.type.dialect_impl(dialect).bind_processor(dialect)
            for name, bind in binds.items()
        }
        self._compiled = _Compiled(
            ";".join(each.string for each in compiled),
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
