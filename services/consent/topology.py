"""The exchanges and queues of consent."""

from libs.common.messaging.topology import Binding, Exchange, request_queue, work_queue

COMMANDS = Exchange("consent.commands", "direct")
EVENTS = Exchange("consent.events", "topic")
DLX = Exchange("consent.dlx", "direct")

ALERTS = "alerts"  # owned by alerts: published to, never declared
FOLLOWUPS_COMMANDS = "followups.commands"

EXCHANGES = (COMMANDS, EVENTS, DLX)

REQUESTS_QUEUE = "consent.requests"
PERMITS_QUEUE = "consent.permits"
COMMANDS_QUEUE = "consent.commands"

_COMMANDS = (
    "grant.record",
    "withdrawal.record",
    "address.report",
    "erasure.trace",
    "erasure.receipt",
)
QUEUES = (
    *request_queue(
        REQUESTS_QUEUE,
        dlx=DLX,
        bindings=tuple(
            Binding(COMMANDS, key)
            for key in ("permit.request", "erased.request", "standing.request")
        ),
    ),
    *work_queue(PERMITS_QUEUE, dlx=DLX, bindings=(Binding(COMMANDS, "permit.return"),)),
    *work_queue(
        COMMANDS_QUEUE, dlx=DLX, bindings=tuple(Binding(COMMANDS, key) for key in _COMMANDS)
    ),
)
