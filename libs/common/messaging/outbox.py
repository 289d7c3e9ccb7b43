"""The transactional outbox: messages are rows of the transaction, and a relay publishes them.

At least once: if a relay dies between the broker's confirm and its own commit, the rows stay and
are published again with the same message id (see inbox). The order is not guaranteed.
"""

import asyncio
import collections
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database import postgres
from libs.common.database.group_commit import Batches
from libs.common.database.queries import Queries
from libs.common.messaging.broker import (
    REQUEST_ID,
    Broker,
    BrokerUnavailable,
    Message,
    PublishError,
    Unroutable,
)
from libs.common.process import tasks, tracing
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED

Outgoing = tuple[str, str, Message]
"""Exchange, routing key and message."""

BATCH = 250
POLL_SECONDS = 1.0
BATCH_SECONDS = 1.0  # for the confirms of a batch; slower ones do not delay the next batch
# Well below the 10 s after which the server ends an idle transaction.
CONFIRM_SECONDS = 5.0
# Refused or unconfirmed messages are deferred for this long and do not delay others.
UNCONFIRMED_SECONDS = 1
UNROUTABLE_SECONDS = 10
_PRIORITY = "x-priority"  # among the headers of a row only

LAG = SHARED.gauge("outbox_lag_seconds")
CONNECTED = SHARED.gauge("database_connected")
CONNECTED.set(math.nan)  # a process without a relay, such as the gateway, does not report it
RELAYED = SHARED.counter("outbox_published_total")

_run = Queries(__file__, json=["rows"])
ADD = _run.texts["add"]
"""The SQL of `add_all`, to include in another statement."""


async def add(tx: AsyncConnection, exchange: str, routing_key: str, message: Message) -> None:
    """Publish when this transaction commits, and only then."""
    await add_all(tx, [(exchange, routing_key, message)])


async def add_all(tx: AsyncConnection, messages: Sequence[Outgoing], *, later: float = 0.0) -> None:
    """Like `add`, in one statement.

    :param later: delay in seconds; messages added in the meantime go first
    """
    if messages:
        await _run(tx, "add", rows=rows(messages), later=later)


def rows(messages: Sequence[Outgoing]) -> list[dict[str, Any]]:
    return [
        {
            "message_id": message.id,
            "exchange": exchange,
            "routing_key": routing_key,
            "type": message.type,
            "body": dict(message.body),
            "headers": tracing.headers(message.request_id)
            | dict(message.headers)
            | ({} if message.request_id is None else {REQUEST_ID: message.request_id})
            | ({} if message.priority is None else {_PRIORITY: message.priority}),
        }
        for exchange, routing_key, message in messages
    ]


class Held(NamedTuple):
    id: int
    due_at: datetime


async def hold(
    tx: AsyncConnection, exchange: str, routing_key: str, message: Message, seconds: float
) -> Held:
    """Like `add`, but wait for `release`, this long at most.

    :param message: with a `count` in its body
    """
    held = rows([(exchange, routing_key, message)])
    return Held._make((await _run(tx, "hold", rows=held, later=seconds)).one())


async def count(tx: AsyncConnection, held: Held, more: int) -> bool:
    """Add to the count of a message on hold; False if it may already be published."""
    return (await _run(tx, "count", **held._asdict(), more=more)).rowcount == 1


async def length(tx: AsyncConnection) -> int:
    return int((await _run(tx, "length")).scalar_one())


async def release(tx: AsyncConnection, held: Held) -> None:
    await _run(tx, "release", id=held.id)


