"""What a key or a person may do. Each route of the gateway that needs a key needs one of these."""

from enum import StrEnum


class Scope(StrEnum):
    ALERTS_WRITE = "alerts:write"
    ALERTS_READ = "alerts:read"
    CASES_READ = "cases:read"
    CASES_ANSWER = "cases:answer"
    FOLLOWUPS_WRITE = "followups:write"
    FOLLOWUPS_READ = "followups:read"
    LEADS_WRITE = "leads:write"
    LEADS_READ = "leads:read"
    LEADS_IMPORT = "leads:import"
    """An import may state people's consents: for a separate key, not those of `.env`."""
    MAIL_INBOUND = "mail:inbound"
    DLQ_READ = "dlq:read"
    DLQ_ACT = "dlq:act"
    BREAKERS_RESET = "breakers:reset"
    ONCALL_READ = "oncall:read"
    ONCALL_WRITE = "oncall:write"
    ONCALL_SELF = "oncall:self"
    """Their own quiet hours: every role has it."""
    HEARTBEATS_READ = "heartbeats:read"
    """Shows their ping URLs, too."""
    HEARTBEATS_WRITE = "heartbeats:write"
    SUBSCRIPTIONS_READ = "subscriptions:read"
    SUBSCRIPTIONS_WRITE = "subscriptions:write"
    PERSONAL_DATA = "personal_data"
    """Beside the other two: events show whom they are about."""
    LIMITS_READ = "limits:read"
    LIMITS_WRITE = "limits:write"
    LEDGER_READ = "ledger:read"
    CONSENT_READ = "consent:read"
    CONSENT_ACT = "consent:act"
    KEYS_MANAGE = "keys:manage"
    STAFF_MANAGE = "staff:manage"
    ACTIONS_READ = "actions:read"


NOT_FOR_KEYS = frozenset(
    {Scope.KEYS_MANAGE, Scope.STAFF_MANAGE, Scope.ACTIONS_READ, Scope.ONCALL_SELF}
)
"""For people and ADMIN_API_KEY: no key may make keys, or let people in."""
READS_PERSONS = frozenset(
    {Scope.LEADS_READ, Scope.FOLLOWUPS_READ, Scope.DLQ_READ, Scope.CONSENT_READ, Scope.CONSENT_ACT}
    | {Scope.PERSONAL_DATA}
)
"""Every admin is notified when a key gets one."""
PERSON = "staff:"
"""How `X-Operator` names a person of the console: `staff:<id> <name>`.

Only the gateway writes it, for a token that it has checked.
"""


def operator_action(method: str, path: str) -> str:
    """Return what a token of the console's staff is for: one call."""
    return f"operator {method} {path}"


KEY = "key:"
"""How it names an API key, as the gateway has found it: `key:<id>`."""
