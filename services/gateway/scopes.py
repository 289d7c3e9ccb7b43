"""What a caller may do: each route that needs a key needs one scope of it."""

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
    DLQ_READ = "dlq:read"
    DLQ_ACT = "dlq:act"
    BREAKERS_RESET = "breakers:reset"
    ONCALL_READ = "oncall:read"
    ONCALL_WRITE = "oncall:write"
    LIMITS_READ = "limits:read"
    LIMITS_WRITE = "limits:write"
    LEDGER_READ = "ledger:read"
    CONSENT_READ = "consent:read"
    CONSENT_ACT = "consent:act"


Scopes = frozenset[Scope]

_CASES: Scopes = frozenset({Scope.CASES_READ, Scope.CASES_ANSWER})
SERVICE: Scopes = _CASES | {
    Scope.ALERTS_WRITE,
    Scope.ALERTS_READ,
    Scope.FOLLOWUPS_WRITE,
    Scope.FOLLOWUPS_READ,
    Scope.LEADS_WRITE,
    Scope.LEADS_READ,
    Scope.LEADS_IMPORT,
}
"""Of SERVICE_API_KEY."""
ADMIN: Scopes = (frozenset(Scope) - SERVICE) | _CASES
"""Of ADMIN_API_KEY: programs have the other key, so that neither opens everything."""
