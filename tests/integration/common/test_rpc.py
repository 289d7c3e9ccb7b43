import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from libs.common.messaging.broker import Broker, Message
from libs.common.messaging.consumer import Ack, Consumer, Disposition
from libs.common.messaging.rpc import NoReply, Requester, reply
from libs.common.messaging.topology import Binding, Exchange, request_queue
from tests.support.consumers import connected, depth, until
from tests.support.eventually import becomes

COMMANDS = Exchange("consent.commands", "direct")
DLX = Exchange("consent.dlx", "direct")
QUEUE = "consent.requests"


@pytest.fixture
async def consent(amqp_url: Callable[[str], str]) -> AsyncIterator[Broker]:
    async with Broker.connect(amqp_url("consent"), "consent") as opened:
        await connected(opened)
        await opened.declare(
            COMMANDS, DLX, *request_queue(QUEUE, dlx=DLX, bindings=(Binding(COMMANDS, QUEUE),))
        )
        yield opened


@pytest.fixture
async def requester(broker: Broker) -> AsyncIterator[Requester]:
    async with Requester(broker, "alerts") as opened:
        yield opened


async def ask(requester: Requester, number: int, seconds: float = 10) -> dict[str, Any]:
    body = {"number": number}
    return await requester.ask("consent.commands", QUEUE, "add-one", body, timeout=seconds)


def answering(consent: Broker) -> Callable[[Message], Any]:
    async def answer(message: Message) -> Disposition:
        await reply(consent, message, {"number": message.body["number"] + 1})
        return Ack()

    return answer


async def test_each_of_many_requests_gets_its_own_reply(
    consent: Broker, requester: Requester
) -> None:
    async with Consumer(consent, QUEUE, answering(consent), prefetch=10):
        answers = await asyncio.gather(*(ask(requester, number) for number in range(50)))
    assert answers == [{"number": number + 1} for number in range(50)]


async def test_an_unanswered_request_times_out_and_expires(
    consent: Broker, requester: Requester
) -> None:
    with pytest.raises(NoReply):
        await ask(requester, 1, seconds=0.3)
    await becomes(lambda: depth(consent, QUEUE), 0)
    async with Consumer(consent, QUEUE, answering(consent), prefetch=10):
        assert await ask(requester, 5) == {"number": 6}


async def test_a_late_answer_is_dropped_and_the_next_request_gets_its_own(
    consent: Broker, requester: Requester
) -> None:
    late: list[Message] = []

    async def keep_the_first(message: Message) -> Disposition:
        if not late:
            late.append(message)
            return Ack()
        await reply(consent, late[0], {"number": -1})
        outcome: Disposition = await answering(consent)(message)
        return outcome

    async with Consumer(consent, QUEUE, keep_the_first, prefetch=10) as consumer:
        await until(lambda: consumer.consuming)
        with pytest.raises(NoReply):
            await ask(requester, 1, seconds=1)
        assert await ask(requester, 5) == {"number": 6}


async def test_a_reply_to_a_requester_that_is_gone_raises_nothing(
    consent: Broker, broker: Broker
) -> None:
    asked = asyncio.Event()
    go = asyncio.Event()
    answered = asyncio.Event()

    async def answer(message: Message) -> Disposition:
        asked.set()
        await go.wait()
        await reply(consent, message, {})
        answered.set()
        return Ack()

    async with Consumer(consent, QUEUE, answer, prefetch=1):
        async with Requester(broker, "alerts") as requester:
            under_way = asyncio.create_task(ask(requester, 1))
            await asked.wait()
        with pytest.raises(NoReply):
            await under_way
        go.set()
        async with asyncio.timeout(10):
            await answered.wait()


async def test_an_unroutable_request_fails_at_once(requester: Requester) -> None:
    with pytest.raises(NoReply):
        await requester.ask("consent.commands", "nobody", "test", {}, timeout=60)


async def test_a_lost_connection_fails_waiting_requests_and_the_next_one_works(
    consent: Broker, broker: Broker, requester: Requester
) -> None:
    asked = asyncio.Event()

    async def first_never(message: Message) -> Disposition:
        if not asked.is_set():
            asked.set()
            return Ack()
        outcome: Disposition = await answering(consent)(message)
        return outcome

    async with Consumer(consent, QUEUE, first_never, prefetch=10):
        under_way = asyncio.create_task(ask(requester, 1, seconds=60))
        await asked.wait()
        await (await broker.session()).close()
        async with asyncio.timeout(20):
            with pytest.raises(NoReply):
                await under_way
        assert await ask(requester, 5) == {"number": 6}
