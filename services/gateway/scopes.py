"""Which scopes the keys of the environment have."""

from libs.common.scopes import Scope

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
