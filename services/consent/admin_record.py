"""Records what was done with the admin key; the gateway sends it by queue or over HTTP."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.email_address import MalformedEmail, normalise
from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Delivery, Disposition, read
from services.consent.messages import AdminAction
from services.consent.store import actions
from services.consent.trail.vault import Vault


class AdminRecord:
    def __init__(self, engine: AsyncEngine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault

    async def consume(self, message: Message, _: Delivery) -> Disposition:
        await self.add(read(message, AdminAction))
        return Ack()

    async def add(self, action: AdminAction) -> None:
        values: dict[str, Any] = action.model_dump(exclude={"subject"})
        values["subject_hash"] = self._hash(action.subject)
        async with self._engine.begin() as tx:
            await actions.record(tx, values)

    def _hash(self, subject: str | None) -> bytes | None:
        """Return a hash that outlives an erasure, so that the record can still be found."""
        try:
            return self._vault.suppression_hash(normalise(subject)) if subject else None
        except MalformedEmail:
            return None
