"""Addresses that take no mail."""

import uuid
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from services.followups import messages
from services.followups.mails import enrolment
from services.followups.store import conversations, mails, steps

BOUNCED = "bounced"


async def bury(tx: AsyncConnection, conversation_id: UUID, email: str, reason: str) -> list[UUID]:
    """Send nothing more to this address; the caller has locked the conversation.

    :returns: the steps that were cancelled
    """
    await conversations.end_followups(tx, conversation_id, email, "bounce")
    await steps.lock_address(tx, email)
    await mails.run(tx, "bury", email=email, conversation=conversation_id, reason=reason)
    await _report(tx, email, takes_mail=False)
    return await steps.stop(tx, steps.of_recipient(conversation_id, email), BOUNCED)


async def try_again(tx: AsyncConnection, email: str) -> bool:
    """Allow mail to this address again; what was cancelled stays cancelled.

    :returns: whether it was listed
    """
    await steps.lock_address(tx, email)
    was_listed = (await mails.run(tx, "try_again", email=email)).rowcount == 1
    if was_listed:
        await _report(tx, email, takes_mail=True)
    return was_listed


async def _report(tx: AsyncConnection, email: str, *, takes_mail: bool) -> None:
    body = messages.address_report(email, takes_mail=takes_mail, at=datetime.now(UTC))
    sent = enrolment.command(messages.ADDRESS_REPORT, body, uuid.uuid4())
    await outbox.add_all(tx, [sent])
