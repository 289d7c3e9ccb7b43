"""Consumes what gateways of the previous release still record: calls with the admin key.

Decision 53 describes its replacement. The release after this one removes the queue, and once
ACTION_RETENTION_DAYS have passed the table.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Disposition, read
from libs.domain.email_address import MalformedEmail, normalise
from services.consent.messages import AdminAction
from services.consent.store.tables import admin_action
from services.consent.store.vault import Vault


async def take(engine: AsyncEngine, vault: Vault, message: Message) -> Disposition:
    call = read(message, AdminAction)
    values: dict[str, Any] = call.model_dump(exclude={"subject"})
    try:
        subject = normalise(call.subject) if call.subject else None
    except MalformedEmail:
        subject = None
    values["subject_hash"] = vault.suppression_hash(subject) if subject else None
    async with engine.begin() as tx:
        await tx.execute(insert(admin_action).values(**values).on_conflict_do_nothing())
    return Ack()


async def purge(engine: AsyncEngine, days: int) -> None:
    async with engine.begin() as tx:
        await tx.execute(sa.select(sa.func.admin_action_purge(days)))
