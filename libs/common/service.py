"""The life of a process: start in order, supervise, stop in reverse order."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

import uvloop

from libs.common import logs, tasks, tracing

T = TypeVar("T")
log = logs.get_logger(__name__)

DRAIN_SECONDS = 30.0
YOUNG_OBJECTS = 10_000  # some hundred requests' or messages'


class Service:
    """What `start` opens, and the tasks that must live as long as the process.

    A resource's closing is registered the moment it opens; closing runs in reverse.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = asyncio.Event()
        self.failed = False
        self._stack = AsyncExitStack()

    async def enter(self, resource: AbstractAsyncContextManager[T]) -> T:
        return await self._stack.enter_async_context(resource)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task for the life of the service; it is cancelled in its place of the stop order.

        No background task dies quietly: one that ends or raises before the stop stops the service.
        """
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._ended)
        self._stack.push_async_callback(_cancel, task)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.stopping.is_set():
            return
        # Nobody of ours cancels one before the stop; libraries do (see broker.connection_faults).
        error = None if task.cancelled() else task.exception()
        log.error("service.task_died", task=task.get_name(), exc_info=error)
        self.failed = True
        self.stopping.set()

    async def close(self) -> None:
        await self._stack.aclose()


async def _cancel(task: asyncio.Task[None]) -> None:
    await tasks.end(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("service.task_failed", task=task.get_name(), exc_info=error)


async def _started(service: Service, start: Callable[[Service], Awaitable[None]]) -> str | None:
    """Return what is at fault in the files; of a SystemExit the loop prints a traceback, too."""
    try:
        await start(service)
    except SystemExit as fault:
        return str(fault)
    return None


async def _serve(name: str, start: Callable[[Service], Awaitable[None]]) -> int | str:
    service = Service(name)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stopping.set)
    try:
        starting = asyncio.ensure_future(_started(service, start))
        stopped = asyncio.ensure_future(service.stopping.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            if (fault := starting.result()) is not None:
                await service.close()
                return fault
            # What is loaded by now lives as long as the process: without this the collector walks
            # all of it again and again, 50 to 100 ms in which nothing else runs.
            gc.freeze()
            # And the young ones are walked whenever there are 700 more than before: with 64
            # requests in hand that is all the time, for no garbage, and 8 % of the gateway's CPU.
            gc.set_threshold(YOUNG_OBJECTS, 10, 10)
            log.info("service.started")
            await stopped
        else:  # told to stop while still starting
            await tasks.end(starting)
    except Exception:
        log.exception("service.start_failed")
        service.failed = True
    service.stopping.set()
    log.info("service.stopping")
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await service.close()
    except TimeoutError:
        log.error("service.drain_timed_out", seconds=DRAIN_SECONDS)  # noqa: TRY400 - says it all
        service.failed = True
    log.info("service.stopped")
    return 1 if service.failed else 0


async def _traced(name: str, start: Callable[[Service], Awaitable[None]]) -> int | str:
    async with tracing.exporting(name):
        return await _serve(name, start)


def run(name: str, start: Callable[[Service], Awaitable[None]]) -> int | str:
    """Run `start`, then wait for SIGTERM or SIGINT, then drain within 30 s.

    :returns: for `sys.exit`: 1 when the start failed, a task died or the drain took too long; or
        what `start` says is at fault
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_traced(name, start))
    sys.stdout.flush()
    return code
