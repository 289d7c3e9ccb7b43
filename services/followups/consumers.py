"""One function per queue."""

from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import inbox, logs, outbox
from libs.common.broker import Broker, Message
from libs.common.broker import message as new_message
from libs.common.consume import Ack, Dead, Delivery, Outcome, malformed
from libs.common.requests import reply
from services.followups import messages, metrics
from services.followups.messages import (
    ConsentEvent,
    DeliverySettled,
    ExportRequest,
    PersonErased,
)
from services.followups.store import conversations, steps
from services.followups.store.tables import Row
from services.followups.topology import CONSENT_COMMANDS, CONSENT_QUEUE, OUTCOMES_QUEUE

log = logs.get_logger(__name__)

EXPORT_PAGE = 200  # of the longest messages that fits well into one of RabbitMQ's


class Consumers:
    def __init__(self, engine: AsyncEngine, broker: Broker) -> None:
        self._engine = engine
        self._broker = broker

    async def consent_events(self, message: Message, _: Delivery) -> Outcome:
        """followups.consent-events: who withdrew hears no more, who was erased was never here.

        The permit is what stops a mail after a withdrawal; this spares the asking.
        """
        try:
            if message.type == messages.PERSON_ERASED:
                return await self._erased(message)
            event = ConsentEvent.model_validate(message.body)
        except ValidationError as error:
            return malformed(error)
        match message.type:
            case messages.CONSENT_GRANTED:  # the permit will say so when a step is due
                return Ack()
            case messages.CONSENT_WITHDRAWN if messages.MARKETING not in event.purposes:
                return Ack()
            case messages.CONSENT_WITHDRAWN:
                return await self._withdrawn(message.id, event.email, event.action)
        return Dead("unknown type")

    async def _erased(self, message: Message) -> Outcome:
        order = PersonErased.model_validate(message.body)
        receipt = messages.erasure_receipt(order.erasure_id, datetime.now(UTC))
        async with self._engine.begin() as tx:
            if await inbox.first_time(tx, CONSENT_QUEUE, message.id):
                erased = await conversations.erase(tx, order.email)
                await outbox.add(
                    tx,
                    CONSENT_COMMANDS.name,
                    messages.ERASURE_RECEIPT,
                    new_message(messages.ERASURE_RECEIPT, receipt),
                )
                log.info("person.erased", conversations=erased)
        return Ack()

    async def _withdrawn(self, message_id: str, email: str, action: str) -> Outcome:
        stopped = []
        async with self._engine.begin() as tx:
            if await inbox.first_time(tx, CONSENT_QUEUE, message_id):
                await steps.lock_address(tx, email)
                stopped = await steps.stop(tx, steps.of_address(email), action)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        return Ack()

    async def outcomes(self, message: Message, _: Delivery) -> Outcome:
        """followups.outcomes: how a hand-over ended. A twin or a latecomer changes nothing."""
        if message.type != messages.DELIVERY_SETTLED:
            return Dead("unknown type")
        try:
            told = DeliverySettled.model_validate(message.body)
        except ValidationError as error:
            return malformed(error)
        settled = False
        async with self._engine.begin() as tx:
            if await inbox.first_time(tx, OUTCOMES_QUEUE, message.id):
                settled = await steps.settle(tx, told.reference, told.outcome, told.reason, told.at)
        if settled:
            metrics.ENDED.labels(told.outcome).inc()
        log.info("followup.settled", outcome=told.outcome, new=settled)
        return Ack()

    async def requests(self, message: Message, _: Delivery) -> Outcome:
        """followups.requests: what is held on a person, a page at a time."""
        if message.type != messages.EXPORT_REQUEST:
            return Dead("unknown type")
        try:
            asked = ExportRequest.model_validate(message.body)
        except ValidationError as error:
            return malformed(error)
        if asked.email is None:
            return await self._addresses(message, asked.after[1] if asked.after else 0)
        kind, offset = asked.after or ("conversations", 0)
        async with self._engine.begin() as tx:
            rows = await conversations.held(tx, asked.email, kind, offset, EXPORT_PAGE)
        if len(rows) == EXPORT_PAGE:
            after: tuple[str, int] | None = (kind, offset + EXPORT_PAGE)
        else:
            following = conversations.HELD[conversations.HELD.index(kind) + 1 :]
            after = (following[0], 0) if following else None
        records: dict[str, list[dict[str, Any]]] = {kind: [_record(row) for row in rows]}
        await reply(self._broker, message, messages.export_answer(records, after))
        return Ack()

    async def _addresses(self, message: Message, offset: int) -> Outcome:
        async with self._engine.connect() as tx:
            found = await conversations.addresses(tx, offset, EXPORT_PAGE)
        after = ("addresses", offset + EXPORT_PAGE) if len(found) == EXPORT_PAGE else None
        records: dict[str, list[dict[str, Any]]] = {
            "addresses": [{"address": each} for each in found]
        }
        await reply(self._broker, message, messages.export_answer(records, after))
        return Ack()


def _record(row: Row) -> dict[str, Any]:
    return {
        name: value
        if value is None or isinstance(value, (str, int, float, dict, list))
        else value.isoformat()
        if isinstance(value, datetime)
        else str(value)
        for name, value in row.items()
    }
