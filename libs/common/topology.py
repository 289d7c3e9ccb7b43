"""Exchanges and queues as data (docs/decisions/0002-messaging.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DELIVERY_LIMIT = 20
"""RabbitMQ's own default since 4.0, stated: what is returned more often is dead-lettered."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Durable."""

    name: str
    kind: Literal["direct", "topic"]


@dataclass(frozen=True, slots=True)
class Binding:
    exchange: Exchange
    key: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue; an argument never changes after the first declaration."""

    name: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()


def retry_name(work: str) -> str:
    return f"{work}.retry"


def delay_name(work: str, seconds: int) -> str:
    return f"{work}.retry.{seconds}"


def dead_name(work: str) -> str:
    return f"{work}.dead"


def _dead_lettering(exchange: Exchange, key: str) -> dict[str, str | int]:
    # At least once needs all of these together; with the default overflow, or without the
    # strategy, RabbitMQ falls back to at most once and says nothing.
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange.name,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def work_queue(
    name: str,
    *,
    exchange: Exchange,
    dlx: Exchange,
    bindings: tuple[Binding, ...] = (),
    delivery_limit: int = DELIVERY_LIMIT,
) -> tuple[Queue, ...]:
    """Derive the work queue, its `.retry` and its `.dead`.

    What the work queue rejects waits in `.retry` and returns through `exchange` under the work
    queue's own name. How long it waits is a policy on `.retry`, so it can be tuned.
    """
    work = Queue(
        name,
        {**_dead_lettering(dlx, retry_name(name)), "x-delivery-limit": delivery_limit},
        (Binding(exchange, name), *bindings),
    )
    retry = Queue(
        retry_name(name), _dead_lettering(exchange, name), (Binding(dlx, retry_name(name)),)
    )
    dead = Queue(dead_name(name), {"x-queue-type": "quorum"}, (Binding(dlx, dead_name(name)),))
    return work, retry, dead


def delay_queue(work: str, seconds: int, *, exchange: Exchange, dlx: Exchange) -> Queue:
    """Derive a longer delay; its name fixes its time, so the time is an argument."""
    name = delay_name(work, seconds)
    arguments = {**_dead_lettering(exchange, work), "x-message-ttl": seconds * 1000}
    return Queue(name, arguments, (Binding(dlx, name),))
