"""SQLAlchemy's asyncio engine, whose transactions start no greenlet (docs/decisions/0046).

`AsyncEngine.begin` starts four and a task: a tenth of a chat turn's CPU. All that SQLAlchemy does
between the waits for the server needs none.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from libs.common.database.statement import Statement

_COMMIT, _ROLLBACK = Statement("COMMIT"), Statement("ROLLBACK")


class Engine(AsyncEngine):
    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Commit at the end, or roll back after an exception, as SQLAlchemy's `begin` does.

        No other task may still use the connection when it ends. Once anything listens to events of
        the engine, such as its commit, this is SQLAlchemy's own.
        """
        engine = self.sync_engine
        if engine._has_events:  # noqa: SLF001
            async with super().begin() as tx:
                yield tx
            return
        connection = _idle(engine)
        if connection is None:
            connection = await greenlet_spawn(engine.connect)
        # These two send nothing: when they end, COMMIT or ROLLBACK was answered, or the connection
        # was invalidated.
        with connection, connection.begin():
            tx = AsyncConnection(self, connection)
            try:
                yield tx
                await _end(connection, tx, _COMMIT)
            except BaseException:
                await _end(connection, tx, _ROLLBACK)
                raise


@asynccontextmanager
async def alone(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Let each statement be a transaction of its own, which takes one round trip instead of two."""
    async with engine.begin() as tx:
        adapted: Any = (await tx.get_raw_connection()).dbapi_connection
        adapted.autocommit = True
        try:
            yield tx
        finally:
            adapted.autocommit = False


def _idle(engine: sa.Engine) -> sa.Connection | None:
    """Return an open connection of the pool; None if one must be opened or waited for."""
    with suppress(MissingGreenlet):
        return engine.connect()
    return None


async def _end(connection: sa.Connection, tx: AsyncConnection, statement: Statement) -> None:
    if connection.in_transaction() and not connection.invalidated:
        adapted: Any = connection.connection.dbapi_connection
        if adapted.must_end:
            await statement.execute(tx)
