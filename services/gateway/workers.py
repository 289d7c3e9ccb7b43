"""GATEWAY_WORKERS=N: N processes on one port, and one that starts, watches and counts them.

The kernel shares new connections out among them (SO_REUSEPORT). Each is a gateway of its own, with
its own connections to Redis, the broker and the owners; limits are exact over all of them because
Redis counts. What they measure lies in files that the supervisor sums up on METRICS_PORT.
"""

import asyncio
import os
import resource
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from libs.common import logs
from libs.common.service import Service
from services.gateway import scrape
from services.gateway.settings import GatewaySettings

log = logs.get_logger(__name__)

NUMBER, LINE = "GATEWAY_WORKER", "GATEWAY_WORKER_LINE"
LONGEST_PAUSE = 15.0
STEADY_SECONDS = 30.0  # one that lived this long starts again without a pause
PURGE_SECONDS = 2.0
MODULE = "services.gateway.worker"
PURGE = b"purge\n"


class Line:
    """A worker's socket to its supervisor; a line of text is a message.

    `serves` goes up once. `purge` goes up from the worker that was asked, down to all, and comes
    back as `purged N` from each and as their sum.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._writer: asyncio.StreamWriter | None = None
        self._sums: deque[asyncio.Future[int]] = deque()

    @classmethod
    def of_environment(cls) -> "Line | None":
        """Return None in a process that no supervisor started."""
        return cls(int(os.environ[LINE])) if LINE in os.environ else None

    async def hold(self, purge: Callable[[], int]) -> None:
        """Say that this worker serves; return when the supervisor is gone, however it ended."""
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        try:
            self._writer.write(b"serves\n")
            async for line in reader:
                if line == PURGE:
                    self._writer.write(b"purged %d\n" % purge())
                elif self._sums and not (waiting := self._sums.popleft()).done():
                    waiting.set_result(int(line.split()[1]))
        finally:
            self._writer.close()

    async def purge_all(self) -> int:
        """Purge the caches of all workers; return how many entries went.

        :raises TimeoutError: the supervisor does not answer
        """
        if self._writer is None:
            return 0  # nobody can ask yet
        self._writer.write(PURGE)
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._sums.append(waiting)
        async with asyncio.timeout(2 * PURGE_SECONDS):
            return await waiting


class Worker:
    def __init__(
        self, number: int, files: Path, restarts: Counter, purge_all: Callable[[], Awaitable[int]]
    ) -> None:
        self.serves = asyncio.Event()
        self._purge_all = purge_all
        self._purged: asyncio.Future[int] | None = None
        self._number = str(number)
        self._files = files
        self._restarts = restarts
        self._process: asyncio.subprocess.Process | None = None
        self._line: asyncio.StreamWriter | None = None
        self._asking: set[asyncio.Task[None]] = set()  # a task that nobody holds may vanish

    async def keep_running(self) -> None:
        """Start it again whenever it ends, ever less often if it keeps ending.

        :raises RuntimeError: it ended before it has served even once
        """
        clock, pause = asyncio.get_running_loop().time, 0.0
        while True:
            started = clock()
            code = await self._run()
            steady = clock() - started > STEADY_SECONDS
            if not self.serves.is_set():
                raise RuntimeError(f"worker {self._number} cannot start, it ended with {code}")
            mark_process_dead(self._number, str(self._files))  # type: ignore[no-untyped-call]
            self._restarts.inc()
            log.error("worker.ended", worker=self._number, code=code, again_in=pause)
            await asyncio.sleep(pause)
            pause = 0.0 if steady else min(max(1.0, pause * 2), LONGEST_PAUSE)

    async def _run(self) -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                MODULE,
                pass_fds=(theirs.fileno(),),
                env={
                    **os.environ,
                    NUMBER: self._number,
                    LINE: str(theirs.fileno()),
                    "PROMETHEUS_MULTIPROC_DIR": str(self._files),
                },
            )
        # Not closed when this is cancelled: a worker that drains still holds the other end.
        reader, self._line = await asyncio.open_connection(sock=ours)
        with suppress(ConnectionError):
            async for line in reader:
                self._hear(line)
        code = await self._process.wait()
        self._line.close()
        return code

    def _hear(self, line: bytes) -> None:
        if line == b"serves\n":
            self.serves.set()
        elif line == PURGE:
            task = asyncio.create_task(self._answer_purge())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        elif self._purged is not None and not self._purged.done():
            self._purged.set_result(int(line.split()[1]))

    async def _answer_purge(self) -> None:
        purged = await self._purge_all()
        if self._line is not None:
            self._line.write(b"purged %d\n" % purged)

    async def purge(self) -> int:
        """Purge its cache; 0 where it is dead or does not answer in time."""
        if self._line is None or self._line.is_closing():
            return 0
        self._purged = asyncio.get_running_loop().create_future()
        self._line.write(PURGE)
        with suppress(TimeoutError):
            async with asyncio.timeout(PURGE_SECONDS):
                return await self._purged
        return 0

    def memory(self) -> int:
        """Return its resident bytes; 0 while it is dead."""
        if self._process is None:
            return 0
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        except OSError:  # it ended meanwhile
            return 0
        return int(pages) * resource.getpagesize()

    def terminate(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def ended(self) -> None:
        """Return when it has drained and ended; a wait that is given up kills it."""
        if self._process is None:
            return
        try:
            await self._process.wait()
        finally:
            with suppress(ProcessLookupError):
                self._process.kill()
            if self._line is not None:
                self._line.close()


async def supervise(service: Service, settings: GatewaySettings) -> None:
    files = await service.enter(_folder())
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(files))  # type: ignore[no-untyped-call]
    restarts = Counter(
        "gateway_worker_restarts_total",
        "Workers that ended and were started again.",
        registry=registry,
    )
    workers: list[Worker] = []
    purging = asyncio.Lock()

    async def purge_all() -> int:
        async with purging:
            return sum(await asyncio.gather(*(worker.purge() for worker in workers)))

    workers += [Worker(n, files, restarts, purge_all) for n in range(settings.gateway_workers)]
    await service.enter(_drained(workers))
    memory = Gauge("gateway_worker_memory_bytes", "Resident memory.", ["worker"], registry=registry)
    for number, worker in enumerate(workers):
        memory.labels(number).set_function(worker.memory)
        service.spawn("worker", worker.keep_running())
    for worker in workers:
        await worker.serves.wait()
    await scrape.serve(service, settings, registry)


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    with TemporaryDirectory(prefix="ostoja-gateway-") as name:
        yield Path(name)


@asynccontextmanager
async def _drained(workers: Sequence[Worker]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        await asyncio.gather(*(worker.ended() for worker in workers))
