"""aiopg 1.4's connection with its defects fixed; each comment says what happens without the fix.

tests/unit/common/test_private_names.py fails if a new version moves a private name that is used.
"""
# mypy: allow-untyped-calls

import asyncio
import contextlib
import math
import os
from typing import Any

import aiopg
import psycopg2
from psycopg2 import extensions

_LOOK_AGAIN_SECONDS = 1.0

# Bytes, as from every other driver, and not psycopg2's memoryview.
_BYTES = extensions.new_type(
    psycopg2.BINARY.values,
    "BYTES",
    lambda value, cursor: None if value is None else bytes(psycopg2.BINARY(value, cursor)),
)


class Connection(aiopg.Connection):
    """aiopg.Connection with its defects fixed, each in place."""

    _connecting = True
    _inode: int | None = None
    _fileno: Any  # None while nothing is watched
    _timer: asyncio.TimerHandle | None = None
    _end = -math.inf  # when the wait for the server ends, in the loop's time
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
        # libpq closes its descriptor when the connection breaks, and opens another for the next
        # host of a list. The loop learns nothing and gets no events (uvloop then fails for that
        # number). So the loop watches a duplicate that only this class closes.
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
        """Check the socket now: the peer may have closed it before the loop noticed."""
        for _ in range(2):  # read the server's last message before the end of the stream
            if not self._conn.closed:
                self._ready(self._weakref)
        return bool(self._conn.closed)

    async def execute(self, cursor: Any, operation: Any, parameters: Any = None) -> None:
        """Execute with psycopg2's cursor: aiopg's own costs more than the statement itself."""
        waiter = self._create_waiter("execute")
        try:
            cursor.execute(operation, parameters)
        except BaseException:
            self._waiter = None
            raise
        await self._poll(waiter, self._timeout)

    async def wait_notified(self) -> None:
        """Wait for the next notification.

        :raises psycopg2.Error: the connection is lost
        """
        self._look_until(math.inf)
        try:
            await self.notifies.get()
        finally:
            self._end = -math.inf

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
        # At each SQL error aiopg closes the queue of notifications and calls select(), which raises
        # for descriptors >= 1024: the query then waits for its time-out.
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
        # aiopg turns QueryCanceledError (statement_timeout!) into CancelledError.
        #
        # The query of a cancelled task ends with its connection: the server checks for its client
        # each client_connection_check_interval. psycopg2's cancel() is no alternative: it holds the
        # GIL until the server answers.
        self._ready(self._weakref)
        self._look_until(self._loop.time() + timeout if timeout else math.inf)
        try:
            await waiter
        except (asyncio.CancelledError, TimeoutError):
            self.close()
            raise
        finally:
            self._end = -math.inf
            self._waiter = None

    def _look_until(self, end: float) -> None:
        # uvloop drops the descriptor of a reset connection after one last call, which may read only
        # the data before the reset: during a wait, check again each second. The timer outlives a
        # short wait and serves the next one: one for each statement costs 2 % of a chat turn.
        self._end = end
        if self._timer is None:
            seconds = min(_LOOK_AGAIN_SECONDS, end - self._loop.time())
            self._timer = self._loop.call_later(seconds, self._look, self._weakref)

    @staticmethod
    def _look(weak_self: Any) -> None:
        self: Connection | None = weak_self()
        if self is None:
            return
        self._timer = None
        if self._end == -math.inf:
            return
        self._ready(self._weakref)
        if self._loop.time() < self._end:
            self._look_until(self._end)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError())

    def _close(self) -> None:
        self._unwatch()
        super()._close()
