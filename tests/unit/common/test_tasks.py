import asyncio
import contextlib

import pytest

from libs.common.process import tasks


async def test_a_task_that_swallows_a_cancellation_still_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_SECONDS", 0.01)

    async def swallows_the_first() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    stubborn = asyncio.create_task(swallows_the_first())
    await asyncio.sleep(0)
    await tasks.end(stubborn)
    assert stubborn.cancelled()
