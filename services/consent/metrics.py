"""Every metric of consent, with its label values."""

from math import inf

from prometheus_client import Counter, Gauge, Histogram

PERMITS = Counter("consent_permits_total", "Permit requests answered.", ["answer"])
"""granted | denied | closed"""

WITHDRAWALS = Counter("consent_withdrawals_total", "Withdrawals answered.", ["outcome"])
"""done | in_flight | superseded"""

WITHDRAWAL_SECONDS = Histogram(
    "consent_withdrawal_wait_seconds",
    "Time from a withdrawal's commit to its answer.",
    buckets=(0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 30),
)

GRANTS = Counter("consent_grants_total", "Agreements recorded.", ["consequence"])
"""counts | confirm | nothing | withdrawn_since | unknown_wording"""

ERASURES = Counter("consent_erasures_total", "Data subjects erased in this service.")

ERASURES_OPEN = Gauge("consent_erasures_open", "Erasures that wait for a service's receipt.")

ERASURE_DAYS_LEFT = Gauge(
    "consent_erasure_days_left",
    "Days until the first open erasure is due, a month after its request; +Inf if none is open.",
)
ERASURE_DAYS_LEFT.set(inf)  # not 0 before the first measurement

LINK_MAILS = Counter(
    "consent_link_mails_total", "Confirmation links requested, by whether one was mailed.",
    ["kind", "outcome"],
)  # fmt: skip
"""erasure | opt-in; mailed | held_back"""

TRAIL_MISMATCH = Gauge("consent_trail_mismatch", "1: the trail contradicts its last checkpoint.")

REPLAY_PENDING = Gauge(
    "consent_replay_pending",
    "1: the database is older than the records outside it; no permits until the replay.",
)

BACKUP_VERIFIED = Gauge(
    "consent_backup_verified_timestamp_seconds",
    "When a backup was last restored and checked; until then, when the trail was first signed.",
)

UNSIGNED_ROWS = Gauge("consent_trail_unsigned_rows", "Rows of the trail after the last checkpoint.")
