"""Every metric of followups, with its label values."""

from prometheus_client import Counter, Histogram

TURNS = Counter("followups_chat_turns_total", "Chat messages answered.", ["language"])
"""pl | en"""

LEADS = Counter("followups_leads_qualified_total", "Leads that staff were told of.")

NOTIFIED = Counter("followups_staff_notified_total", "Events for staff.", ["topic", "kind"])
"""A topic of followups.toml, or lead; new | update"""

GRANTS = Counter("followups_consents_granted_total", "Clear agreements in a chat.")

WITHDRAWALS = Counter("followups_consents_withdrawn_total", "Refusals and withdrawals in a chat.")

IMPORTED = Counter("followups_imported_rows_total", "Rows of imported files.", ["result"])
"""taken | rejected"""

MODEL = Counter("followups_llm_replies_total", "Replies asked of the chat model.", ["outcome"])
"""answered | timeout | unavailable | refused | malformed | unfaithful"""

FORGOTTEN = Counter(
    "followups_conversations_deleted_total", "Conversations deleted after their retention."
)

HANDED_OVER = Counter("followups_handed_over_total", "Steps handed over to alerts.")

DEFERRED = Counter("followups_deferred_total", "Due steps put off because of the daily cap.")

LAG = Histogram(
    "followups_lag_seconds",
    "From the time a step was due to its hand-over.",
    buckets=(0.5, 1, 2, 5, 10, 60, 600, 3600),
)

ENDED = Counter("followups_ended_total", "Steps that reached their end.", ["status"])
"""sent | cancelled | in_doubt | failed"""
