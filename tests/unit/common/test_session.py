"""The connections to the broker, without a broker."""

import asyncio
import gc

import pytest

from libs.common.messaging import session


def test_an_unopened_connection_closes_nothing_when_it_is_collected(
    recwarn: pytest.WarningsRecorder,
) -> None:
    async def made() -> session.Connection:
        return session.Connection("amqp://127.0.0.1")

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        connection = loop.run_until_complete(made())
        del connection
        gc.collect()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert not recwarn.list
