"""Every metric of the service; labels are closed enums and target names."""

import math

from prometheus_client import Counter, Gauge, Histogram

from services.alerts.rules.delivery import BreakerState, Kind, Reason

DELIVERIES = Counter(
    "alerts_attempts_total",
    "Attempts by result (outcome: alert.Kind; reason: alert.Reason).",
    ["target", "outcome", "reason"],
)
SECONDS = Histogram(
    "alerts_attempt_seconds", "Duration of one delivery attempt.", ["target", "outcome"]
)
ACCEPTED = Counter("alerts_accepted_total", "Ledger rows written by intake.")
SILENCED = Counter("alerts_silenced_total", "Ledger rows that a silence has held back.")
BREAKER = Gauge("alerts_breaker_state", "1 for the state the breaker is in.", ["target", "state"])
HELD = Gauge("alerts_target_held", "1 while a target refuses us: see `ostoja doctor`.", ["target"])
PERMITS = Counter(
    "alerts_permits_total", "Permit requests (granted, denied, closed, none).", ["answer"]
)
PERMIT_OVERRUN = Counter(
    "alerts_permit_overrun_total", "Mails sent after their permit had expired. Must stay 0."
)
MISSING_ROW = Counter(
    "alerts_missing_row_total",
    "Work messages whose row is missing and cannot have been purged.",
    ["target"],
)
REQUEUED = Counter(
    "alerts_requeued_total", "Rows requeued because their message was lost.", ["target"]
)

REPLICAS = Gauge("alerts_replicas", "Live processes of this service, as this one knows.")
DIGESTS = Counter("alerts_digests_total", "Digest mails, by content (digests.Part).", ["part"])
ESCALATION_UNSENT = Gauge(
    "alerts_escalation_unsent_seconds",
    "Age of the oldest failure that no mail has reported; every replica shows the whole ledger.",
)
LEDGER_OK = Gauge(
    "alerts_ledger_ok",
    "1 while the ledger check passes, 0 while it fails, NaN while it cannot run.",
)
LEDGER_OK.set(math.nan)  # a gauge starts at 0, which would mean a failed check
LEDGER_TERM = Gauge(
    "alerts_ledger_term",
    "Terms of the last ledger check; every replica shows the whole ledger.",
    ["term"],  # ledger_check.TERMS
)
LEDGER_ROWS = Gauge(
    "alerts_ledger_rows",
    "Rows that are pending, failed or in doubt; every replica shows the whole ledger.",
    ["target", "state"],
)
ONCALL_GAP = Gauge(
    "alerts_oncall_gap_seconds",
    "How much of the next day's open time only a schedule's `otherwise` is on call.",
    ["schedule"],
)
CASES_OK = Gauge(
    "alerts_cases_ok", "1 while the check of cases passes, 0 while it fails, NaN until it has run."
)
CASES_OK.set(math.nan)
CASE_TERM = Gauge(
    "alerts_case_term",
    "Terms of the last check of cases; every replica shows all of them.",
    ["term"],  # case_queries.TERMS
)
CASE_ANSWER_SECONDS = Histogram(
    "alerts_case_answer_seconds",
    "Time from the opening of a case to its answer.",
    ["event"],
    buckets=(60, 300, 900, 1800, 3600, 4 * 3600, 8 * 3600, 24 * 3600, 72 * 3600),
)
CASE_FORGOTTEN = Counter(
    "alerts_case_forgotten_total",
    "Owners without an outcome in time: reminded, and then their case released.",
    ["what"],  # reminded | released
)
HEARTBEATS_MISSED = Counter(
    "alerts_heartbeats_missed_total",
    "Event types, and jobs (event: job), that did not come in time.",
    ["event"],
)
PINGS = Counter(
    "alerts_pings_total",
    "Pings of jobs (heartbeats.Kind); dropped: a copy, or of a URL that counts no more.",
    ["kind"],
)
CASE_STEPS = Counter("alerts_case_steps_total", "Steps of cases handed out.", ["target"])


def attempt(target: str, kind: Kind, reason: Reason, seconds: float) -> None:
    DELIVERIES.labels(target, kind, reason).inc()
    SECONDS.labels(target, kind).observe(seconds)


def breaker_state(target: str, current: BreakerState) -> None:
    for state in BreakerState:
        BREAKER.labels(target, state).set(state is current)
