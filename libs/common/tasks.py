"""Ending background tasks for certain."""

import asyncio
from typing import Any

CANCEL_AGAIN_SECONDS = 1.0


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel and wait until all have ended; their errors stay in them.

    One cancellation is not enough: where it meets the very step in which what the task awaits
    finishes, Python 3.11's `wait_for` (and libraries that use it) swallows it, and the task goes
    on, for ever if its next wait is for nothing in particular.
    """
    going_on = set(tasks)
    while going_on:
        for task in going_on:
            task.cancel()
        _, going_on = await asyncio.wait(going_on, timeout=CANCEL_AGAIN_SECONDS)
