"""Every metric of consent; metrics.toml says what each counts."""

from math import inf

from libs.common.process.metrics import Metrics

_metrics = Metrics(__file__)
PERMITS = _metrics.counter("consent_permits_total")
WITHDRAWALS = _metrics.counter("consent_withdrawals_total")
WITHDRAWAL_SECONDS = _metrics.histogram(
    "consent_withdrawal_wait_seconds", 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 30
)
GRANTS = _metrics.counter("consent_grants_total")
ERASURES = _metrics.counter("consent_erasures_total")
ERASURES_OPEN = _metrics.gauge("consent_erasures_open")
ERASURE_DAYS_LEFT = _metrics.gauge("consent_erasure_days_left")
ERASURE_DAYS_LEFT.set(inf)  # not 0 before the first measurement
LINK_MAILS = _metrics.counter("consent_link_mails_total")
TRAIL_MISMATCH = _metrics.gauge("consent_trail_mismatch")
REPLAY_PENDING = _metrics.gauge("consent_replay_pending")
BACKUP_VERIFIED = _metrics.gauge("consent_backup_verified_timestamp_seconds")
UNSIGNED_ROWS = _metrics.gauge("consent_trail_unsigned_rows")
