"""The tables that the code names; `schema.sql` beside this file has their columns."""

from pathlib import Path
from typing import Final

from libs.common.database import schema

metadata = schema.read(Path(__file__).with_name("schema.sql"))
_tables = metadata.tables

OPEN: Final = "state IN ('pending', 'claimed', 'sending')"
KEPT: Final = "state IN ('failed', 'in_doubt', 'discarded')"

attempt = _tables["attempt"]
delivery = _tables["delivery"]
duplicate = _tables["duplicate"]
epoch = _tables["epoch"]
escalation = _tables["escalation"]

alert_case = _tables["alert_case"]
case_answer = _tables["case_answer"]
case_link = _tables["case_link"]
case_place = _tables["case_place"]
case_step = _tables["case_step"]
heartbeat_ping = _tables["heartbeat_ping"]
heartbeat_watch = _tables["heartbeat_watch"]
oncall_override = _tables["oncall_override"]
silence = _tables["silence"]
