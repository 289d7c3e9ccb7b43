"""What happened, for subscriptions: whoever owns it says so in the transaction that acts.

Alerts keeps it for two weeks and delivers it (services/alerts/rules/events.toml has the types).
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from libs.common.messaging.broker import Message
from libs.common.messaging.outbox import Outgoing
from libs.common.process import logs

EXCHANGE = "alerts"
OCCURRED = "event.occurred"
"""The routing key."""
KEY_REVOKED = "key.revoked"
"""No event of a subscription: those that the key made are paused."""


def occurred(event_type: str, event_id: UUID, /, **body: Any) -> Outgoing:
    """:param event_id: the same one is delivered once
    :param body: its fields; `email` and `conversation_id` let an erasure find it in the outbox
    """
    plain = {name: str(value) if isinstance(value, UUID) else value for name, value in body.items()}
    at = datetime.now(UTC).isoformat()
    message = Message(str(event_id), event_type, {"at": at} | plain, logs.request_id.get())
    return EXCHANGE, OCCURRED, message
