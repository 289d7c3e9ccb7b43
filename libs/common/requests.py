"""Request and reply over RabbitMQ, through the exchange `replies`.

Not RabbitMQ's direct reply-to: that needs rights on the default exchange, which reaches every
queue. Not aio-pika's RPC pattern: it unpickles what it is sent.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from libs.common import logs
from libs.common.broker import Broker, Message, PublishError, message

log = logs.get_logger(__name__)

REPLIES = "replies"


class NoAnswer(Exception):  # noqa: N818 - reads as the answer it is
    """No answer came in time; the request may or may not have been acted on."""


class Requester:
    """Asks; each process has one exclusive queue for its answers, new on every connection."""

    def __init__(self, broker: Broker, service: str) -> None:
        self._broker = broker
        self._queue = f"{service}.replies.{uuid.uuid4()}"
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}

    @classmethod
    @asynccontextmanager
    async def connect(cls, broker: Broker, service: str) -> AsyncIterator[Self]:
        requester = cls(broker, service)
        await broker.on_connect(requester._connected)
        try:
            yield requester
        finally:
            broker.forget(requester._connected)

    async def ask(
        self,
        exchange: str,
        routing_key: str,
        kind: str,
        body: dict[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109 - travels along as the request's expiration
    ) -> dict[str, Any]:
        """Return the answer's body.

        :param timeout: seconds; the broker drops the request then, so that nobody acts on it late
        :raises NoAnswer: also when the request certainly did not leave
        """
        request = message(
            kind,
            body,
            reply_to=self._queue,
            correlation_id=str(uuid.uuid4()),
            expiration=timeout,
        )
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[str(request.correlation_id)] = future
        try:
            async with asyncio.timeout(timeout):
                await self._broker.publish(exchange, routing_key, request, timeout=timeout)
                return await future
        except (PublishError, TimeoutError) as error:
            raise NoAnswer(type(error).__name__) from error
        finally:
            del self._waiting[str(request.correlation_id)]

    async def _connected(self, connection: AbstractConnection) -> None:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(self._queue, exclusive=True, auto_delete=True)
        await queue.bind(REPLIES, self._queue)
        await queue.consume(self._answered, no_ack=True)

    async def _answered(self, incoming: AbstractIncomingMessage) -> None:
        future = self._waiting.get(incoming.correlation_id or "")
        if future is None or future.done():  # too late: nobody waits any more
            return
        try:
            body = json.loads(incoming.body)
        except ValueError:
            log.error("requests.undecodable_answer", type=incoming.type)  # noqa: TRY400
            return
        future.set_result(body)


async def reply(broker: Broker, request: Message, body: dict[str, Any]) -> None:
    """Answer, where somebody still waits; an asker that is gone is no error."""
    if request.reply_to is None:
        return
    answer = message(
        f"{request.type}.answer", body, correlation_id=request.correlation_id, expiration=60.0
    )
    try:
        await broker.publish(REPLIES, request.reply_to, answer)
    except PublishError as error:
        log.info("requests.asker_gone", type=request.type, error=type(error).__name__)
