"""The statements of queries.sql; a parameter's name determines its type."""

from pathlib import Path

import sqlalchemy as sa

from libs.common.database.queries import Queries

CELLS = ("email", "ip_address", "user_agent", "reason", "session_id", "evidence")
"""Sealed columns of the trail."""
run = Queries(
    Path(__file__).with_name("queries.sql"),
    {
        **dict.fromkeys(("subject", "id", "message"), sa.Uuid),
        **dict.fromkeys((*CELLS, "hash", "agreement", "key", "kept"), sa.LargeBinary),
        "at": sa.DateTime(timezone=True),
        "rows": sa.BigInteger,
        "purpose": sa.Text,
        "keep": sa.Boolean,
    },
    {"withdrawn": sa.JSON},
)
