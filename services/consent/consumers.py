"""One function per queue."""

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import inbox, logs
from libs.common.addresses import MalformedAddress
from libs.common.broker import Broker, Message
from libs.common.consume import Ack, Dead, Delivery, Outcome, malformed
from libs.common.requests import reply
from services.consent import messages, metrics, permits
from services.consent.changes import ErasedSince, Wording
from services.consent.consent import HOLDERS, Action, preferred_language
from services.consent.messages import ErasureReceipt, GrantRecord, PermitRequest, PermitReturn
from services.consent.optin import OptIns
from services.consent.settings import ConsentSettings
from services.consent.store import consents, erasing
from services.consent.trail import Entry, Origin
from services.consent.vault import Vault

log = logs.get_logger(__name__)


class Consumers:
    def __init__(
        self,
        engine: AsyncEngine,
        broker: Broker,
        vault: Vault,
        settings: ConsentSettings,
        opt_ins: OptIns,
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._vault = vault
        self._opt_ins = opt_ins
        self._lifetime = settings.permit_seconds

    async def permits(self, message: Message, _: Delivery) -> Outcome:
        """consent.requests, consent.permits: twice has the effect of once, so there is no inbox."""
        try:
            match message.type:
                case messages.PERMIT_REQUEST:
                    return await self._request(message)
                case messages.PERMIT_RETURN:
                    returned = PermitReturn.model_validate(message.body)
                    async with self._engine.begin() as tx:
                        await consents.return_permit(tx, returned.message, returned.attempt)
                    return Ack()
        except ValidationError as error:
            return malformed(error)
        return Dead("unknown type")

    async def _request(self, message: Message) -> Outcome:
        asked = PermitRequest.model_validate(message.body)
        async with self._engine.begin() as tx:
            answer = await permits.request(
                tx,
                self._vault,
                message=asked.message,
                attempt=asked.attempt,
                address=asked.address,
                purpose=asked.purpose,
                lifetime=self._lifetime,
            )
        # Only after the commit: an answer that promises what is not recorded promises nothing.
        await reply(self._broker, message, messages.permit_answer(answer.verdict, answer.seconds))
        metrics.PERMITS.labels(answer.verdict).inc()
        return Ack()

    async def commands(self, message: Message, _: Delivery) -> Outcome:
        """consent.commands: an agreement given in the chat, a service that has erased a person."""
        try:
            match message.type:
                case messages.GRANT_RECORD:
                    return await self._granted(message)
                case messages.ERASURE_RECEIPT:
                    return await self._erased(message)
        except ValidationError as error:
            return malformed(error)
        return Dead("unknown type")

    async def _granted(self, message: Message) -> Outcome:
        given = GrantRecord.model_validate(message.body)
        entry = Entry(
            action=Action.OPT_IN,
            email=given.email,
            origin=Origin(given.ip_address, given.user_agent, given.ip_address_from),
            session_id=given.session_id,
        )
        wording = Wording(given.wording, given.language, given.source, given.at)
        try:
            async with self._engine.begin() as tx:
                if await inbox.first_time(tx, "consent.commands", message.id):
                    language = preferred_language(given.language or "")
                    await self._opt_ins.record(
                        tx, entry, wording, language, given.purpose, may_mail=given.may_mail
                    )
        except MalformedAddress:
            return Dead("malformed address")
        except ErasedSince:  # rolled back, and so it is if it comes again
            log.info("grant.erased_since")
        return Ack()

    async def _erased(self, message: Message) -> Outcome:
        receipt = ErasureReceipt.model_validate(message.body)
        if receipt.service not in HOLDERS:
            return Dead("nobody waits for this service")
        async with self._engine.begin() as tx:
            done = await erasing.receive(tx, receipt.erasure_id, receipt.service, HOLDERS)
        log.info("erasure.receipt", service=receipt.service, done=done)
        return Ack()
