"""A lead's effect on its mails: it agrees, refuses, writes again, or changes its address."""

import uuid
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.common.messaging.broker import Message
from libs.common.process import logs
from services.followups import messages, metrics
from services.followups.config import Config
from services.followups.dialogue.state import State
from services.followups.dialogue.taps import Tap
from services.followups.rules.facts import Facts
from services.followups.store import steps
from services.followups.store.tables import Row
from services.followups.topology import CONSENT_COMMANDS

DEFAULT_SEQUENCE = "default"
UNSUBSCRIBED, CORRECTED = "unsubscribe", "address_corrected"
"""Cancellation reasons. The first equals the action in consent's own event."""


class Said(NamedTuple):
    """One chat message and its metadata."""

    message: str
    session_id: str
    passed: Facts
    language: str | None
    agreed: str | None
    """Wording of a consent that the website collected with this message."""
    ip_address: str | None
    user_agent: str | None
    ip_address_from: str | None = None
    tap: Tap | None = None
    """A tapped chip, in place of a typed message; `message` is then its label."""
    greeted: bool = False
    """The page shows the opening."""
    source: str = "chat"
    """The name in consent's trail."""


def grant(said: Said, state: State, now: datetime) -> outbox.Outgoing:
    """Record the grant with consent: the agreed wording and where it was given."""
    body = messages.grant_record(
        str(state.facts.email),
        wording=str(state.wording),
        language=str(state.language),
        session_id=said.session_id,
        ip_address=said.ip_address,
        ip_address_from=said.ip_address_from,
        user_agent=said.user_agent,
        at=now,
    )
    metrics.GRANTS.inc()
    return command(messages.GRANT_RECORD, body)


def withdrawal(
    said: Said, email: str, now: datetime, *, language: str | None = None, erase: bool = False
) -> outbox.Outgoing:
    body = messages.withdrawal_record(
        email=email,
        session_id=said.session_id,
        ip_address=said.ip_address,
        ip_address_from=said.ip_address_from,
        user_agent=said.user_agent,
        at=now,
        language=language,
        erase=erase,
        source=said.source,
    )
    metrics.WITHDRAWALS.inc()
    return command(messages.WITHDRAWAL_RECORD, body)


async def leave(
    tx: AsyncConnection,
    conversation_id: uuid.UUID,
    said: Said,
    before: State,
    state: State,
    now: datetime,
    outgoing: list[outbox.Outgoing],
) -> State:
    """Undo the grant and steps for an address that was given by mistake.

    Scheduled steps move to the new address. A step that was handed over needs a permit, which
    consent denies after the withdrawal.
    """
    old, new = str(before.facts.email), state.facts.email
    for address in sorted(filter(None, (old, new))):  # one lock order everywhere
        await steps.lock_address(tx, address)
    if before.granted_to == old and before.withdrawn_from != old:
        outgoing.append(withdrawal(said, old, now))
    await steps.move(tx, conversation_id, old, new)
    stopped = await steps.stop(tx, steps.of_mailbox(conversation_id, old), CORRECTED)
    metrics.ENDED.labels("cancelled").inc(len(stopped))
    return state._replace(granted_to=None, withdrawn_from=None)


def command(
    kind: str, body: dict[str, object], message_id: uuid.UUID | None = None
) -> outbox.Outgoing:
    """Return a command to consent.

    :param message_id: for what must be recorded once, however often it is read; else a new one
    """
    request_id = logs.request_id.get()
    message = Message(str(message_id or uuid.uuid4()), kind, body, request_id=request_id)
    return CONSENT_COMMANDS.name, kind, message


async def replied(
    tx: AsyncConnection, config: Config, conversation_id: uuid.UUID, now: datetime
) -> Collection[str]:
    """End the sequences of a lead that writes, or restart their delays.

    If a step was handed over, or staff enrolled the lead, the message is a reply and the remaining
    steps are cancelled. Otherwise the lead is still talking, and the delays restart now. This holds
    only in the lead's own conversation: in another one, anyone could name the address.

    :returns: the sequences that this conversation was ever enrolled in
    """
    sequences: dict[str, list[Row]] = {}
    for row in await steps.rows_of_conversation(tx, conversation_id):
        sequences.setdefault(row["sequence"], []).append(row)
    for sequence, rows in sequences.items():
        if any(row["enrolled_by"] == "api" or row["handed_over_at"] for row in rows):
            stopped = await steps.stop(tx, steps.from_step(rows[0]), "reply")
            metrics.ENDED.labels("cancelled").inc(len(stopped))
        elif waiting := [row for row in rows if row["status"] == "scheduled"]:
            due = config.due_times(sequence, now, from_step=waiting[0]["step"])
            await steps.retime(tx, waiting, due, "chat")
    return sequences
