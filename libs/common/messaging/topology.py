"""Exchanges and queues as data, and the shape that every work queue has.

    work ──rejected──> dlx ──> .retry ──TTL──> work          .dead: what a person must look at

All are quorum queues that dead-letter at least once. That needs every argument below: with the
default overflow (drop-head), or without the strategy, RabbitMQ silently does it at most once.
A queue's arguments never change (a different redeclaration is refused with 406): what is to be
tuned, the TTL of `.retry`, is a policy (deploy/provision.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# No limit of RabbitMQ's own, and said so, for its default is 20. Over it a message of a work queue
# goes to `.retry` and never comes back (see request_queue); in a queue without dead-lettering, 20
# looks in the management UI drop it.
_QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": -1}


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
    """After so many returns to its place in the queue, `consume` rejects a message unread."""
    dlx: Exchange | None = None
    """Through it `.dead` is reached."""
    sent_again: bool = False
    """Whoever sent a message sends it again: `.dead` keeps its ids and the reason, not its body,
    for it may say whose data it is about."""


def retry_name(work: str) -> str:
    return f"{work}.retry"


def delay_name(work: str, seconds: int) -> str:
    return f"{work}.retry.{seconds}"


def dead_name(work: str) -> str:
    return f"{work}.dead"


def work_queue(
    name: str,
    *,
    exchange: Exchange,
    dlx: Exchange,
    bindings: Iterable[Binding] = (),
    delivery_limit: int = 20,
    sent_again: bool = False,
) -> tuple[Queue, Queue, Queue]:
    """Give the work queue, its `.retry` and its `.dead`.

    :param exchange: through it the message comes back from `.retry`, by the queue's own name
    :param delivery_limit: how often a message may come back to its place in the queue (a crash, a
        cut connection, a hand-back) before `consume` rejects it unread: a message that kills its
        process must run out of tries, too
    """
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


def request_queue(
    name: str, *, dlx: Exchange, bindings: Iterable[Binding], delivery_limit: int = 20
) -> tuple[Queue, Queue]:
    """Give a queue for requests that expire, and its `.dead`.

    Without dead-lettering: RabbitMQ would dead-letter what expires into `.retry`, find a cycle
    without a rejection on the way back, and keep it there for ever; 32 of them stop that queue.
    So Retry drops a request: whoever asked asks again.
    """
    return (
        Queue(name, _QUORUM, tuple(bindings), delivery_limit, dlx, sent_again=True),
        _dead(name, dlx),
    )


def delay_queue(work: str, seconds: int, *, exchange: Exchange, dlx: Exchange) -> Queue:
    """Give a queue from which messages return to `work` after a delay unlike `.retry`'s.

    One queue per delay: in one queue with many, a message would wait behind the head's TTL.
    """
    name = delay_name(work, seconds)
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
