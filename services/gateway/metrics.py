"""Every metric of the gateway, with its label values."""

from prometheus_client import Counter, Gauge, Histogram

LIMIT_DECISIONS = Counter(
    "gateway_limit_decisions_total",
    "Requests against the limits; counted_in says who decided.",
    [
        "policy",  # chat | api | service
        "outcome",  # admitted | refused (in shadow mode: would be)
        "counted_in",  # redis | here
    ],
)
LIMIT_KEYS = Gauge(
    "gateway_limit_local_keys",
    "Clients counted in the processes' own memory.",
    multiprocess_mode="livesum",
)
REDIS_CONNECTED = Gauge(
    "gateway_redis_connected",
    "1 while the limits are counted in Redis, by every worker.",
    multiprocess_mode="livemin",
)

BODY_BYTES = Gauge(
    "gateway_body_bytes",
    "Of bodies in hand, beyond the first 4 KiB of each.",
    multiprocess_mode="livesum",
)
BODIES_REFUSED = Counter(
    "gateway_bodies_refused_total", "Requests answered 503: there was no room for their bodies."
)

UPSTREAM_SECONDS = Histogram(
    "gateway_upstream_seconds", "Time until the owner's answer began.", ["upstream"]
)
UPSTREAM_FAILURES = Counter(
    "gateway_upstream_failures_total",
    "Requests that got no answer from their owner.",
    [
        "upstream",  # followups | consent | alerts
        "reason",  # unreachable | broken | timeout
    ],
)

ALERTS_ACCEPTED = Counter(
    "gateway_alerts_accepted_total",
    "Alerts answered 202, by the way they went.",
    ["way"],  # broker | service
)
ALERTS_UNKNOWN = Counter(
    "gateway_alerts_unknown_total", "Alerts answered 503: neither way confirmed them."
)
IDEMPOTENT = Counter(
    "gateway_idempotent_requests_total",
    "Requests with an Idempotency-Key.",
    ["outcome"],  # first | repeated | running | conflict
)
