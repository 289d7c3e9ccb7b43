"""Request and reply over the broker, JSON both ways.

Replies arrive through the exchange `replies` in an exclusive queue: direct reply-to would need
permissions on the default exchange, and so on all queues.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any, Self

from aio_pika.abc import AbstractIncomingMessage

from libs.common.messaging import session as amqp
from libs.common.messaging.broker import Broker, Message, PublishError, message
from libs.common.process import tasks
from libs.common.process.logs import log

REPLIES = "replies"
_RETRY_SECONDS = 1.0


class NoReply(Exception):  # noqa: N818 - reads as what happened
    """No reply arrived in time. It is unknown whether the request had an effect."""


class Requester:
    """Sends requests and receives replies while its context is open (`async with Requester(…)`)."""

    def __init__(self, broker: Broker, service: str) -> None:
        self._broker = broker
        self._service = service
        self._queue: str | None = None
        self._ready = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="replies")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await tasks.end(self._task)

    async def ask(
        self,
        exchange: str,
        key: str,
        type: str,  # noqa: A002 - AMQP's name
        body: Mapping[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109 - it is the request's own lifetime in the broker, too
    ) -> dict[str, Any]:
        """Send a request and await its reply; unconsumed, it expires in the broker after `timeout`.

        :raises NoReply: timed out, could not be sent, or the reply queue was lost
        """
        correlation_id = str(uuid.uuid4())
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
                self._waiting[correlation_id] = answer
                request = message(
                    type,
                    body,
                    reply_to=self._queue,
                    correlation_id=correlation_id,
                    expiration=timeout,
                )
                await self._broker.publish(exchange, key, request, timeout=timeout)
                return await answer
        except (TimeoutError, PublishError) as error:
            raise NoReply from error
        finally:
            self._waiting.pop(correlation_id, None)

    async def _run(self) -> None:
        while True:
            session = await self._broker.session()
            try:
                with amqp.connection_faults():
                    await self._receive(session)
            except Exception as error:  # noqa: BLE001 - see report
                amqp.report(log, "requests.failed", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _receive(self, session: amqp.Session) -> None:
        channel = await amqp.open_channel(session.consuming)
        lost = asyncio.Event()

        def on_lost(*_: object) -> None:
            lost.set()

        channel.close_callbacks.add(on_lost)
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(on_lost)
        try:
            # A new name each time: the broker may not have noticed yet that the previous queue's
            # connection is gone.
            queue = await channel.declare_queue(
                f"{self._service}.replies.{uuid.uuid4()}", exclusive=True, timeout=amqp.CALL_SECONDS
            )
            await queue.bind(REPLIES, queue.name, timeout=amqp.CALL_SECONDS)
            await queue.consume(self._on_reply, no_ack=True, timeout=amqp.CALL_SECONDS)
            self._queue = queue.name
            self._ready.set()
            await lost.wait()
        finally:
            self._ready.clear()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(NoReply("the reply queue was lost"))
            await amqp.close(channel)

    async def _on_reply(self, incoming: AbstractIncomingMessage) -> None:
        waiting = self._waiting.get(incoming.correlation_id or "")
        if waiting is None or waiting.done():
            log.info("rpc.late_reply", type=incoming.type)
            return
        try:
            body = json.loads(incoming.body)
        except ValueError:
            body = None
        if isinstance(body, dict):
            waiting.set_result(body)
        else:
            waiting.set_exception(NoReply("the reply is not a JSON object"))


async def reply(broker: Broker, request: Message, body: Mapping[str, Any]) -> None:
    """Reply. An undeliverable reply is only logged: its requester times out."""
    if request.reply_to is None:
        log.warning("rpc.no_reply_to", type=request.type)
        return
    answer = message(f"{request.type}.reply", body, correlation_id=request.correlation_id)
    try:
        await broker.publish(REPLIES, request.reply_to, answer)
    except PublishError as error:
        log.warning("rpc.not_answered", type=request.type, error=repr(error))
