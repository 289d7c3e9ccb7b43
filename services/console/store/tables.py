"""The tables that the code names; `schema.sql` beside this file has their columns."""

from pathlib import Path

from libs.common.database import schema

metadata = schema.read(Path(__file__).with_name("schema.sql"))
_tables = metadata.tables

api_key = _tables["api_key"]
bulk_action = _tables["bulk_action"]
sample = _tables["sample"]
staff = _tables["staff"]
staff_action = _tables["staff_action"]
staff_credential = _tables["staff_credential"]
