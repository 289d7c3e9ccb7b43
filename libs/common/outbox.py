"""What a transaction tells others is a row of the same transaction; a relay publishes it.

At least once: a relay that dies between the broker's confirmation and its own commit leaves the
rows, and they are published again, with the same message id (see inbox). No order is promised.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import Counter, Gauge
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    MetaData,
    Row,
    Table,
    Text,
    bindparam,
    func,
    make_url,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import db, logs, tracing
from libs.common.broker import (
    REQUEST_ID,
    Broker,
    BrokerUnavailable,
    Message,
    PublishError,
    Unroutable,
)

log = logs.get_logger(__name__)

BATCH = 250
POLL_SECONDS = 1.0
# Well below the 10 s after which the server ends a transaction in which nothing happens.
CONFIRM_SECONDS = 5.0
# What is refused or unconfirmed steps aside for so long: the rest is not kept waiting.
UNCONFIRMED_SECONDS = 1
UNROUTABLE_SECONDS = 10

LAG = Gauge("outbox_lag_seconds", "Age of the oldest message that is not published yet")
CONNECTED = Gauge(
    "database_connected", "1 while the database answers the relay, which asks it every second"
)
RELAYED = Counter("outbox_relayed_total", "Attempts to publish a message", ["outcome"])

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

# One parameter whatever their number: VALUES of many rows would be compiled anew each time.
_ADD = text(
    "INSERT INTO outbox (message_id, exchange, routing_key, type, body, headers, due_at) "
    "SELECT given.*, now() + make_interval(secs => :later) FROM jsonb_to_recordset(:rows) AS given "
    "(message_id text, exchange text, routing_key text, type text, body jsonb, headers jsonb)"
).bindparams(bindparam("rows", type_=JSONB), bindparam("later", type_=Float))
_CLAIM = text(
    # The body as it is sent: to read it and write it anew costs a tenth of a follow-up.
    "SELECT id, message_id, exchange, routing_key, type, body::text AS json, headers FROM outbox "
    "WHERE due_at <= now() ORDER BY due_at, id LIMIT :batch FOR UPDATE SKIP LOCKED"
).columns(headers=JSONB)
_DELETE = text("DELETE FROM outbox WHERE id = ANY(CAST(:ids AS bigint[]))")
_DEFER = text(
    "UPDATE outbox SET due_at = now() + make_interval(secs => :seconds) "
    "WHERE id = ANY(CAST(:ids AS bigint[]))"
)
_LAG = text(
    "SELECT coalesce(extract(epoch FROM now() - "
    "(SELECT created_at FROM outbox ORDER BY id LIMIT 1)), 0)"
)


def upgrade(op: Any) -> None:
    """Create the table and its trigger, in a migration."""
    op.execute(_SQL)


def table(metadata: MetaData) -> Table:
    """Describe the table, for the comparison of migrations and metadata."""
    return Table(
        "outbox",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("message_id", Text, nullable=False),
        Column("exchange", Text, nullable=False),
        Column("routing_key", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("body", JSONB, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("due_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Index("outbox_due", "due_at", "id"),
    )


async def add(tx: AsyncConnection, exchange: str, routing_key: str, message: Message) -> None:
    """Publish when this transaction commits, and only then."""
    await add_all(tx, [(exchange, routing_key, message)])


async def add_all(
    tx: AsyncConnection, messages: Sequence[tuple[str, str, Message]], *, later: float = 0.0
) -> None:
    """As `add`, in one statement.

    :param later: seconds to wait, in which what others add goes first
    """
    rows = [
        {
            "message_id": message.id,
            "exchange": exchange,
            "routing_key": routing_key,
            "type": message.type,
            "body": dict(message.body),
            "headers": tracing.headers(message.request_id)
            | dict(message.headers)
            | ({} if message.request_id is None else {REQUEST_ID: message.request_id}),
        }
        for exchange, routing_key, message in messages
    ]
    if rows:
        await tx.execute(_ADD, {"rows": rows, "later": later})


class Relay:
    """Publishes the rows; any number of relays share them."""

    def __init__(self, engine: AsyncEngine, broker: Broker, url: str) -> None:
        self._engine = engine
        self._broker = broker
        self._url = url
        self._channel = f"{make_url(url).username}_outbox"  # role and schema have one name

    async def run(self) -> None:
        """Relay until cancelled; with the database or the broker away, wait for it."""
        async with db.listen(self._url, self._channel) as listener:
            while True:
                # Cleared before looking: what is notified from now on is looked for again.
                listener.event.clear()
                more = False
                try:
                    more = self._broker.connected and await self.relay()
                    await self._measure()
                    CONNECTED.set(1)
                except Exception as error:
                    if not db.may_pass(error):
                        raise
                    CONNECTED.set(0)
                    log.warning("outbox.database_unavailable", error=type(error).__name__)
                    await asyncio.sleep(POLL_SECONDS)
                if not more:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await listener.event.wait()

    async def relay(self) -> bool:
        """Publish one batch.

        :returns: whether there may be more that can be published now
        """
        async with self._engine.begin() as tx:
            rows = (await tx.execute(_CLAIM, {"batch": BATCH})).all()
            results = await asyncio.gather(*(self._publish(row) for row in rows))
            by_result: dict[type[PublishError] | None, list[int]] = {}
            for row, result in zip(rows, results, strict=True):
                by_result.setdefault(result, []).append(row.id)
            for result, ids in by_result.items():
                RELAYED.labels("published" if result is None else result.__name__).inc(len(ids))
                if result is None:
                    await tx.execute(_DELETE, {"ids": ids})
                elif result is not BrokerUnavailable:
                    seconds = UNROUTABLE_SECONDS if result is Unroutable else UNCONFIRMED_SECONDS
                    await tx.execute(_DEFER, {"ids": ids, "seconds": seconds})
        return len(rows) == BATCH and BrokerUnavailable not in by_result

    async def _publish(self, row: Row[Any]) -> type[PublishError] | None:
        wrap = self._broker.wrap
        try:
            await self._broker.send(
                row.exchange,
                row.routing_key,
                wrap(row.message_id, row.type, row.json.encode(), row.headers),
                timeout=CONFIRM_SECONDS,
            )
        except BrokerUnavailable:
            return BrokerUnavailable
        except PublishError as error:
            log.warning("outbox.not_published", message_id=row.message_id, error=repr(error))
            return type(error)
        except Exception:  # what cannot even be encoded; it must not stop the others
            log.exception("outbox.not_publishable", message_id=row.message_id)
            return Unroutable
        return None

    async def _measure(self) -> None:
        async with self._engine.connect() as connection:
            LAG.set(float((await connection.execute(_LAG)).scalar_one()))
