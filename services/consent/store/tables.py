"""The tables that the code names; `schema.sql` beside this file has their columns."""

from pathlib import Path

from libs.common.database import schema

metadata = schema.read(Path(__file__).with_name("schema.sql"))
_tables = metadata.tables

consent_state = _tables["consent_state"]
data_subject = _tables["data_subject"]
erasure = _tables["erasure"]
erasure_receipt = _tables["erasure_receipt"]
link_mail = _tables["link_mail"]
permit = _tables["permit"]
suppression = _tables["suppression"]
# Append-only; its trigger sets id, timestamp and hash.
consent_audit_log = _tables["consent_audit_log"]
# The trail has only the hashes of these; sealed with the subject's key, like the trail's cells.
trail_origin = _tables["trail_origin"]
# The keys that made the stored hashes, the oldest first.
hash_key = _tables["hash_key"]
# An agreement that waits for its confirmation by the mailed link; sealed with the subject's key.
opt_in = _tables["opt_in"]
# While it lasts nothing is sent or erased; `kept` is an export of all services, sealed as above.
restriction = _tables["restriction"]
# Append-only.
admin_action = _tables["admin_action"]
