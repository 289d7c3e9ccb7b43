"""The statements of queries.sql; a parameter's name determines its type."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.queries import Queries

run = Queries(
    Path(__file__).with_name("queries.sql"),
    {
        "id": sa.Uuid,
        "people": JSONB(none_as_null=True),
        **dict.fromkeys(("token", "session", "code", "tried", "sha256"), sa.LargeBinary),
        **dict.fromkeys(("at", "since", "until"), sa.DateTime(timezone=True)),
    },
    {"filter": JSONB, "people": JSONB},
)
