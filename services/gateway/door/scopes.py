"""Which scopes the keys of the environment and the roles of the staff have."""

from collections.abc import Mapping

from pydantic import TypeAdapter

from libs.common import beside
from libs.domain.scopes import Scope

Scopes = frozenset[Scope]

_HELD = TypeAdapter(dict[str, dict[str, Scopes]]).validate_python(beside.toml(__file__))
STAFF: Mapping[str, Scopes] = _HELD["staff"]
SERVICE = _HELD["keys"]["service"]
ADMIN = frozenset(Scope) - SERVICE - {Scope.LEADS_IMPORT} | {Scope.CASES_READ, Scope.CASES_ANSWER}
