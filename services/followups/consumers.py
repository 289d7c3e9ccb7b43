"""One function per queue."""

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import inbox, logs
from libs.common.addresses import MalformedAddress, normalise
from libs.common.broker import Message
from libs.common.consume import Ack, Dead, Delivery, Outcome
from services.followups import messages, metrics, store
from services.followups.messages import ConsentEvent, DeliverySettled
from services.followups.topology import CONSENT_QUEUE, OUTCOMES_QUEUE

log = logs.get_logger(__name__)


class Consumers:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def consent_events(self, message: Message, _: Delivery) -> Outcome:
        """followups.consent-events: who withdrew hears no more, who was erased was never here.

        The permit is what stops a mail after a withdrawal; this spares the asking.
        """
        try:
            event = ConsentEvent.model_validate(message.body)
            email = normalise(event.email)
        except (ValidationError, MalformedAddress):
            return Dead("malformed")
        match message.type:
            case messages.CONSENT_GRANTED:  # the permit will say so when a step is due
                return Ack()
            case messages.CONSENT_WITHDRAWN if messages.MARKETING not in event.purposes:
                return Ack()
            case messages.CONSENT_WITHDRAWN:
                return await self._withdrawn(message.id, email, event.action)
            case messages.PERSON_ERASED:
                async with self._engine.begin() as tx:
                    if await inbox.first_time(tx, CONSENT_QUEUE, message.id):
                        conversations = await store.erase(tx, email)
                        log.info("person.erased", conversations=conversations)
                return Ack()
        return Dead("unknown type")

    async def _withdrawn(self, message_id: str, email: str, action: str) -> Outcome:
        stopped = []
        async with self._engine.begin() as tx:
            if await inbox.first_time(tx, CONSENT_QUEUE, message_id):
                stopped = await store.stop(tx, store.of_address(email), action)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        return Ack()

    async def outcomes(self, message: Message, _: Delivery) -> Outcome:
        """followups.outcomes: how a hand-over ended. A twin or a latecomer changes nothing."""
        if message.type != messages.DELIVERY_SETTLED:
            return Dead("unknown type")
        try:
            told = DeliverySettled.model_validate(message.body)
        except ValidationError:
            return Dead("malformed")
        settled = False
        async with self._engine.begin() as tx:
            if await inbox.first_time(tx, OUTCOMES_QUEUE, message.id):
                settled = await store.settle(tx, told.reference, told.outcome, told.reason, told.at)
        if settled:
            metrics.ENDED.labels(told.outcome).inc()
        log.info("followup.settled", outcome=told.outcome, new=settled)
        return Ack()
