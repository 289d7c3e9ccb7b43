"""SQL text whose parameters and result columns get their types by name.

One name must have one type everywhere. asyncpg needs the type of each parameter; psycopg2 returns
uuid as text, and asyncpg jsonb.
"""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB


def _are(kind: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


_COLUMNS: Final[Mapping[str, Any]] = {
    **_are(sa.Uuid, "alert_id first_id"),
    **_are(JSONB, "payload reasons found chain"),
}
_PARAMETERS: Final[Mapping[str, Any]] = {
    **_COLUMNS,
    **_are(JSONB(none_as_null=True), "receipt"),
    **_are(sa.Uuid, "digest process case_id"),
    **_are(sa.Text, "target fallback state before reason error kind numbers rows reports results"),
    **_are(sa.Integer, "attempt generation retries refund batch want begin_at"),
    **_are(sa.Float, "seconds lease window pause after repeat"),
    **_are(sa.Boolean, "take_over shut same_channel refuses asks"),
    **_are(sa.DateTime(timezone=True), "at begin"),
    **_are(ARRAY(sa.Uuid), "alert_ids"),
    **_are(ARRAY(sa.Text), "targets hashes dedup_keys"),
    **_are(ARRAY(sa.Integer), "generations"),
    **_are(ARRAY(sa.BigInteger), "keys"),
}


def sql(text: str) -> sa.TextualSelect:
    statement = sa.text(text)
    names = statement.compile().params
    typed = (sa.bindparam(name, type_=_PARAMETERS[name]) for name in names)
    return statement.bindparams(*typed).columns(**_COLUMNS)
