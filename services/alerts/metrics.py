"""Every metric of the service; metrics.toml says what each counts."""

import math

from libs.common.process.metrics import Metrics
from services.alerts.rules.delivery import BreakerState, Kind, Reason

_metrics = Metrics(__file__)
DELIVERIES = _metrics.counter("alerts_attempts_total")
SECONDS = _metrics.histogram("alerts_attempt_seconds")
ACCEPTED = _metrics.counter("alerts_accepted_total")
SILENCED = _metrics.counter("alerts_silenced_total")
BREAKER = _metrics.gauge("alerts_breaker_state")
HELD = _metrics.gauge("alerts_target_held")
PERMITS = _metrics.counter("alerts_permits_total")
PERMIT_OVERRUN = _metrics.counter("alerts_permit_overrun_total")
MISSING_ROW = _metrics.counter("alerts_missing_row_total")
REQUEUED = _metrics.counter("alerts_requeued_total")
REPLICAS = _metrics.gauge("alerts_replicas")
DIGESTS = _metrics.counter("alerts_digests_total")
ESCALATION_UNSENT = _metrics.gauge("alerts_escalation_unsent_seconds")
LEDGER_OK = _metrics.gauge("alerts_ledger_ok")
LEDGER_OK.set(math.nan)  # a gauge starts at 0, which would mean a failed check
LEDGER_TERM = _metrics.gauge("alerts_ledger_term")
LEDGER_ROWS = _metrics.gauge("alerts_ledger_rows")
ONCALL_GAP = _metrics.gauge("alerts_oncall_gap_seconds")
CASES_OK = _metrics.gauge("alerts_cases_ok")
CASES_OK.set(math.nan)
CASE_TERM = _metrics.gauge("alerts_case_term")
CASE_ANSWER_SECONDS = _metrics.histogram(
    "alerts_case_answer_seconds", 60, 300, 900, 1800, 3600, 4 * 3600, 8 * 3600, 24 * 3600, 72 * 3600
)
CASE_FORGOTTEN = _metrics.counter("alerts_case_forgotten_total")
HEARTBEATS_MISSED = _metrics.counter("alerts_heartbeats_missed_total")
PINGS = _metrics.counter("alerts_pings_total")
EVENTS = _metrics.counter("alerts_events_total")
CASE_STEPS = _metrics.counter("alerts_case_steps_total")


def attempt(target: str, kind: Kind, reason: Reason, seconds: float) -> None:
    DELIVERIES.labels(target, kind, reason).inc()
    SECONDS.labels(target, kind).observe(seconds)


def breaker_state(target: str, current: BreakerState) -> None:
    for state in BreakerState:
        BREAKER.labels(target, state).set(state is current)
