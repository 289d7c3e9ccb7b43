"""Reads the `.dead` queues that store whole messages, so that exports and erasures include them."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiormq
import sqlalchemy as sa
from aio_pika.abc import AbstractIncomingMessage
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database import postgres
from libs.common.messaging import session as amqp
from libs.common.messaging.broker import Broker, BrokerUnavailable
from libs.common.messaging.consumer import REASON
from libs.common.messaging.topology import dead_name

_ALONE = sa.text("SELECT pg_advisory_xact_lock(:key)")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    queue: str
    message_id: str | None
    type: str | None
    reason: str | None
    sent_at: datetime | None
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def payload(self) -> Any:
        """Return its JSON, or its text if it is not JSON."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return self.text

    def record(self) -> dict[str, Any]:
        """Return the letter as a record of an export."""
        return {
            "queue": self.queue,
            "id": self.message_id,
            "type": self.type,
            "reason": self.reason,
            "sent_at": self.sent_at and self.sent_at.isoformat(),
            "body": self.text,
        }


Look = Callable[[AsyncConnection, DeadLetter], Awaitable[bool]]


class DeadLetters:
    """The `.dead` of these work queues, and the `.set-aside` to which operators move letters."""

    def __init__(self, engine: AsyncEngine, broker: Broker, *work_queues: str) -> None:
        self._engine = engine
        self._broker = broker
        self._queues = [
            name for each in work_queues for name in (dead_name(each), f"{each}.set-aside")
        ]

    async def sift(self, remove: Look) -> int:
        """Read each letter once, and remove those for which `remove` returns True.

        The others return to the queue when the channel closes, or when this process dies.

        :returns: how many were removed
        :raises BrokerUnavailable: not all were read
        """
        if not self._broker.connected:
            raise BrokerUnavailable
        removed = 0
        async with self._engine.begin() as tx:
            # Letters that another process is reading are not visible here, so only one may read.
            key = postgres.advisory_key(f"dead letters {self._queues[0]}")
            try:
                await tx.execute(_ALONE, {"key": key})
            except DBAPIError as error:  # the other takes longer than the statement time-out
                raise BrokerUnavailable from error
            for queue in self._queues:
                try:
                    with amqp.connection_faults():
                        removed += await self._sift(tx, queue, remove)
                except aiormq.exceptions.ChannelNotFoundEntity:
                    continue  # nothing was set aside
                except amqp.FAULTS as error:
                    raise BrokerUnavailable from error
        return removed

    async def _sift(self, tx: AsyncConnection, name: str, remove: Look) -> int:
        removed = 0
        channel = await amqp.open_channel((await self._broker.session()).consuming)
        try:
            queue = await channel.get_queue(name, ensure=False)
            while (found := await queue.get(fail=False, timeout=amqp.CALL_SECONDS)) is not None:
                # Also keeps the transaction alive: the server ends one that is idle for 10 s.
                await tx.execute(sa.text("SELECT 1"))
                if await remove(tx, _letter(name, found)):
                    await found.ack()
                    removed += 1
        finally:
            await amqp.close(channel)
        return removed


def _letter(queue: str, found: AbstractIncomingMessage) -> DeadLetter:
    reason = found.headers.get(REASON)
    return DeadLetter(
        queue,
        found.message_id,
        found.type,
        reason if isinstance(reason, str) else None,
        found.timestamp,
        found.body,
    )
