"""The exchanges and queues of consent."""

from libs.common.topology import Binding, Exchange, request_queue, work_queue

COMMANDS = Exchange("consent.commands", "direct")
EVENTS = Exchange("consent.events", "topic")
DLX = Exchange("consent.dlx", "direct")

ALERTS = "alerts"  # theirs: published to, never declared
FOLLOWUPS_COMMANDS = "followups.commands"

EXCHANGES = (COMMANDS, EVENTS, DLX)

REQUESTS_QUEUE = "consent.requests"
PERMITS_QUEUE = "consent.permits"
COMMANDS_QUEUE = "consent.commands"

QUEUES = (
    *request_queue(REQUESTS_QUEUE, dlx=DLX, bindings=(Binding(COMMANDS, "permit.request"),)),
    *work_queue(
        PERMITS_QUEUE,
        exchange=DLX,
        dlx=DLX,
        bindings=(Binding(COMMANDS, "permit.return"),),
    ),
    *work_queue(
        COMMANDS_QUEUE,
        exchange=DLX,
        dlx=DLX,
        bindings=(Binding(COMMANDS, "grant.record"), Binding(COMMANDS, "erasure.receipt")),
    ),
)
