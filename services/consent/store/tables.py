"""The tables that the code names; `schema.sql` beside this file has their columns."""

from pathlib import Path

from libs.common.database import schema

metadata = schema.read(Path(__file__).with_name("schema.sql"))
_tables = metadata.tables

admin_action = _tables["admin_action"]
consent_state = _tables["consent_state"]
data_subject = _tables["data_subject"]
erasure = _tables["erasure"]
hash_key = _tables["hash_key"]
link_mail = _tables["link_mail"]
permit = _tables["permit"]
preference = _tables["preference"]
undeliverable = _tables["undeliverable"]
restriction = _tables["restriction"]
suppression = _tables["suppression"]
