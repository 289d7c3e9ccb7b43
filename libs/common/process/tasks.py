"""Ending background tasks reliably."""

import asyncio
from typing import Any

CANCEL_AGAIN_SECONDS = 1.0


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel and wait until all have ended; their errors stay in them.

    One cancellation is not enough: if it arrives in the same step in which the awaited operation
    finishes, Python 3.11's `wait_for` (and libraries that use it) swallows it, and the task
    continues, perhaps forever.
    """
    going_on = set(tasks)
    while going_on:
        for task in going_on:
            task.cancel()
        _, going_on = await asyncio.wait(going_on, timeout=CANCEL_AGAIN_SECONDS)
