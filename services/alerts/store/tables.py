"""The tables that the code names; `schema.sql` beside this file has their columns."""

from typing import Final

import sqlalchemy as sa

from libs.common import beside
from libs.common.database import schema


def names(table: sa.Table) -> str:
    """Return its columns for SQL: a `*` would return columns of a later release, too."""
    return ", ".join(f"{table.name}.{each.name}" for each in table.c)


metadata = schema.read(beside.path(__file__, "schema.sql"))
_tables = metadata.tables

OPEN: Final = "state IN ('pending', 'claimed', 'sending')"
KEPT: Final = "state IN ('failed', 'in_doubt', 'discarded')"

attempt = _tables["attempt"]
delivery = _tables["delivery"]
# Without the payload of up to 256 KiB: a hundred thousand rows may be chosen.
BARE: Final = names(delivery).replace("delivery.payload", "payload IS NULL AS empty")

alert_case = _tables["alert_case"]
case_answer = _tables["case_answer"]
case_place = _tables["case_place"]
case_step = _tables["case_step"]
heartbeat_watch = _tables["heartbeat_watch"]
oncall_override = _tables["oncall_override"]
silence = _tables["silence"]
