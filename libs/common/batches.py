"""Group commit: requests of the same moment share one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from libs.common import db

Item = TypeVar("Item")
Answer = TypeVar("Answer")

PACE_SECONDS = 0.02
"""For work whose caller does not mind the wait; a statement for fifty costs that of three."""


class Batches(Generic[Item, Answer]):
    """One batch is under way at a time, and what comes meanwhile is the next one.

    So a batch is as large as the load, and a single item waits for nothing. The work runs in a
    task of its own: an asker that is cancelled takes nobody's answer away.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        limit: int,
        pace: float = 0.0,
    ) -> None:
        """Take the work on a batch: one answer an item, in their order, and all or nothing.

        :param limit: items in a batch
        :param pace: seconds from the beginning of one batch to that of the next, unless half the
            limit waits before: under load fewer and larger ones, and after a quiet moment no wait
        """
        self._work = work
        self._limit = limit
        self._pace = pace
        self._next_at = 0.0
        self._many = asyncio.Event()
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Answer:
        """Return this item's answer, or raise the fault of its batch."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._many_wait:
            self._many.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="batches")
        return await answer

    async def _run(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        try:
            while self._waiting:
                await self._gather()
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                if batch := [one for one in batch if not one[1].done()]:  # still asked for
                    await self._do(batch)
        finally:  # cancelled, by the end of the loop or a library: nobody may wait for ever
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

    async def _do(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - passed on to whoever waits for it
            if len(batch) > 1 and not db.may_pass(error):
                # One bad item fails them all: find it, so that it fails alone.
                middle = len(batch) // 2
                await self._do(batch[:middle])
                await self._do(batch[middle:])
                return
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for (_, answer), given in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(given)
