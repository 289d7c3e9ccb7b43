"""Mail that came back, addresses that take none, and how far a shared mailbox was read."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from libs.common.database.queries import Queries

run = Queries(
    Path(__file__).with_name("mails.sql"),
    {
        **dict.fromkeys(("key", "kind", "email", "status", "reason", "after", "name"), sa.Text),
        **dict.fromkeys(("step", "conversation"), sa.Uuid),
        **dict.fromkeys(("validity", "uid", "more"), sa.BigInteger),
        **dict.fromkeys(("limit", "days"), sa.Integer),
        "emails": pg.ARRAY(sa.Text),
        "since": sa.DateTime(timezone=True),
    },
)
