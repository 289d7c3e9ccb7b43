"""Waiting for another process: ask until it is so, with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def eventually(
    ask: Callable[[], Awaitable[T | None]],
    seconds: float = 30,
    *,
    every: float = 0.02,
    so: Callable[[Any], object] = bool,
) -> T:
    """Return the first answer that is so: that is true, unless the test says what it must be.

    :raises TimeoutError: there was none in this time
    """
    async with asyncio.timeout(seconds):
        while True:
            if so(answer := await ask()):
                return cast("T", answer)
            await asyncio.sleep(every)


async def becomes(
    ask: Callable[[], Awaitable[object]], wanted: object, seconds: float = 30
) -> None:
    """Return when the answer is the wanted one.

    :raises TimeoutError: it was not, in this time
    """
    await eventually(ask, seconds, so=lambda answer: answer == wanted)
