"""The exchanges and queues of alerts; see docs/architecture.md for the picture.

A failed attempt is rejected: dead-letter exchange, `.retry` until its TTL, back to the work
queue. A delay unlike the first has a queue of its own, `.retry.<seconds>`.
"""

from libs.common.topology import Binding, Exchange, Queue, delay_queue, request_queue, work_queue
from services.alerts.config import Config

ALERTS = Exchange("alerts", "direct")
DLX = Exchange("alerts.dlx", "direct")
EVENTS = Exchange("alerts.events", "topic")
EXCHANGES = (ALERTS, DLX, EVENTS)

FOLLOWUP_EVENTS = Exchange("followups.events", "topic")  # theirs: bound to, never declared
CONSENT_EVENTS = Exchange("consent.events", "topic")
CONSENT_COMMANDS = "consent.commands"

INTAKE_QUEUE = "alerts.intake"
ERASURES_QUEUE = "alerts.erasures"
REQUESTS_QUEUE = "alerts.requests"
# A message may be handed back when a breaker opens or the database is away; neither is poison.
DELIVERY_LIMIT = 100


def work_name(target: str) -> str:
    return f"alerts.{target}"


def intake_queues() -> tuple[Queue, ...]:
    return work_queue(
        INTAKE_QUEUE,
        exchange=ALERTS,
        dlx=DLX,
        bindings=(
            Binding(ALERTS, INTAKE_QUEUE),
            Binding(FOLLOWUP_EVENTS, "lead.qualified"),
        ),
        delivery_limit=DELIVERY_LIMIT,
    )


def person_queues() -> tuple[Queue, ...]:
    """What consent wants of us: to tell what is held on a person, and to erase it."""
    return (
        *request_queue(REQUESTS_QUEUE, dlx=DLX, bindings=(Binding(ALERTS, "export.request"),)),
        *work_queue(
            ERASURES_QUEUE,
            exchange=ALERTS,
            dlx=DLX,
            bindings=(Binding(CONSENT_EVENTS, "person.erased.alerts"),),
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
            delay_queue(name, int(seconds), exchange=ALERTS, dlx=DLX)
            for seconds in options.policy.tiers
            if seconds != options.retry_delays[0]
        ]
    return tuple(queues)
