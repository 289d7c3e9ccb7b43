"""GATEWAY_WORKERS=N: N processes on one port, and one that starts, watches and counts them.

The kernel shares new connections out among them (SO_REUSEPORT). Each is a gateway of its own, with
its own connections to Redis, the broker and the owners; limits are exact over all of them because
Redis counts. What they measure lies in files that the supervisor sums up on METRICS_PORT.
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from libs.common import logs, serving
from libs.common.service import Service
from services.gateway.settings import GatewaySettings

log = logs.get_logger(__name__)

NUMBER, LINE = "GATEWAY_WORKER", "GATEWAY_WORKER_LINE"
LONGEST_PAUSE = 15.0
STEADY_SECONDS = 30.0  # one that lived this long starts again without a pause


class Line:
    """A worker's socket to its supervisor."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    @classmethod
    def of_environment(cls) -> "Line | None":
        """Return None in a process that no supervisor started."""
        return cls(int(os.environ[LINE])) if LINE in os.environ else None

    async def hold(self) -> None:
        """Say that this worker serves; return when the supervisor is gone, however it ended."""
        reader, writer = await asyncio.open_connection(sock=self._socket)
        try:
            writer.write(b"!")
            await reader.read()
        finally:
            writer.close()


class Worker:
    def __init__(self, number: int, files: Path, restarts: Counter) -> None:
        self.serves = asyncio.Event()
        self._number = str(number)
        self._files = files
        self._restarts = restarts
        self._process: asyncio.subprocess.Process | None = None
        self._line: asyncio.StreamWriter | None = None

    async def keep_running(self) -> None:
        """Start it again whenever it ends, ever less often if it keeps ending.

        :raises RuntimeError: it ended before it has served even once
        """
        clock, pause = asyncio.get_running_loop().time, 0.0
        while True:
            started = clock()
            code = await self._run()
            if not self.serves.is_set():
                raise RuntimeError(f"worker {self._number} cannot start, it ended with {code}")
            mark_process_dead(self._number, str(self._files))  # type: ignore[no-untyped-call]
            self._restarts.inc()
            log.error("worker.ended", worker=self._number, code=code, again_in=pause)
            await asyncio.sleep(pause)
            steady = clock() - started > STEADY_SECONDS
            pause = 0.0 if steady else min(max(1.0, pause * 2), LONGEST_PAUSE)

    async def _run(self) -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.gateway.worker",
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
        if await reader.read(1):
            self.serves.set()
        code = await self._process.wait()
        self._line.close()
        return code

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
    workers = [Worker(n, files, restarts) for n in range(settings.gateway_workers)]
    await service.enter(_drained(workers))
    for worker in workers:
        service.spawn("worker", worker.keep_running())
    for worker in workers:
        await worker.serves.wait()
    await serving.serve_metrics(service, settings.http_host, settings.metrics_port, registry)


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
