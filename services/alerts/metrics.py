"""Every metric of the service, with its label values; labels are closed enums and target names."""

import math

from prometheus_client import Counter, Gauge, Histogram

from services.alerts.alert import BreakerState, Kind, Reason

DELIVERIES = Counter(
    "alerts_deliveries_total",
    "Attempts, by what became of them (outcome: see alert.Kind; reason: see alert.Reason).",
    ["target", "outcome", "reason"],
)
SECONDS = Histogram(
    "alerts_delivery_seconds", "Time of one attempt at the target.", ["target", "outcome"]
)
ACCEPTED = Counter("alerts_accepted_total", "Ledger rows written by intake.")
FENCED = Counter("alerts_fenced_total", "Workers that found another had taken over.", ["target"])
BREAKER = Gauge("alerts_breaker_state", "1 for the state the breaker is in.", ["target", "state"])
PERMITS = Counter(
    "alerts_permits_total", "Permit requests (granted, denied, closed, none).", ["answer"]
)
PERMIT_OVERRUN = Counter(
    "alerts_permit_overrun_total", "Mails whose hand-over outlasted the permit. Must stay 0."
)
SWEPT = Counter("alerts_swept_total", "Rows that had lost their message.", ["target"])

FELL_BACK = Counter(
    "alerts_fell_back_total", "Critical alerts handed to the target's fallback.", ["target"]
)
BROUGHT_FORWARD = Counter(
    "alerts_brought_forward_total", "Rows not left to wait once their target was back.", ["target"]
)
TURN_SECONDS = Counter(
    "alerts_turn_seconds_total", "Time messages waited for their target's own rate.", ["target"]
)
RESETS = Counter("alerts_breaker_resets_total", "Breakers closed by hand.", ["target"])
REPLICAS = Gauge("alerts_replicas", "Processes of this service that this one knows to be alive.")
DIGESTS = Counter(
    "alerts_digests_total", "Mails to a person, by what they tell (see digests.Part).", ["part"]
)
ESCALATION_UNTOLD = Gauge(
    "alerts_escalation_untold_seconds",
    "Age of the oldest failure that no mail has told a person of; any replica's word is the whole "
    "ledger's.",
)
LEDGER_OK = Gauge(
    "alerts_ledger_ok",
    "1 while P1's equation holds and nothing is stranded; NaN while nobody can look.",
)
LEDGER_OK.set(math.nan)  # a gauge begins as 0, and that is a verdict
LEDGER_TERM = Gauge(
    "alerts_ledger_term",
    "What the ledger check counted; any replica's word is the whole ledger's.",
    ["term"],  # balance.TERMS
)
LEDGER_ROWS = Gauge(
    "alerts_ledger_rows",
    "Rows that are pending, finally failed or in doubt; any replica's word is the whole ledger's.",
    ["target", "state"],
)


def attempt(target: str, kind: Kind, reason: Reason, seconds: float) -> None:
    DELIVERIES.labels(target, kind, reason).inc()
    SECONDS.labels(target, kind).observe(seconds)


def breaker_state(target: str, current: BreakerState) -> None:
    for state in BreakerState:
        BREAKER.labels(target, state).set(state is current)
