"""GATEWAY_WORKERS=N: N processes on one port, and a supervisor that starts and watches them.

The kernel distributes new connections among the workers (SO_REUSEPORT). Each is a gateway with its
own connections to Redis, the broker and the upstreams; limits are exact over all of them because
Redis counts. Workers write their metrics to files, which the supervisor adds up on METRICS_PORT.
"""

import asyncio
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from libs.common.http import server
from libs.common.process.logs import log
from libs.common.process.service import Service
from services.gateway.settings import GatewaySettings

NUMBER, LINK = "GATEWAY_WORKER", "GATEWAY_WORKER_LINK"
LONGEST_PAUSE = 15.0
STEADY_SECONDS = 30.0  # a worker that ran this long restarts without a pause
MODULE = "services.gateway.worker"
SERVES = b"serves\n"


def link_of_environment() -> int | None:
    """Return the descriptor of a worker's link to its supervisor; None in any other process."""
    return int(os.environ[LINK]) if LINK in os.environ else None


async def hold(link: int) -> None:
    """Report that this worker serves; return when its supervisor has ended."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=link))
    try:
        writer.write(SERVES)
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
        self._link: asyncio.StreamWriter | None = None

    async def keep_running(self) -> None:
        """Restart the worker whenever it ends, with growing pauses if it keeps ending.

        :raises RuntimeError: it ended before it ever served
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
                    LINK: str(theirs.fileno()),
                    "PROMETHEUS_MULTIPROC_DIR": str(self._files),
                },
            )
        # Not closed when this is cancelled: a draining worker still has the other end open.
        reader, self._link = await asyncio.open_connection(sock=ours)
        with suppress(ConnectionError):
            if await reader.readline() == SERVES:
                self.serves.set()
            await reader.read()
        code = await self._process.wait()
        self._link.close()
        return code

    def memory(self) -> int:
        """Return its resident bytes; 0 while it is dead."""
        if self._process is None:
            return 0
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        except OSError:  # it has ended by now
            return 0
        return int(pages) * resource.getpagesize()

    def terminate(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def ended(self) -> None:
        """Return when it has drained and ended; if cancelled, kill it."""
        if self._process is None:
            return
        try:
            await self._process.wait()
        finally:
            with suppress(ProcessLookupError):
                self._process.kill()
            if self._link is not None:
                self._link.close()


async def supervise(service: Service, settings: GatewaySettings) -> None:
    files = await service.enter(_folder())
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(files))  # type: ignore[no-untyped-call]
    restarts = Counter(
        "gateway_worker_restarts_total",
        "Restarts of workers that ended.",
        registry=registry,
    )
    workers = [Worker(n, files, restarts) for n in range(settings.gateway_workers)]
    await service.enter(_drained(workers))
    memory = Gauge("gateway_worker_memory_bytes", "Resident memory.", ["worker"], registry=registry)
    for number, worker in enumerate(workers):
        memory.labels(number).set_function(worker.memory)
        service.spawn("worker", worker.keep_running())
    for worker in workers:
        await worker.serves.wait()
    await server.serve_metrics(service, settings.http_host, settings.metrics_port, registry)


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
