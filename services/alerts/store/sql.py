"""SQL text whose parameters and result columns get their types by name.

A module's statements are in the .sql file beside it. The function that executes one says what
it is for; a comment there gives reasons.

One name must have one type everywhere. asyncpg needs the type of each parameter; psycopg2 returns
uuid as text, and asyncpg jsonb.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from libs.common.database.queries import texts


def _are(kind: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


_COLUMNS: Final[Mapping[str, Any]] = {
    **_are(sa.Uuid, "alert_id first_id case_id update_id duplicate_of"),
    **_are(JSONB, "payload reasons alerts found chain receipt result"),
}
_PARAMETERS: Final[Mapping[str, Any]] = {
    **_COLUMNS,
    **_are(JSONB(none_as_null=True), "receipt"),
    **_are(sa.Uuid, "digest process"),
    **_are(
        sa.Text, "target fallback state before reason error kind numbers rows reports results key"
    ),
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


def statements(module: str, **given: object) -> dict[str, sa.TextualSelect]:
    """Return the statements of a module's .sql file by name; `given` as of `texts`."""
    found = texts(Path(module).with_suffix(".sql"), **given)
    return {name: sql(text) for name, text in found.items()}
