"""The metrics of the gateway (metrics.toml says what each counts); Redis has its own."""

from libs.common.process.metrics import Metrics

_metrics = Metrics(__file__)
LIMIT_DECISIONS = _metrics.counter("gateway_limit_decisions_total")
BUDGET_REQUESTS = _metrics.counter("gateway_budget_requests_total")
for _of in ("chat", "write", "withdrawal", "form", "suspected"):
    for _used in ("low", "most", "all"):
        BUDGET_REQUESTS.labels(f"{_of}_budget", _used)  # a rule sees only what rises from 0
LIMIT_LOCAL_KEYS = _metrics.gauge("gateway_limit_local_keys", "livesum")
LIMIT_WAITING = _metrics.gauge("gateway_limit_waiting", "livesum")
BODY_BYTES = _metrics.gauge("gateway_body_bytes", "livesum")
BODIES_REJECTED = _metrics.counter("gateway_bodies_rejected_total")
UPSTREAM_SECONDS = _metrics.histogram("gateway_upstream_seconds")
UPSTREAM_FAILURES = _metrics.counter("gateway_upstream_failures_total")
ALERTS_ACCEPTED = _metrics.counter("gateway_alerts_accepted_total")
ALERTS_UNCONFIRMED = _metrics.counter("gateway_alerts_unconfirmed_total")
LEADS = _metrics.counter("gateway_leads_total")
CONSENTS_NOT_RECORDED = _metrics.counter("gateway_consents_not_recorded_total")
PINGS = _metrics.counter("gateway_pings_total")
ACTS_UNRECORDED = _metrics.counter("gateway_acts_unrecorded_total")
KEYS_REJECTED = _metrics.counter("gateway_keys_rejected_total")
for _header in ("X-API-KEY", "X-ADMIN-API-KEY", "X-Operator-Token"):
    KEYS_REJECTED.labels(_header)
KEYS_STALE = _metrics.gauge("gateway_keys_stale_seconds", "livemax")
