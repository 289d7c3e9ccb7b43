"""The private names of aiormq 7.2 that we use; a unit test fails if a new version moves one."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection

BLOCKED = "_Connection__handle_connection_blocked"
UNBLOCKED = "_Connection__handle_connection_unblocked"
NAMES: dict[type, set[str]] = {aiormq.Connection: {"_closing", BLOCKED, UNBLOCKED}}

# aio-pika 10.2 registers each channel on its connection's `closing` and removes it when the channel
# is closed. aiormq 7.2 returns a new future at each access, all of which the connection keeps:
# every channel ever opened would stay in memory (a test counts them).
setattr(aiormq.Connection, "closing", property(lambda connection: connection._closing))  # noqa: B010, SLF001

# How many heartbeats RabbitMQ may miss (see broker.HEARTBEAT_SECONDS). Public, but an int there.
setattr(aiormq.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 1.5)  # noqa: B010


def on_blocked(
    connection: AbstractConnection,
    blocked: Callable[[aiormq.spec.Connection.Blocked], Awaitable[None]],
    unblocked: Callable[[aiormq.spec.Connection.Unblocked], Awaitable[None]],
) -> None:
    """Call these when RabbitMQ blocks the connection, and when it no longer does."""
    inside: Any = connection.transport and connection.transport.connection
    setattr(inside, BLOCKED, blocked)
    setattr(inside, UNBLOCKED, unblocked)
