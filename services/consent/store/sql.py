"""SQL as text, in which a parameter's name determines its type.

asyncpg must know the type of each parameter.
"""

from typing import Any, Final

import sqlalchemy as sa

from libs.common.database.statement import Statement

CELLS = ("email", "ip_address", "user_agent", "reason", "session_id", "evidence")
"""Sealed columns of the trail."""
_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("subject", "id", "message"), sa.Uuid),
    **dict.fromkeys(("hash", "agreement", "key"), sa.LargeBinary),
    **dict.fromkeys(CELLS, sa.LargeBinary),
    "at": sa.DateTime(timezone=True),
    "rows": sa.BigInteger,
}


def sql(text: str, **columns: Any) -> Statement:
    """:param columns: types of columns, which asyncpg needs for UUIDs and bytes"""
    clause = sa.text(text)
    names = clause.compile().params
    typed = clause.bindparams(
        *(sa.bindparam(name, type_=_TYPES[name]) for name in names if name in _TYPES)
    )
    return Statement(typed.columns(**columns) if columns else typed)
