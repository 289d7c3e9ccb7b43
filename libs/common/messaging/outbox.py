"""The transactional outbox: messages are rows of the transaction, and a relay publishes them.

At least once: if a relay dies between the broker's confirm and its own commit, the rows stay and
are published again with the same message id (see inbox). The order is not guaranteed.
"""

import asyncio
import collections
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple

from prometheus_client import Counter, Gauge
from sqlalchemy import (
    Float,
    bindparam,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database import postgres
from libs.common.database.group_commit import Batches
from libs.common.database.statement import Statement
from libs.common.messaging.broker import (
    REQUEST_ID,
    Broker,
    BrokerUnavailable,
    Message,
    PublishError,
    Unroutable,
)
from libs.common.process import logs, tasks, tracing

log = logs.get_logger(__name__)

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

LAG = Gauge("outbox_lag_seconds", "Age of the oldest message that is not published yet")
CONNECTED = Gauge(
    "database_connected",
    "1 while the database answers the relay, which asks it every second, and commits",
)
CONNECTED.set(math.nan)  # a process without a relay, such as the gateway, does not report it
RELAYED = Counter("outbox_published_total", "Attempts to publish a message", ["outcome"])

_SQL = """
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    type text NOT NULL,
    body jsonb NOT NULL,
    headers jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_due ON outbox (due_at, id);

CREATE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_outbox', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER outbox_notify AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();
"""

# One parameter for any number of rows: a VALUES list would be compiled each time.
ADD = (
    "INSERT INTO outbox (message_id, exchange, routing_key, type, body, headers, due_at) "
    "SELECT given.*, now() + make_interval(secs => :later) FROM jsonb_to_recordset(:rows) AS given "
    "(message_id text, exchange text, routing_key text, type text, body jsonb, headers jsonb)"
)
"""The SQL of `add_all`, to include in another statement; its parameters are PARAMETERS."""
PARAMETERS = bindparam("rows", type_=JSONB), bindparam("later", 0.0, type_=Float)
_ADD = Statement(text(ADD).bindparams(*PARAMETERS))
_HOLD = Statement(text(f"{ADD} RETURNING id, due_at").bindparams(*PARAMETERS))
_COUNT = Statement(
    "UPDATE outbox SET body = jsonb_set(body, '{count}', "
    "to_jsonb(CAST(body->>'count' AS bigint) + :more)) "
    # Only while it waits: a relay that has sent it defers or deletes it, and would not send more.
    "WHERE id = :id AND due_at = :due_at AND due_at > now()"
)
_RELEASE = Statement("UPDATE outbox SET due_at = now() WHERE id = :id")
_CLAIM = Statement(
    text(
        # The body as text: parsing and serialising it costs a tenth of a follow-up.
        "SELECT id, message_id, exchange, routing_key, type, body::text AS json, headers "
        "FROM outbox WHERE due_at <= now() AND routing_key <> ALL(CAST(:late AS text[])) "
        "ORDER BY due_at, id LIMIT :batch FOR UPDATE SKIP LOCKED"
    ).columns(headers=JSONB)
)
_DELETE = Statement("DELETE FROM outbox WHERE id = ANY(CAST(:ids AS bigint[]))")
_DEFER = Statement(
    # Not now(), the start of the transaction: the wait for the confirm came after it.
    "UPDATE outbox SET due_at = clock_timestamp() + make_interval(secs => :seconds) "
    "WHERE id = ANY(CAST(:ids AS bigint[]))"
)
_MEASURE = Statement(
    "SELECT coalesce(extract(epoch FROM now() - "
    "(SELECT created_at FROM outbox ORDER BY id LIMIT 1)), 0) AS lag, "
    # A commit waits until a standby confirms it; no time-out of the server ends that.
    "EXISTS (SELECT FROM pg_stat_activity WHERE usename = current_user "
    "AND wait_event = 'SyncRep' AND state_change < now() - interval '2 s') AS waits"
)


def upgrade(op: Any) -> None:
    """Create the table and its trigger, in a migration."""
    op.execute(_SQL)


async def add(tx: AsyncConnection, exchange: str, routing_key: str, message: Message) -> None:
    """Publish when this transaction commits, and only then."""
    await add_all(tx, [(exchange, routing_key, message)])


async def add_all(tx: AsyncConnection, messages: Sequence[Outgoing], *, later: float = 0.0) -> None:
    """Like `add`, in one statement.

    :param later: delay in seconds; messages added in the meantime go first
    """
    if messages:
        await _ADD.execute(tx, {"rows": rows(messages), "later": later})


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
    parameters = {"rows": rows([(exchange, routing_key, message)]), "later": seconds}
    return Held._make((await _HOLD.execute(tx, parameters)).one())


async def count(tx: AsyncConnection, held: Held, more: int) -> bool:
    """Add to the count of a message on hold; False if it may already be published."""
    return (await _COUNT.execute(tx, {**held._asdict(), "more": more})).rowcount == 1


async def release(tx: AsyncConnection, held: Held) -> None:
    await _RELEASE.execute(tx, {"id": held.id})


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
        async with self._ending(), postgres.listen(self._url, self._channel) as listener:
            measured_at = -math.inf
            while True:
                # Cleared before the query: later notifications cause another one.
                listener.event.clear()
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
                            await listener.event.wait()

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await tasks.end(*self._following)

    async def relay(self) -> bool:
        """Publish one batch, and wait for its slowest messages only for a moment.

        :returns: whether more may be ready to publish
        """
        async with self._engine.begin() as tx:
            rows = await _CLAIM.execute(tx, {"batch": BATCH, "late": list(self._slow)})
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
                    await _DELETE.execute(tx, {"ids": ids})
                elif result is not BrokerUnavailable:
                    seconds = UNROUTABLE_SECONDS if result is Unroutable else UNCONFIRMED_SECONDS
                    await _DEFER.execute(tx, {"ids": ids, "seconds": seconds})
            if late:
                await _DEFER.execute(tx, {"ids": late, "seconds": CONFIRM_SECONDS + 1})
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
        async with self._engine.begin() as tx:
            await _DELETE.execute(tx, {"ids": list(ids)})
        return [None] * len(ids)

    async def _publish(self, row: Any) -> type[PublishError] | None:
        priority = row.headers.pop(_PRIORITY, None)
        sent = Message(row.message_id, row.type, {}, headers=row.headers, priority=priority)
        try:
            await self._broker.send(
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
        async with self._engine.connect() as connection:
            measured = (await _MEASURE.execute(connection)).one()
        LAG.set(float(measured.lag))
        CONNECTED.set(not measured.waits)
        if measured.waits:
            log.warning("outbox.no_standby_confirms")
