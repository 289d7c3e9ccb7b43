"""The lifecycle of a process: start in order, supervise, stop in reverse order."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

import uvloop

from libs.common.process import logs, settings, tasks, tracing
from libs.common.process.logs import log
from libs.common.process.settings import ProcessSettings

T = TypeVar("T")
P = TypeVar("P", bound=ProcessSettings)

DRAIN_SECONDS = 30.0
YOUNG_OBJECTS = 10_000  # made by a few hundred requests or messages


class Service:
    """The resources that `start` opens, and tasks that live as long as the process.

    Closing a resource is registered when it opens; closing runs in reverse order.
    """

    def __init__(self, name: str, drain_delay: float = 0.0) -> None:
        """:param drain_delay: seconds to serve after the signal, until load balancers notice"""
        self.name = name
        self.leaving = False
        self.stopping = asyncio.Event()
        self.failed = False
        self.drain_delay = drain_delay
        self._drains: list[Callable[[], Awaitable[None]]] = []
        self._stack = AsyncExitStack()

    def leave(self) -> None:
        """Stop being ready now, and stop after the delay; a second call stops at once."""
        delay = 0.0 if self.leaving else self.drain_delay
        self.leaving = True
        asyncio.get_running_loop().call_later(delay, self.stopping.set)

    async def enter(self, resource: AbstractAsyncContextManager[T]) -> T:
        """Open it. All that have a `drain`, which stops taking work at once and finishes what was
        taken, are drained together before anything is closed.
        """
        entered = await self._stack.enter_async_context(resource)
        if (drain := getattr(entered, "drain", None)) is not None:
            self._drains.append(drain)
        return entered

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task for the life of the service; it is cancelled in stop order.

        A task that ends or raises before the stop stops the service.
        """
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._ended)
        self._stack.push_async_callback(_cancel, task)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.stopping.is_set():
            return
        # Before the stop only libraries cancel tasks (see session.connection_faults).
        error = None if task.cancelled() else task.exception()
        log.error("service.task_died", task=task.get_name(), exc_info=error)
        self.failed = True
        self.stopping.set()

    async def close(self) -> None:
        """Drain all sources of work together, then close in reverse order."""
        drained = await asyncio.gather(*(drain() for drain in self._drains), return_exceptions=True)
        for error in drained:
            if error is not None:
                log.error("service.drain_failed", exc_info=error)
        await self._stack.aclose()


async def _cancel(task: asyncio.Task[None]) -> None:
    await tasks.end(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("service.task_failed", task=task.get_name(), exc_info=error)


async def _started(service: Service, start: Callable[[Service], Awaitable[None]]) -> str | None:
    """Return an error in the files as text: the loop would print a traceback of a SystemExit."""
    try:
        await start(service)
    except SystemExit as fault:
        return str(fault)
    return None


async def _serve(service: Service, start: Callable[[Service], Awaitable[None]]) -> int | str:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.leave)
    try:
        starting = asyncio.ensure_future(_started(service, start))
        stopped = asyncio.ensure_future(service.stopping.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            if (fault := starting.result()) is not None:
                await service.close()
                return fault
            # All objects so far live as long as the process. Without this, the garbage collector
            # scans them repeatedly, and pauses everything for 50 to 100 ms.
            gc.freeze()
            # By default, every 700 new objects cause a scan. With 64 requests in flight
            # that is constantly, finds no garbage, and costs 8 % of the gateway's CPU.
            gc.set_threshold(YOUNG_OBJECTS, 10, 10)
            log.info("service.started")
            await stopped
        else:  # stopped while still starting
            await tasks.end(starting)
    except Exception:
        log.exception("service.start_failed")
        service.failed = True
    service.stopping.set()
    log.info("service.stopping")
    try:
        async with asyncio.timeout(DRAIN_SECONDS - service.drain_delay):
            await service.close()
    except TimeoutError:
        log.error("service.drain_timed_out", seconds=DRAIN_SECONDS)  # noqa: TRY400 - says it all
        service.failed = True
    log.info("service.stopped")
    return 1 if service.failed else 0


def run_with(kind: type[P], name: str, start: Callable[[Service, P], Awaitable[None]]) -> int | str:
    """Run a service with the settings of its environment."""
    configured = settings.load(kind)
    logs.configure(name, configured.log_level)
    delay = configured.drain_delay_seconds
    return run(name, lambda service: start(service, configured), drain_delay=delay)


def run(
    name: str, start: Callable[[Service], Awaitable[None]], *, drain_delay: float = 0.0
) -> int | str:
    """Run `start`, wait for SIGTERM or SIGINT, then drain and end within 30 s.

    :param drain_delay: see `Service`
    :returns: for `sys.exit`: 1 if the start failed, a task died or the drain took too long; or the
        fault that `start` reports
    """

    async def traced() -> int | str:
        async with tracing.exporting(name):
            return await _serve(Service(name, drain_delay), start)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(traced())
    sys.stdout.flush()
    return code
