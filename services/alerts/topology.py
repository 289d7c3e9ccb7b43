"""The exchanges and queues of alerts; docs/architecture.md has the picture.

The message of a failed attempt is rejected: it goes through the dead-letter exchange to `.retry`,
and after that queue's TTL back to the work queue. Any delay but the first has a queue of its own,
`.retry.<seconds>`. Critical messages wait apart, in `.high.retry.<seconds>`: RabbitMQ expires
messages at the head of a queue, where one of high priority would block the others.
"""

import math
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
from services.alerts import messages
from services.alerts.channels.channel import Target
from services.alerts.config.targets import Config

ALERTS = Exchange("alerts", "direct")
DLX = Exchange("alerts.dlx", "direct")
EVENTS = Exchange("alerts.events", "topic")
EXCHANGES = (ALERTS, DLX, EVENTS)

FOLLOWUP_EVENTS = Exchange("followups.events", "topic")  # of followups: bound, never declared
CONSENT_EVENTS = Exchange("consent.events", "topic")
CONSENT_COMMANDS = "consent.commands"

INTAKE_QUEUE = "alerts.intake"
PINGS_QUEUE = "alerts.pings"
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
            Binding(FOLLOWUP_EVENTS, "lead.qualified"),
            Binding(FOLLOWUP_EVENTS, "lead.updated"),
            Binding(FOLLOWUP_EVENTS, "lead.submitted"),
        ),
        delivery_limit=DELIVERY_LIMIT,
    )


def data_subject_queues() -> tuple[Queue, ...]:
    """The queues in which consent asks for exports and orders erasures."""
    return (
        *request_queue(REQUESTS_QUEUE, dlx=DLX, bindings=(Binding(ALERTS, "export.request"),)),
        *work_queue(
            ERASURES_QUEUE,
            exchange=ALERTS,
            dlx=DLX,
            bindings=(Binding(CONSENT_EVENTS, "person.erased.alerts"),),
            sent_again=True,  # until consent has a receipt
        ),
    )


def target_queues(config: Config) -> tuple[Queue, ...]:
    queues: list[Queue] = []
    for target, options in config.targets.items():
        name = work_name(target)
        queues += work_queue(
            name,
            exchange=ALERTS,
            dlx=DLX,
            bindings=(Binding(ALERTS, name),),
            delivery_limit=DELIVERY_LIMIT,
        )
        queues += [
            delay_queue(name, seconds, exchange=ALERTS, dlx=DLX, part=part)
            for part, seconds in delays(options)
        ]
    return tuple(queues)
