"""Which scopes the keys of the environment and the roles of the staff have."""

from collections.abc import Mapping

from libs.domain.scopes import Scope

Scopes = frozenset[Scope]

_CASES: Scopes = frozenset({Scope.CASES_READ, Scope.CASES_ANSWER})
SERVICE: Scopes = _CASES | {
    Scope.ALERTS_WRITE,
    Scope.ALERTS_READ,
    Scope.FOLLOWUPS_WRITE,
    Scope.FOLLOWUPS_READ,
    Scope.LEADS_WRITE,
    Scope.LEADS_READ,
    Scope.MAIL_INBOUND,
}
"""Scopes of SERVICE_API_KEY."""
ADMIN: Scopes = (frozenset(Scope) - SERVICE - {Scope.LEADS_IMPORT}) | _CASES
"""Scopes of ADMIN_API_KEY: programs have the other key, so that neither opens everything."""

_VIEWER: Scopes = frozenset(
    {Scope.ALERTS_READ, Scope.DLQ_READ, Scope.LIMITS_READ, Scope.LEDGER_READ, Scope.ONCALL_READ}
)
STAFF: Mapping[str, Scopes] = {
    "viewer": _VIEWER,
    "sales": _CASES
    | {Scope.LEADS_READ, Scope.LEADS_WRITE, Scope.FOLLOWUPS_READ, Scope.FOLLOWUPS_WRITE},
    "ops": _VIEWER
    | _CASES
    | {Scope.DLQ_ACT, Scope.BREAKERS_RESET, Scope.LIMITS_WRITE, Scope.ONCALL_WRITE}
    | {Scope.HEARTBEATS_READ, Scope.HEARTBEATS_WRITE},
    "privacy": frozenset({Scope.CONSENT_READ, Scope.CONSENT_ACT, Scope.ACTIONS_READ}),
    "admin": frozenset({Scope.KEYS_MANAGE, Scope.STAFF_MANAGE, Scope.ACTIONS_READ}),
}
"""Scopes of each role of the console's staff; several roles add up."""
