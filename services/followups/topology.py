"""The exchanges and queues of followups."""

from libs.common.messaging.topology import Binding, Exchange, request_queue, work_queue

COMMANDS = Exchange("followups.commands", "direct")
EVENTS = Exchange("followups.events", "topic")
DLX = Exchange("followups.dlx", "direct")

EXCHANGES = (COMMANDS, EVENTS, DLX)

ALERTS = Exchange("alerts", "direct")
ALERTS_INTAKE = "alerts.intake"
ALERTS_EVENTS = Exchange("alerts.events", "topic")
CONSENT_COMMANDS = Exchange("consent.commands", "direct")
CONSENT_EVENTS = Exchange("consent.events", "topic")

REQUESTS_QUEUE = "followups.requests"
CONSENT_QUEUE = "followups.consent-events"
OUTCOMES_QUEUE = "followups.outcomes"
LEADS_QUEUE = "followups.leads"

QUEUES = (
    *request_queue(REQUESTS_QUEUE, dlx=DLX, bindings=(Binding(COMMANDS, "export.request"),)),
    *work_queue(
        CONSENT_QUEUE,
        dlx=DLX,
        bindings=(
            Binding(CONSENT_EVENTS, "consent.granted"),
            Binding(CONSENT_EVENTS, "consent.withdrawn"),
            Binding(CONSENT_EVENTS, "person.erased.followups"),
        ),
        # Consent repeats erasures until their receipt; the permit enforces withdrawals.
        sent_again=True,
    ),
    *work_queue(LEADS_QUEUE, dlx=DLX, bindings=(Binding(COMMANDS, "lead.submit"),)),
    *work_queue(
        OUTCOMES_QUEUE,
        dlx=DLX,
        bindings=(
            Binding(ALERTS_EVENTS, "followup.*"),
            Binding(ALERTS_EVENTS, "case.answered"),
            Binding(ALERTS_EVENTS, "case.released"),
        ),
    ),
)
