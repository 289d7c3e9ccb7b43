"""The tables that the code names; `schema.sql` beside this file has their columns."""

from collections.abc import Mapping
from typing import Any

from libs.common import beside
from libs.common.database import schema

metadata = schema.read(beside.path(__file__, "schema.sql"))
_tables = metadata.tables

# `followups_ended_by`: why its follow-ups ended for good. Enrolment by staff clears `staff`;
# only "try again" clears `bounce`.
chat_conversations = _tables["chat_conversations"]
chat_message = _tables["chat_message"]
# Every address that was named in a conversation, not only the current one.
chat_email = _tables["chat_email"]
# The message by which an imported lead's grant was sent to consent.
followup_event = _tables["followup_event"]
# A lead or another request for staff. `known`: the facts; `notified`: the facts in the last event
# (NULL: none yet); `said`: the person's words since then; `due_at`: when to notify; `heard_in`: the
# conversation of the last change; a person may return in another one. `known["also"]`: what other
# conversations said that differs; `from`: which.
lead = _tables["lead"]
# What staff did with it; `revision`: of the lead after it.
lead_act = _tables["lead_act"]
# A contact is a person, who may have many leads. `conversation_id`: which gave it.
lead_contact = _tables["lead_contact"]
# What was sent with a form. One that looks like a robot's is kept apart, whole, in `held`.
lead_submission = _tables["lead_submission"]
mail = _tables["mail"]
undeliverable = _tables["undeliverable"]
# A stop recalls messages by their id, even after RabbitMQ was down for a day.
outbox_table = _tables["outbox"]

Row = Mapping[Any, Any]
