"""Every metric of followups; metrics.toml says what each counts."""

import math

from libs.common.process.metrics import Metrics

_metrics = Metrics(__file__)
TURNS = _metrics.counter("followups_chat_turns_total")
LEADS = _metrics.counter("followups_leads_qualified_total")
NOTIFIED = _metrics.counter("followups_staff_notified_total")
SUBMISSIONS = _metrics.counter("followups_leads_total")
GRANTS = _metrics.counter("followups_consents_granted_total")
WITHDRAWALS = _metrics.counter("followups_consents_withdrawn_total")
IMPORTED = _metrics.counter("followups_imported_rows_total")
FORGOTTEN = _metrics.counter("followups_conversations_deleted_total")
HANDED_OVER = _metrics.counter("followups_handed_over_total")
DEFERRED = _metrics.counter("followups_deferred_total")
LAG = _metrics.histogram("followups_lag_seconds", 0.5, 1, 2, 5, 10, 60, 600, 3600)
TAKEN = _metrics.counter("followups_stopped_by_answer_total")
ENDED = _metrics.counter("followups_ended_total")
MAILS = _metrics.counter("followups_mails_total")
LOOKED = _metrics.gauge("followups_inbox_looked_timestamp_seconds")
LOOKED.set(math.nan)