class Relay:
    """Publishes the rows; any number of relays may share them."""

    def __init__(self, engine: AsyncEngine, broker: Broker, url: str) -> None:
        self._engine = engine
        self._broker = broker
        self._url = url
        self._slow = collections.Counter[
            str
        ]()  # unconfirmed rows of earlier batches, by routing key
        self._following: set[asyncio.Task[None]] = set()
        self._confirmed = Batches(self._delete, limit=BATCH)
        self._channel = f"{engine.url.username}_outbox"  # role and schema have one name

    async def run(self) -> None:
        """Relay until cancelled; wait while the database or the broker is unavailable."""
        CONNECTED.set(0)
        try:
            async with postgres.listen(self._url, self._channel) as notified:
                await self._relay_on(notified)
        finally:
            await tasks.end(*self._following)

    async def _relay_on(self, notified: asyncio.Event) -> None:
        measured_at = -math.inf
        while True:
            # Cleared before the query: later notifications cause another one.
            notified.clear()
            more = False
            with postgres.through_outages("outbox.database_unavailable") as outage:
                more = self._broker.connected and await self.relay()
                if (now := time.monotonic()) >= measured_at + POLL_SECONDS:
                    await self._measure()
                    measured_at = now
            if outage.error:
                CONNECTED.set(0)
                await asyncio.sleep(POLL_SECONDS)
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await notified.wait()

    async def relay(self) -> bool:
        """Publish one batch, and wait for its slowest messages only for a moment.

        :returns: whether more may be ready to publish
        """
        async with self._engine.begin() as tx:
            rows = await _run(tx, "claim", batch=BATCH, late=list(self._slow))
            publishing = [asyncio.create_task(self._publish(row)) for row in rows]
            if publishing:
                await asyncio.wait(publishing, timeout=BATCH_SECONDS)
            by_result: dict[type[PublishError] | None, list[int]] = {}
            late: list[int] = []
            for row, task in zip(rows, publishing, strict=True):
                if task.done():
                    by_result.setdefault(task.result(), []).append(row.id)
                else:
                    late.append(row.id)
                    self._follow(row, task)
            for result, ids in by_result.items():
                RELAYED.labels("published" if result is None else result.__name__).inc(len(ids))
                if result is None:
                    await _run(tx, "delete", ids=ids)
                elif result is not BrokerUnavailable:
                    seconds = UNROUTABLE_SECONDS if result is Unroutable else UNCONFIRMED_SECONDS
                    await _run(tx, "defer", ids=ids, seconds=seconds)
            if late:
                await _run(tx, "defer", ids=late, seconds=CONFIRM_SECONDS + 1)
        return len(rows) == BATCH and BrokerUnavailable not in by_result

    def _follow(self, row: Any, publishing: asyncio.Task[type[PublishError] | None]) -> None:
        task = asyncio.create_task(self._end(row, publishing))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _end(self, row: Any, publishing: asyncio.Task[type[PublishError] | None]) -> None:
        """Delete a row that is confirmed late; until then claim no more rows of its queue."""
        self._slow[row.routing_key] += 1
        try:
            result = await publishing
            RELAYED.labels("published" if result is None else result.__name__).inc()
            if result is None:
                await self._confirmed.submit(row.id)
        except Exception as error:  # noqa: BLE001 - it is published again, under the same id
            log.warning("outbox.not_deleted", message_id=row.message_id, error=repr(error))
        finally:
            self._slow -= collections.Counter((row.routing_key,))

    async def _delete(self, ids: Sequence[int]) -> Sequence[None]:
        await _run.alone(self._engine, "delete", ids=list(ids))
        return [None] * len(ids)

    async def _publish(self, row: Any) -> type[PublishError] | None:
        priority = row.headers.pop(_PRIORITY, None)
        sent = Message(row.message_id, row.type, {}, headers=row.headers, priority=priority)
        try:
            await self._broker.publish(
                row.exchange,
                row.routing_key,
                self._broker.encode(sent, row.json),
                timeout=CONFIRM_SECONDS,
            )
        except BrokerUnavailable:
            return BrokerUnavailable
        except PublishError as error:
            log.warning("outbox.not_published", message_id=row.message_id, error=repr(error))
            return type(error)
        except Exception:  # a message that cannot be encoded must not stop the others
            log.exception("outbox.not_publishable", message_id=row.message_id)
            return Unroutable
        return None

    async def _measure(self) -> None:
        measured = (await _run.alone(self._engine, "measure")).one()
        LAG.set(float(measured.lag))
        CONNECTED.set(not measured.waits)
        if measured.waits:
            log.warning("outbox.no_standby_confirms")
