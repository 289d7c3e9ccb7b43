"""Group commit: concurrent requests share one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from libs.common.database import postgres

Item = TypeVar("Item")
Result = TypeVar("Result")
_Batch = Sequence[tuple[Item, asyncio.Future[Result]]]


def pace(limit: int) -> float:
    """Return a pace for callers that can wait: a statement for 50 items costs as much as for 3.

    It grows with the limit. Otherwise a small limit in each pace would bound the rate: a target
    that takes 8 at a time would get 400 a second, however fast it answers.
    """
    return min(0.02, limit / 5000)


async def halved(
    work: Callable[[Sequence[Item]], Awaitable[object]],
    items: Sequence[Item],
    failed: Callable[[Sequence[Item], Exception], Awaitable[None]],
) -> None:
    """Do all or nothing for these items; if that fails, in halves, so that only bad ones fail.

    :param failed: gets one item, or several if the database is away
    """
    try:
        await work(items)
    except Exception as error:  # noqa: BLE001 - passed on
        if len(items) == 1 or postgres.is_transient(error):
            await failed(items, error)
            return
        for half in (items[: len(items) // 2], items[len(items) // 2 :]):
            await halved(work, half, failed)


class Batches(Generic[Item, Result]):
    """Runs one batch at a time; items that arrive in the meantime form the next one.

    So batches grow with the load, and a single item does not wait. The work runs in its own task,
    so a cancelled caller does not affect the others.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        limit: int,
        pace: float = 0.0,
    ) -> None:
        """Take the function for a batch: one result per item, in order, all or nothing.

        :param limit: items in a batch
        :param pace: seconds between the starts of two batches, unless half the limit is waiting:
            fewer and larger batches under load, and no wait after a pause
        """
        self._work = work
        self._limit = limit
        self._pace = pace
        self._next_at = 0.0
        self._many = asyncio.Event()
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Return the future of this item's result, or of the error of its batch."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._many_wait:
            self._many.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="batches")
        return answer

    async def _run(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        try:
            while self._waiting:
                await self._gather()
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                if batch := [one for one in batch if not one[1].done()]:  # still awaited
                    await halved(self._do, batch, self._fail)
        finally:  # if the loop or a library cancels this, no caller may wait forever
            self._running = None
            for _, answer in (*batch, *self._waiting):
                answer.cancel()
            self._waiting = []

    @property
    def _many_wait(self) -> bool:
        return len(self._waiting) * 2 >= self._limit

    async def _gather(self) -> None:
        clock = asyncio.get_running_loop().time
        if (wait := self._next_at - clock()) > 0 and not self._many_wait:
            self._many.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._many.wait()
        self._next_at = clock() + self._pace

    async def _do(self, batch: _Batch[Item, Result]) -> None:
        answers = await self._work([item for item, _ in batch])
        for (_, answer), given in zip(batch, answers, strict=True):
            if not answer.done():
                answer.set_result(given)

    async def _fail(self, batch: _Batch[Item, Result], error: Exception) -> None:
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(error)
