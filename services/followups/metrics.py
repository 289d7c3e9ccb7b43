"""Every metric of followups, with its label values."""

import math

from prometheus_client import Counter, Gauge, Histogram

TURNS = Counter("followups_chat_turns_total", "Chat messages answered.", ["language"])
"""pl | en"""

LEADS = Counter("followups_leads_qualified_total", "Leads that staff were notified of.")

NOTIFIED = Counter("followups_staff_notified_total", "Events for staff.", ["topic", "kind"])
"""topic: lead, or a topic of followups.toml; kind: new | update"""

SUBMISSIONS = Counter("followups_leads_total", "Submissions of forms.", ["form", "event"])
"""event: lead.qualified | lead.submitted | none | suspected | duplicate | erased"""

GRANTS = Counter("followups_consents_granted_total", "Consents granted in chat or by a form.")

WITHDRAWALS = Counter(
    "followups_consents_withdrawn_total", "Consents refused or withdrawn in chat."
)

IMPORTED = Counter("followups_imported_rows_total", "Rows of imported lead files.", ["result"])
"""taken | rejected"""

"""answered | timeout | unavailable | refused | malformed | unfaithful"""

FORGOTTEN = Counter(
    "followups_conversations_deleted_total", "Conversations deleted after their retention period."
)

HANDED_OVER = Counter("followups_handed_over_total", "Steps handed over to alerts.")

DEFERRED = Counter("followups_deferred_total", "Due steps postponed by the daily cap.")

LAG = Histogram(
    "followups_lag_seconds",
    "Delay from the time a step was due to its hand-over.",
    buckets=(0.5, 1, 2, 5, 10, 60, 600, 3600),
)

TAKEN = Counter(
    "followups_stopped_by_answer_total", "Steps stopped because a person took the lead."
)

ENDED = Counter("followups_ended_total", "Steps that ended, by final status.", ["status"])
"""sent | cancelled | in_doubt | failed"""

MAILS = Counter("followups_mails_total", "Mails that came back.", ["outcome"])
"""hard | soft | complaint | unsubscribe | auto | reply | unknown | duplicate | left | unreadable"""

LOOKED = Gauge(
    "followups_inbox_looked_timestamp_seconds",
    "When this process last read the mailbox of INBOX_URL; at first, its start.",
)
LOOKED.set(math.nan)
