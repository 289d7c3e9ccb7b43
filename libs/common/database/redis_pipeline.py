"""One pipelined connection to Redis, which all requests of a process share.

redis-py's pool and retry layers cost more here than Redis itself (docs/decisions/0004). All callers
share one connection, so none waits for a free one or queues behind a dead Redis: a reply that is
100 ms late, an error or a lost connection fails every waiting call at once.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import hiredis

from libs.common.database.redis_server import RedisServer
from libs.common.process import certificates, sockets
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED

_CONNECTED = SHARED.gauge("gateway_redis_connected", "livemin")

ANSWER_SECONDS = 0.1
LOOK_AGAIN_SECONDS = 0.02
CONNECT_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
RECONNECT_SECONDS_MAX = 5.0

Argument = str | bytes | int
Read = Callable[[Any], None]


class RedisUnavailable(ConnectionError):  # noqa: N818 - reads as the state it is
    """Redis does not answer. Whether it acted is unknown."""


class RedisPipeline:
    """A connection that `run` keeps open in the background."""

    def __init__(self, url: str, scripts: Iterable[Path] = ()) -> None:
        """:param scripts: files of Lua, which `evaluate` knows by their names"""
        self._url = url
        self._server = RedisServer(url)
        self._scripts = {each.stem: each.read_bytes() for each in scripts}
        self._shas: dict[str, bytes] = {}
        self._connection: _Connection | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def evaluate(
        self, script: str, keys: Sequence[str], arguments: Sequence[Argument], read: Read
    ) -> Awaitable[None]:
        """Run the Lua script of this name; pass its reply to `read` when it arrives.

        `read` runs before any other code, even if the caller was cancelled: what Redis has counted
        is known here before the next request is decided.

        :raises RedisUnavailable: at once without a connection, else after the time-out
        """
        sha = self._shas.get(script, b"")  # without a connection there is none yet
        return self._call(read, "EVALSHA", sha, len(keys), *keys, *arguments)

    async def command(self, *command: Argument) -> Any:
        """Return the reply to a command; raises as `evaluate`."""
        answers: list[Any] = []
        await self._call(answers.append, *command)
        return answers[0]

    def _call(self, read: Read, *command: Argument) -> Awaitable[None]:
        if self._connection is None:
            raise RedisUnavailable("not connected")
        return self._connection.call(read, *command)

    async def run(self) -> None:
        """Keep a connection for the life of the service; log each loss and return once."""
        lost, pause = False, RECONNECT_SECONDS
        while True:
            error: BaseException | None = None
            try:
                connection = await self._connect()
            except (OSError, TimeoutError) as failure:
                error = failure
            else:
                connected_at = time.monotonic()
                if lost:
                    log.info("redis_pipeline.connected")
                lost = False
                error = await self._use(connection)
                # Retry ever less often if Redis accepts connections but rejects work.
                lived = time.monotonic() - connected_at > RECONNECT_SECONDS_MAX
                pause = RECONNECT_SECONDS if lived else min(pause * 2, RECONNECT_SECONDS_MAX)
            if not lost:
                log.warning("redis_pipeline.disconnected", error=repr(error))
            lost = True
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _use(self, connection: "_Connection") -> BaseException | None:
        self._connection = connection
        _CONNECTED.set(1)
        try:
            return await connection.closed
        finally:
            self._connection = None
            _CONNECTED.set(0)
            connection.fail(RedisUnavailable("stopping"))

    async def _connect(self) -> "_Connection":
        options = self._server.options
        async with asyncio.timeout(CONNECT_SECONDS):
            if "path" in options:
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_unix_connection(_Connection, options["path"])
            else:
                connection = await self._open(await self._place())
            try:
                await self._greet(connection)
            except BaseException:
                connection.fail(RedisUnavailable("refused"))
                raise
        return connection

    async def _place(self) -> tuple[str, int]:
        """Return where Redis is.

        All Sentinels are asked at once: one that drops packets would use up a caller's time.
        """
        options, sentinels = self._server.options, self._server.sentinels
        if not sentinels:
            return options.get("host", "localhost"), options.get("port", 6379)
        asking = [asyncio.create_task(self._ask(place)) for place in sentinels]
        fault: Exception | None = None
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    return await answer
                except OSError as error:
                    fault = error
            raise RedisUnavailable(f"no Sentinel knows a master {self._server.master!r}: {fault}")
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, place: tuple[str, int]) -> tuple[str, int]:
        connection = await self._open(place)
        try:
            await self._log_in(connection, self._server.sentinel_options)
            answers: list[Any] = []
            name = self._server.master
            await connection.call(answers.append, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
            if answers[0] is None:
                raise RedisUnavailable(f"{place} knows none")
            host, port = answers[0]
            return host.decode(), int(port)
        finally:
            connection.fail(RedisUnavailable("asked"))

    async def _open(self, place: tuple[str, int]) -> "_Connection":
        host, port = place
        secure = "connection_class" in self._server.options  # parse_url sets it for rediss:// only
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection,
            sock=await sockets.connected(host, port),
            ssl=certificates.of_url(self._url) if secure else None,
            server_hostname=host if secure else None,
        )
        return connection

    async def _greet(self, connection: "_Connection") -> None:
        options = self._server.options
        await self._log_in(connection, options)
        if options.get("db"):
            await connection.call(_ignore, "SELECT", options["db"])
        for name, script in self._scripts.items():
            shas: list[bytes] = []
            await connection.call(shas.append, "SCRIPT", "LOAD", script)
            self._shas[name] = shas[0]

    @staticmethod
    async def _log_in(connection: "_Connection", options: dict[str, Any]) -> None:
        if options.get("password"):
            account = [options["username"]] if options.get("username") else []
            await connection.call(_ignore, "AUTH", *account, options["password"])


def _ignore(_: Any) -> None:
    pass


class _Connection(asyncio.Protocol):
    """Replies arrive in the order of the calls, so a deque of waiting calls is enough."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._waiting: deque[tuple[float, asyncio.Future[None], Read]] = deque()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        # RESP2 has no booleans: False means that a reply is incomplete.
        self._reader = hiredis.Reader()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or RedisUnavailable("closed by Redis"))

    def call(self, read: Read, *command: Argument) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        if self._transport is None or self.closed.done():
            future.set_exception(RedisUnavailable("not connected"))
            return future
        self._waiting.append((self._loop.time(), future, read))
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(cast("Any", command)))
        if self._timer is None:
            self._timer = self._loop.call_later(ANSWER_SECONDS, self._look)
        return future

    def _flush(self) -> None:
        """Send the calls of one loop iteration together: a system call costs more than a call."""
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while self._waiting:
                answer = self._reader.gets()
                if answer is False:  # the rest of a reply is on its way
                    return
                if isinstance(answer, hiredis.ReplyError):
                    self.fail(RedisUnavailable(str(answer)))
                    return
                _, future, read = self._waiting.popleft()
                read(answer)
                if not future.done():
                    future.set_result(None)
        except Exception as error:  # noqa: BLE001 - replies can no longer be matched to calls
            self.fail(error)

    def _look(self, *, again: bool = False) -> None:
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][0] + ANSWER_SECONDS - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif not again:
            # uvloop runs timers before it reads sockets: after a pause of this process, the reply
            # may be there unread. Wait one more loop iteration.
            look = partial(self._look, again=True)
            self._timer = self._loop.call_later(LOOK_AGAIN_SECONDS, look)
        else:
            self.fail(RedisUnavailable("no answer in time"))

    def fail(self, error: BaseException) -> None:
        """Close; every waiting call raises RedisUnavailable."""
        if not self.closed.done():
            self.closed.set_result(error)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            _, future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(RedisUnavailable(str(error)))
