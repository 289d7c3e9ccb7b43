"""The metrics of the gateway, with their label values; its Redis is in redis_pipeline.py."""

from prometheus_client import Counter, Gauge, Histogram

LIMIT_DECISIONS = Counter(
    "gateway_limit_decisions_total",
    "Rate limit decisions; counted_in says where.",
    [
        # chat | api | form | slack | service | health | console | login
        # chat_budget | write_budget | withdrawal_budget | form_budget | suspected_budget
        "policy",
        "outcome",  # admitted | refused (would be: in shadow mode, a withdrawal over a budget)
        "counted_in",  # redis | here
    ],
)
BUDGET_REQUESTS = Counter(
    "gateway_budget_requests_total",
    "Valid requests without a key, by the used share of their common budget.",
    [
        "budget",  # chat_budget | write_budget | withdrawal_budget | form_budget | suspected_budget
        "used",  # low | most (four fifths) | all: refused, unless it is a withdrawal or a form
    ],
)
for _of in ("chat", "write", "withdrawal", "form", "suspected"):
    for _used in ("low", "most", "all"):
        BUDGET_REQUESTS.labels(f"{_of}_budget", _used)  # a rule sees only what rises from 0
LIMIT_LOCAL_KEYS = Gauge(
    "gateway_limit_local_keys",
    "Clients counted in process memory.",
    multiprocess_mode="livesum",
)
LIMIT_WAITING = Gauge(
    "gateway_limit_waiting",
    "Requests with a key that wait for the next window.",
    multiprocess_mode="livesum",
)

BODY_BYTES = Gauge(
    "gateway_body_bytes",
    "Bytes of request bodies held, beyond the first 4 KiB of each.",
    multiprocess_mode="livesum",
)
BODIES_REJECTED = Counter(
    "gateway_bodies_rejected_total",
    "Requests rejected with 503 because too many large bodies were held.",
)

UPSTREAM_SECONDS = Histogram(
    "gateway_upstream_seconds", "Seconds until the response of the upstream began.", ["upstream"]
)
UPSTREAM_FAILURES = Counter(
    "gateway_upstream_failures_total",
    "Requests that got no complete response from the upstream.",
    [
        "upstream",  # followups | consent | alerts
        "reason",  # unreachable | broken | timeout
    ],
)

ALERTS_ACCEPTED = Counter(
    "gateway_alerts_accepted_total",
    "Alerts answered with 202, by route (broker or service).",
    ["way"],  # broker | service
)
ALERTS_UNCONFIRMED = Counter(
    "gateway_alerts_unconfirmed_total",
    "Alerts answered with 503, because neither the broker nor the service confirmed them.",
)
LEADS = Counter(
    "gateway_leads_total",
    "Submissions of forms.",
    [
        "form",  # of forms.toml
        "way",  # broker | service | none
        "outcome",  # accepted | suspected | invalid | unproved | limited | unknown
    ],
)
CONSENTS_NOT_RECORDED = Counter(
    "gateway_consents_not_recorded_total",
    "Consents of forms whose wording is unknown or ended long ago, or that had no e-mail address.",
    ["form"],
)
PINGS = Counter("gateway_pings_total", "Pings of jobs that were passed on.", ["kind"])
ACTS_UNRECORDED = Counter(
    "gateway_acts_unrecorded_total",
    "Changes with the admin key that neither the broker nor the console recorded.",
)
KEYS_REJECTED = Counter(
    "gateway_keys_rejected_total",
    "Requests with an unknown key.",
    ["header"],  # X-API-KEY | X-ADMIN-API-KEY | X-Operator-Token
)
for _header in ("X-API-KEY", "X-ADMIN-API-KEY", "X-Operator-Token"):
    KEYS_REJECTED.labels(_header)
KEYS_STALE = Gauge(
    "gateway_keys_stale_seconds",
    "Seconds since the console last answered which keys are in force.",
    multiprocess_mode="livemax",
)
