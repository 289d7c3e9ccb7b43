"""A lead's effect on its mails: it agrees, refuses, writes again, or changes its address."""

import uuid
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
from services.followups.messages import MARKETING
from services.followups.rules.facts import Facts
from services.followups.store import sql, steps
from services.followups.store.sql import run
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

    @property
    def origin(self) -> dict[str, str | None]:
        names = ("session_id", "ip_address", "ip_address_from", "user_agent")
        return {name: getattr(self, name) for name in names}


def grant(
    said: Said, state: State, who: str, now: datetime, purpose: str = MARKETING
) -> outbox.Outgoing:
    """Record the grant with consent: the agreed wording and where it was given."""
    body = messages.grant_record(
        who,
        str(state.wording),
        now,
        **said.origin,
        language=str(state.language),
        purpose=purpose,
    )
    metrics.GRANTS.inc()
    return command(messages.GRANT_RECORD, body)


def withdrawal(
    said: Said, who: str, now: datetime, *, language: str | None = None, erase: bool = False
) -> outbox.Outgoing:
    body = messages.withdrawal_record(
        who, now, **said.origin, language=language, erase=erase, source=said.source
    )
    metrics.WITHDRAWALS.inc()
    return command(messages.WITHDRAWAL_RECORD, body)


def undone(said: Said, before: State, state: State, now: datetime) -> list[outbox.Outgoing]:
    """Withdraw what was granted for an address or a number that was given by mistake."""
    kept = {None, before.withdrawn_from, state.facts.email, state.facts.phone}
    granted = {before.granted_to, *before.grants.values()} - kept
    return [withdrawal(said, str(who), now) for who in granted]


async def leave(
    tx: AsyncConnection, conversation_id: uuid.UUID, before: State, state: State
) -> State:
    """Undo the steps for an address that was given by mistake.

    Scheduled steps move to the new address. A step that was handed over needs a permit, which
    consent denies after the withdrawal.
    """
    old, new = str(before.facts.email), state.facts.email
    for address in sorted(filter(None, (old, new))):  # one lock order everywhere
        await steps.lock_address(tx, address)
    await run(tx, "move", conversation=conversation_id, old=old, new=new)
    stopped = await steps.stop(tx, CORRECTED, conversation_id, email=old, both=True)
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


async def go_on(
    tx: AsyncConnection,
    config: Config,
    conversation_id: uuid.UUID,
    email: str,
    now: datetime,
    *,
    again: bool,
    starts: str | None,
    by: steps.EnrolledBy,
) -> None:
    """End the sequences of a lead that writes, or restart their delays; start what it agrees to.

    If a step was handed over, or staff enrolled the lead, the message is a reply and the remaining
    steps are cancelled. Otherwise the lead is still talking, and the delays restart now. This holds
    only in the lead's own conversation: in another one, anyone could name the address. The caller
    has the address lock.

    :param again: it had an address before; without one nothing can be enrolled yet
    :param starts: a sequence, in which this conversation was not yet
    """
    sequences: dict[str, list[Row]] = {}
    for row in await sql.rows(tx, "heard", conversation=conversation_id) if again else ():
        sequences.setdefault(row["sequence"], []).append(row)
    for sequence, rows in sequences.items():
        if any(row["enrolled_by"] == "api" or row["handed_over_at"] for row in rows):
            stopped = await steps.stop(tx, "reply", conversation_id, since=rows[0])
            metrics.ENDED.labels("cancelled").inc(len(stopped))
        elif waiting := [row for row in rows if row["status"] == "scheduled"]:
            due = config.due_times(sequence, now, from_step=waiting[0]["step"])
            await steps.retime(tx, waiting, due, "chat")
    if starts is not None and starts not in sequences:
        due, request_id = config.due_times(starts, now), logs.request_id.get()
        await steps.enrol(tx, conversation_id, email, starts, due, by, request_id)
