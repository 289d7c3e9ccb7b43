"""The exchanges and queues of alerts; docs/architecture.md has the picture.

The message of a failed attempt is rejected: it goes through the dead-letter exchange to `.retry`,
and after that queue's TTL back to the work queue. Any delay but the first has a queue of its own,
`.retry.<seconds>`. Critical messages wait apart, in `.high.retry.<seconds>`: RabbitMQ expires
messages at the head of a queue, where one of high priority would block the others.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from libs.common.messaging.broker import HIGH, Message
from libs.common.messaging.topology import (
    Binding,
    Exchange,
    Queue,
    delay_queue,
    request_queue,
    work_queue,
)
from libs.domain.events import OCCURRED
from services.alerts import messages
from services.alerts.channels.channel import Target

ALERTS = Exchange("alerts", "direct")
DLX = Exchange("alerts.dlx", "direct")
EVENTS = Exchange("alerts.events", "topic")
EXCHANGES = (ALERTS, DLX, EVENTS)

FOLLOWUP_EVENTS = Exchange("followups.events", "topic")  # of followups: bound, never declared
CONSENT_EVENTS = Exchange("consent.events", "topic")
CONSENT_COMMANDS = "consent.commands"

INTAKE_QUEUE = "alerts.intake"
PINGS_QUEUE = "alerts.pings"
OCCURRED_QUEUE = "alerts.occurred"
ERASURES_QUEUE = "alerts.erasures"
REQUESTS_QUEUE = "alerts.requests"
APART = ".high"
# A message is requeued when a breaker opens or its connection is lost: that is not poison.
DELIVERY_LIMIT = 100


def work_name(target: str) -> str:
    return f"alerts.{target}"


def work(row: Any, target: str, generation: int = 0) -> tuple[str, str, Message]:
    """Return the exchange and routing key for a row's work message, and the message."""
    message = messages.work(row.alert_id, target, generation, row.request_id)
    high = replace(message, priority=HIGH)
    return ALERTS.name, work_name(target), high if row.severity == "critical" else message


def delays(target: Target) -> list[tuple[str, int]]:
    """Return the delays that have a queue: APART or nothing, and seconds."""
    if target.waits_in_ledger:
        return []
    first = target.retry_delays[0]  # of all but critical messages: in `.retry`
    both = ((part, seconds) for seconds in target.policy.tiers for part in ("", APART))
    return [(part, math.ceil(each)) for part, each in both if part or each != first]


def intake_queues() -> tuple[Queue, ...]:
    pings = work_queue(
        PINGS_QUEUE, exchange=ALERTS, dlx=DLX, bindings=(Binding(ALERTS, PINGS_QUEUE),)
    )
    return *pings, *work_queue(
        INTAKE_QUEUE,
        exchange=ALERTS,
        dlx=DLX,
        bindings=(
            Binding(ALERTS, INTAKE_QUEUE),
            *(Binding(FOLLOWUP_EVENTS, each) for each in sorted(messages.LEAD_EVENTS)),
        ),
        delivery_limit=DELIVERY_LIMIT,
    )


def data_subject_queues() -> tuple[Queue, ...]:
    """Where consent asks for exports and orders erasures, and where events come."""
    return (
        *request_queue(REQUESTS_QUEUE, dlx=DLX, bindings=(Binding(ALERTS, "export.request"),)),
        *work_queue(
            ERASURES_QUEUE,
            exchange=ALERTS,
            dlx=DLX,
            bindings=(Binding(CONSENT_EVENTS, "person.erased.alerts"),),
            sent_again=True,  # until consent has a receipt
        ),
        *work_queue(
            OCCURRED_QUEUE,
            exchange=ALERTS,
            dlx=DLX,
            bindings=(
                Binding(ALERTS, OCCURRED),
                *(Binding(FOLLOWUP_EVENTS, f"lead.{each}") for each in ("qualified", "updated")),
                *(Binding(CONSENT_EVENTS, f"consent.{each}") for each in ("granted", "withdrawn")),
            ),
            sent_again=True,  # it is not, but `.dead` must not keep whose events they are
        ),
    )


def subscription_queues(target: str) -> tuple[Queue, ...]:
    """The queues of a target whose waits are in the ledger: what it parks has one delay."""
    name = work_name(target)
    bound = (Binding(ALERTS, name),)
    return work_queue(name, exchange=ALERTS, dlx=DLX, bindings=bound, delivery_limit=DELIVERY_LIMIT)


def target_queues(targets: Mapping[str, Target]) -> tuple[Queue, ...]:
    queues: list[Queue] = []
    for target, options in targets.items():
        name = work_name(target)
        queues += subscription_queues(target)
        queues += [
            delay_queue(name, seconds, exchange=ALERTS, dlx=DLX, part=part)
            for part, seconds in delays(options)
        ]
    return tuple(queues)
