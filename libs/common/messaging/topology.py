"""Exchanges and queues as data, and the shape of every work queue.

    work ──rejected──> dlx ──> .retry ──TTL──> work          .dead: needs an operator

All are quorum queues with at-least-once dead-lettering, which needs every argument below: with the
default overflow (drop-head), or without the strategy, RabbitMQ silently does it at most once.
A queue's arguments can never change (a different redeclaration is refused with 406). So the TTL of
`.retry`, which may be tuned, is a policy (deploy/provision.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Disables RabbitMQ's own limit, whose default is 20. Above it, a message of a work queue goes to
# `.retry` and never returns (see request_queue), and in a queue without dead-lettering, reading a
# message 20 times in the management UI drops it.
_QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": -1}
DELIVERY_LIMIT = 20


@dataclass(frozen=True)
class Exchange:
    name: str
    kind: Literal["direct", "topic"]


@dataclass(frozen=True)
class Binding:
    exchange: Exchange
    key: str


@dataclass(frozen=True)
class Queue:
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    delivery_limit: int | None = None
    """After this many returns to its position in the queue, `Consumer` rejects a message unread."""
    dlx: Exchange | None = None
    """Through it `.dead` is reached."""
    sent_again: bool = False
    """The sender repeats its messages: `.dead` keeps the ids and the reason but not the body,
    which may say whose data it is about."""


def retry_name(work: str) -> str:
    return f"{work}.retry"


def delay_name(work: str, seconds: int) -> str:
    return f"{work}.retry.{seconds}"


def dead_name(work: str) -> str:
    return f"{work}.dead"


def work_queue(
    name: str,
    *,
    dlx: Exchange,
    exchange: Exchange | None = None,
    bindings: Iterable[Binding] = (),
    delivery_limit: int = DELIVERY_LIMIT,
    sent_again: bool = False,
) -> tuple[Queue, Queue, Queue]:
    """Return a work queue with its `.retry` and `.dead`.

    :param exchange: returns messages from `.retry`, by the queue's own name; None: `dlx` does
    :param delivery_limit: how often a message may return to its old position (after a crash,
        a lost connection or a requeue) before `Consumer` rejects it unread, so that even a message
        that kills its process runs out of tries
    """
    exchange = exchange or dlx
    return (
        Queue(
            name,
            {**_QUORUM, **_dead_lettering(dlx, retry_name(name))},
            tuple(dict.fromkeys((*bindings, Binding(exchange, name)))),
            delivery_limit,
            dlx,
            sent_again,
        ),
        _waiting(retry_name(name), {}, name, exchange=exchange, dlx=dlx),
        _dead(name, dlx),
    )


def request_queue(name: str, *, dlx: Exchange, bindings: Iterable[Binding]) -> tuple[Queue, Queue]:
    """Return a queue for requests that expire, with its `.dead`.

    It has no dead-lettering: RabbitMQ would dead-letter expired requests into `.retry`, detect a
    cycle without a rejection on the way back, and keep them there forever; 32 of them block that
    queue. So Retry drops a request, and the requester asks again.
    """
    return (
        Queue(name, _QUORUM, tuple(bindings), DELIVERY_LIMIT, dlx, sent_again=True),
        _dead(name, dlx),
    )


def delay_queue(
    work: str, seconds: int, *, exchange: Exchange, dlx: Exchange, part: str = ""
) -> Queue:
    """Return a queue that returns messages to `work` after another delay than `.retry`'s.

    There is one queue per delay: with several delays in a queue, messages would wait for the head's
    TTL.

    :param part: of the name, for messages that are to wait apart
    """
    name = delay_name(work + part, seconds)
    return _waiting(name, {"x-message-ttl": seconds * 1000}, work, exchange=exchange, dlx=dlx)


def _dead(work: str, dlx: Exchange) -> Queue:
    return Queue(dead_name(work), _QUORUM, (Binding(dlx, dead_name(work)),))


def _waiting(
    name: str, arguments: Mapping[str, Any], back_to: str, *, exchange: Exchange, dlx: Exchange
) -> Queue:
    return Queue(
        name,
        {**_QUORUM, **_dead_lettering(exchange, back_to), **arguments},
        (Binding(dlx, name),),
    )


def _dead_lettering(exchange: Exchange, key: str) -> dict[str, Any]:
    return {
        "x-dead-letter-exchange": exchange.name,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
