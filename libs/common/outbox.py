"""Write the tables and tell others: one transaction, then a relay that publishes."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import prometheus_client
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import db, logs
from libs.common.broker import Broker, BrokerUnavailable, Message, PublishError

log = logs.get_logger(__name__)

BATCH = 100
POLL_SECONDS = 1.0
FAILED_SECONDS = 1.0
CHANNEL = "outbox"

_LAG = prometheus_client.Gauge("outbox_lag_seconds", "Age of the oldest row not yet published.")
_RELAYED = prometheus_client.Counter("outbox_relayed_total", "Rows by outcome.", ["outcome"])


def table(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("routing_key", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Index("outbox_message_id", "message_id"),
        sa.Index("outbox_next", "tries", "id"),
    )


_outbox = table(sa.MetaData())


def upgrade(op: Any) -> None:
    """Create the table and its NOTIFY; for a service's first migration."""
    op.execute("""
        CREATE TABLE outbox (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            message_id text NOT NULL,
            exchange text NOT NULL,
            routing_key text NOT NULL,
            type text NOT NULL,
            body jsonb NOT NULL,
            headers jsonb NOT NULL,
            request_id text,
            created_at timestamptz NOT NULL DEFAULT now(),
            tries integer NOT NULL DEFAULT 0
        )
    """)
    op.execute("CREATE INDEX outbox_message_id ON outbox (message_id)")
    op.execute("CREATE INDEX outbox_next ON outbox (tries, id)")
    # once a statement, and once a transaction: PostgreSQL folds equal notifications
    op.execute(f"""
        CREATE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify(TG_TABLE_SCHEMA || '_{CHANNEL}', '');
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER outbox_notify AFTER INSERT ON outbox
        FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify()
    """)


async def add(tx: AsyncConnection, exchange: str, routing_key: str, message: Message) -> None:
    """Publish this after, and only if, the transaction commits."""
    await add_all(tx, [(exchange, routing_key, message)])


async def add_all(tx: AsyncConnection, messages: Sequence[tuple[str, str, Message]]) -> None:
    """As `add`, for many in one statement."""
    if not messages:
        return
    rows = [
        {
            "message_id": message.id,
            "exchange": exchange,
            "routing_key": routing_key,
            "type": message.type,
            "body": message.body,
            "headers": dict(message.headers),
            "request_id": message.request_id,
        }
        for exchange, routing_key, message in messages
    ]
    await tx.execute(sa.insert(_outbox).values(rows))


class Relay:
    """Publishes what the outbox holds; any number of them may run.

    The rows are locked, published with confirms, deleted, and the transaction commits. Killed
    between a confirm and the commit, it leaves the rows, and they are published again under the
    same ids: at least once, in the order of writing while nothing fails.
    """

    def __init__(self, engine: AsyncEngine, broker: Broker, url: str) -> None:
        self._engine = engine
        self._broker = broker
        self._url = url

    async def run(self) -> None:
        schema = sa.make_url(self._url).username  # the role's search_path is its own name
        async with db.listen(self._url, f"{schema}_{CHANNEL}") as listener:
            while True:
                listener.event.clear()
                try:
                    published, failed = await self.relay()
                except Exception as error:
                    if not db.is_unavailable(error):
                        raise
                    log.warning("outbox.database_away", error=type(error).__name__)
                    published, failed = 0, 1
                if failed:
                    await asyncio.sleep(FAILED_SECONDS)
                elif published < BATCH:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await listener.event.wait()

    async def relay(self) -> tuple[int, int]:
        """Publish one batch; return how many rows left and how many stay."""
        if not self._broker.connected:
            return 0, 1
        async with self._engine.begin() as tx:
            rows = (
                await tx.execute(
                    sa.select(_outbox, (sa.func.now() - _outbox.c.created_at).label("age"))
                    .order_by(_outbox.c.tries, _outbox.c.id)
                    .limit(BATCH)
                    .with_for_update(skip_locked=True)
                )
            ).all()
            _LAG.set(max((row.age.total_seconds() for row in rows), default=0.0))
            outcomes = await asyncio.gather(*(self._publish(row) for row in rows))
            done = [row.id for row, outcome in zip(rows, outcomes, strict=True) if outcome]
            # One that fails moves behind the others: a row that nobody can route blocks none.
            stuck = [
                row.id for row, outcome in zip(rows, outcomes, strict=True) if outcome is False
            ]
            if done:
                await tx.execute(sa.delete(_outbox).where(_outbox.c.id.in_(done)))
            if stuck:
                await tx.execute(
                    sa.update(_outbox)
                    .where(_outbox.c.id.in_(stuck))
                    .values(tries=_outbox.c.tries + 1)
                )
        return len(done), len(rows) - len(done)

    async def _publish(self, row: Any) -> bool | None:
        """True: confirmed. False: the row's own fault, perhaps. None: RabbitMQ is away."""
        message = Message(
            row.message_id, row.type, row.body, request_id=row.request_id, headers=row.headers
        )
        try:
            await self._broker.publish(row.exchange, row.routing_key, message, timeout=4.0)
        except BrokerUnavailable:
            _RELAYED.labels("away").inc()
            return None
        except PublishError as error:
            _RELAYED.labels(type(error).__name__.lower()).inc()
            log.warning(
                "outbox.not_relayed",
                type=row.type,
                exchange=row.exchange,
                routing_key=row.routing_key,
                error=type(error).__name__,
            )
            return False
        _RELAYED.labels("confirmed").inc()
        return True
