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
    Rows are as the driver made them, including JSON and UUIDs. A parameter of None is NULL, also
    where its type is JSON.
    """

    def __init__(self, clause: str | sa.Executable) -> None:
        self._clause: Any = sa.text(clause) if isinstance(clause, str) else clause
        self._compiled: _Compiled | None = None
        self._row: Callable[..., Any] | None = None

    async def execute(
        self, tx: AsyncConnection, given: Mapping[str, Any] | None = None, *, commits: bool = False
    ) -> Rows:
        """Execute it, as `tx.execute` does.

        :param given: the parameters; those with a value in the clause may be missing
        :param commits: it is the transaction's last, and its rows are not wanted: COMMIT is sent
            with it. Whatever is executed next in this transaction raises
        :raises sqlalchemy.exc.DBAPIError: as from `tx.execute`
        """
        connection: Any = tx.sync_connection
        if not connection.in_transaction():
            await tx.begin()
        sql, defaults, processors = self._compiled or self._compile(connection.dialect)
        parameters = {**defaults, **(given or {})}
        for name in processors.keys() & parameters.keys():
            if (value := parameters[name]) is not None:
                parameters[name] = processors[name](value)
        adapted = connection.connection.dbapi_connection
        heard = connection._has_events or connection.engine._has_events  # noqa: SLF001
        if commits and not heard:
            sql += ";COMMIT"
        try:
            cursor = adapted.driver_connection.raw.cursor()
            if heard:
                for listener in connection.dispatch.before_cursor_execute:
                    listener(connection, cursor, sql, parameters, None, False)  # noqa: FBT003
            await adapted.send(cursor, sql, parameters)
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy raises its own
            await greenlet_spawn(_raise, connection, error, sql, parameters)
        if commits:
            await tx.commit() if heard else connection.commit()  # which has nothing to send
        if cursor.description is None:
            return Rows((), cursor.rowcount)
        names = (column[0] for column in cursor.description)
        return self._rows(names, cursor.fetchall(), cursor.rowcount)

    def _rows(self, names: Iterable[str], found: Iterable[Any], rowcount: int) -> Rows:
        if self._row is None:
            # Its fields are known only now.
            self._row = collections.namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024
        return Rows(itertools.starmap(self._row, found), rowcount)

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
