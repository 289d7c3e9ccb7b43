"""SQL as text, in which a parameter's name determines its type.

asyncpg must know the type of each parameter.
"""

from typing import Any, Final

import sqlalchemy as sa

_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("subject", "id", "message"), sa.Uuid),
    **dict.fromkeys(("hash", "agreement", "key"), sa.LargeBinary),
    "at": sa.DateTime(timezone=True),
    "rows": sa.BigInteger,
}


def sql(text: str) -> sa.TextClause:
    statement = sa.text(text)
    names = statement.compile().params
    return statement.bindparams(
        *(sa.bindparam(name, type_=_TYPES[name]) for name in names if name in _TYPES)
    )
