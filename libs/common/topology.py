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

DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"
_UNLIMITED = -1


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

    @property
    def dead_letters(self) -> str:
        """The exchange through which `.retry` and `.dead` are reached."""
        return str(self.arguments[DEAD_LETTER_EXCHANGE])


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
) -> tuple[Queue, Queue, Queue]:
    """Give the work queue, its `.retry` and its `.dead`.

    :param exchange: through it the message comes back from `.retry`, by the queue's own name
    :param delivery_limit: how often a message may come back to its place in the queue (a crash, a
        cut connection, a hand-back) before it is dead-lettered into `.retry` as if rejected
    """
    return (
        Queue(
            name,
            {**_quorum(delivery_limit), **_dead_lettering(dlx, retry_name(name))},
            tuple(dict.fromkeys((*bindings, Binding(exchange, name)))),
        ),
        _waiting(retry_name(name), {}, name, exchange=exchange, dlx=dlx),
        Queue(dead_name(name), _quorum(_UNLIMITED), (Binding(dlx, dead_name(name)),)),
    )


def delay_queue(work: str, seconds: int, *, exchange: Exchange, dlx: Exchange) -> Queue:
    """Give a queue from which messages return to `work` after a delay unlike `.retry`'s.

    One queue per delay: in one queue with many, a message would wait behind the head's TTL.
    """
    name = delay_name(work, seconds)
    return _waiting(name, {"x-message-ttl": seconds * 1000}, work, exchange=exchange, dlx=dlx)


def _waiting(
    name: str, arguments: Mapping[str, Any], back_to: str, *, exchange: Exchange, dlx: Exchange
) -> Queue:
    return Queue(
        name,
        {**_quorum(_UNLIMITED), **_dead_lettering(exchange, back_to), **arguments},
        (Binding(dlx, name),),
    )


def _quorum(delivery_limit: int) -> dict[str, Any]:
    # Stated on each queue: the default (20) drops a message of a queue without dead-lettering
    # once somebody has looked at it 20 times in the management UI.
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _dead_lettering(exchange: Exchange, key: str) -> dict[str, Any]:
    return {
        DEAD_LETTER_EXCHANGE: exchange.name,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
