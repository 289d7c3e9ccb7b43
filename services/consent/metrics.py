"""Every metric of consent, with its label values."""

from math import inf

from prometheus_client import Counter, Gauge, Histogram

PERMITS = Counter("consent_permits_total", "Permit requests answered.", ["answer"])
"""granted | denied | closed"""

WITHDRAWALS = Counter("consent_withdrawals_total", "Withdrawals answered.", ["outcome"])
"""done | in_flight | superseded"""

WITHDRAWAL_SECONDS = Histogram(
    "consent_withdrawal_wait_seconds",
    "From a withdrawal's commit to its answer.",
    buckets=(0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 30),
)

GRANTS = Counter("consent_grants_total", "Agreements recorded.", ["standing"])
"""counted | awaiting_confirmation"""

ERASURES = Counter("consent_erasures_total", "People erased here.")

ERASURES_OPEN = Gauge("consent_erasures_open", "Erasures that some service has not reported back.")

ERASURE_DAYS_LEFT = Gauge(
    "consent_erasure_days_left",
    "Days until the first of them is due, a month after its request; +Inf without any.",
)
ERASURE_DAYS_LEFT.set(inf)  # not 0, until it is first looked at

LINK_MAILS = Counter(
    "consent_link_mails_total", "Confirming links asked for, by whether one was mailed.",
    ["kind", "outcome"],
)  # fmt: skip
"""erasure | opt-in; mailed | held_back"""

TRAIL_CONTRADICTED = Gauge(
    "consent_trail_contradicted", "1: the trail is not what its last checkpoint says it was."
)

UNSIGNED_ROWS = Gauge("consent_trail_unsigned_rows", "Rows of the trail behind no checkpoint yet.")
