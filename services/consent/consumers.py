"""One function per queue."""

from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging import inbox
from libs.common.messaging.broker import Broker, BrokerUnavailable, Message
from libs.common.messaging.consumer import Ack, Dead, Disposition, Retry, read
from libs.common.messaging.rpc import reply
from libs.common.process.logs import log
from libs.domain.email_address import normalise
from libs.domain.forms import is_possible
from services.consent import changes, erasure_orders, messages, metrics, permits, standing
from services.consent.changes import ErasedSince, WithdrawalRequest
from services.consent.dead_letters import SubjectDeadLetters
from services.consent.mails import LinkMails
from services.consent.messages import (
    AddressReport,
    Declaration,
    ErasedRequest,
    ErasureReceipt,
    ErasureTrace,
    GrantRecord,
    PermitRequest,
    PermitReturn,
    WithdrawalRecord,
)
from services.consent.optin import OptIns
from services.consent.recovery.journal import Journal
from services.consent.rules import (
    HOLDERS,
    Action,
    Agreement,
    PermitAnswer,
    PermitDecision,
    preferred_language,
)
from services.consent.settings import ConsentSettings
from services.consent.store import data_subjects
from services.consent.store.data_subjects import Lock, parse_subject
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.topology import COMMANDS_QUEUE
from services.consent.trail.chain import Entry, Origin


@dataclass
class Consumers:
    engine: AsyncEngine
    broker: Broker
    vault: Vault
    link_mails: LinkMails
    settings: ConsentSettings
    opt_ins: OptIns
    journal: Journal
    dead_letters: SubjectDeadLetters

    async def permits(self, message: Message) -> Disposition:
        """consent.requests, consent.permits: idempotent, so there is no inbox."""
        match message.type:
            case messages.PERMIT_REQUEST:
                return await self._request(message)
            case messages.PERMIT_RETURN:
                returned = read(message, PermitReturn)
                await run.alone(self.engine, "return_permit", **returned.model_dump())
                return Ack()
            case messages.ERASED_REQUEST:
                return await self._erased(message)
            case messages.STANDING_REQUEST:
                return await self._standing(message)
        return Dead("unknown type")

    async def _erased(self, message: Message) -> Disposition:
        """Say which of these were ever erased; restored, nothing: later erasures may be missing."""
        asked: dict[bytes, str] = {}
        for contact in read(message, ErasedRequest).contacts:
            with suppress(ValueError):  # neither; no erasure is under it
                asked[self.vault.suppression_hash(parse_subject(contact).identity)] = contact
        async with self.engine.connect() as tx:
            if not await self.journal.is_current(tx):
                return Ack()
            found = await run(tx, "erased_since", hashes=[*asked], at=None)
        answer = messages.erased_answer(asked[each] for each in found.scalars())
        await reply(self.broker, message, answer)
        return Ack()

    async def _standing(self, message: Message) -> Disposition:
        """Say how consents stand; restored, nothing: later withdrawals may be missing."""
        purposes = {}
        async with self.engine.connect() as tx:
            if not await self.journal.is_current(tx):
                return Ack()
            for each in read(message, ErasedRequest).contacts:
                asked = self.opt_ins.pairs, self.opt_ins.lifetime
                purposes[each] = await standing.purposes(tx, self.vault, each, *asked)
        await reply(self.broker, message, {"purposes": purposes})
        return Ack()

    async def _request(self, message: Message) -> Disposition:
        request = read(message, PermitRequest)
        lifetime = self.settings.permit_seconds
        async with self.engine.begin() as tx:
            if await self.journal.is_current(tx):
                answer = await permits.request(tx, self.vault, request, lifetime)
            else:  # restored: a later withdrawal may be missing
                answer = PermitAnswer(PermitDecision.CLOSED, lifetime)
        # Only after the commit: an answer must not promise what is not recorded.
        await reply(self.broker, message, messages.permit_answer(answer))
        metrics.PERMITS.labels(answer.decision).inc()
        return Ack()

    async def commands(self, message: Message) -> Disposition:
        """consent.commands: an agreement or a refusal in the chat, a service's erasure."""
        match message.type:
            case messages.GRANT_RECORD:
                return await self._grant(message)
            case messages.WITHDRAWAL_RECORD:
                return await self._withdraw(message)
            case messages.ADDRESS_REPORT:
                return await self._address(message)
            case messages.ERASURE_TRACE:
                return await self._add_trace(message)
            case messages.ERASURE_RECEIPT:
                return await self._receive(message)
        return Dead("unknown type")

    async def _grant(self, message: Message) -> Disposition:
        given = read(message, GrantRecord)
        if given.purpose not in self.opt_ins.pairs:
            return Dead("unknown purpose")
        entry = replace(_entry(Action.OPT_IN, given), evidence=given.evidence)
        published = self.opt_ins.published(given.wording)
        is_other = published is not None and not published.allows(given.purpose)
        # The gateway may know a newer forms.toml than this process does.
        version = published.version if published else given.wording_version
        if is_other or (given.place == "import" and not is_possible(given.at)):
            version = None
        agreement = Agreement(
            published.text if published else given.wording,
            given.language,
            given.source,
            given.at,
            given.place,
            version,
            given.proven,
        )
        try:
            async with self.engine.begin() as tx:
                if await inbox.first_time(tx, COMMANDS_QUEUE, message.id):
                    language = preferred_language(given.language or "")
                    await self.opt_ins.record(tx, entry, agreement, language, given.purpose)
        except ValueError:
            return Dead("malformed address")
        except ErasedSince:  # rolled back, as a redelivery would be
            log.info("grant.erased_since")
        return Ack()

    async def _withdraw(self, message: Message) -> Disposition:
        refusal = read(message, WithdrawalRecord)
        language = preferred_language(refusal.language or "")
        entry = replace(
            _entry(Action.REVOKE if refusal.erase else Action.UNSUBSCRIBE, refusal),
            evidence={"source": refusal.source, "said_at": refusal.at.isoformat()},
        )
        request = WithdrawalRequest(
            entry,
            erase=refusal.erase,
            make_mail=self.link_mails.erasure(language) if refusal.erase else None,
        )
        days = self.settings.suppression_retention_days
        try:
            async with self.engine.begin() as tx:
                if await inbox.first_time(tx, COMMANDS_QUEUE, message.id):
                    await changes.withdraw(tx, self.vault, request, suppression_days=days)
        except ValueError:
            return Dead("malformed address")
        await self.journal.record()
        return Ack()

    async def _address(self, message: Message) -> Disposition:
        """Note whether mail to an address comes back. Idempotent; consents stay as they are."""
        told = read(message, AddressReport)
        try:
            email = normalise(told.email)
        except ValueError:
            return Dead("malformed address")
        async with self.engine.begin() as tx:
            subject = await data_subjects.get_or_create(tx, self.vault, email, Lock.CHANGE)
            report = {"at": told.at, "takes_mail": told.takes_mail}
            await run(tx, "report_address", subject=subject.id, **report)
        return Ack()

    async def _add_trace(self, message: Message) -> Disposition:
        found = read(message, ErasureTrace)
        async with self.engine.begin() as tx:
            await erasure_orders.repeat(tx, self.vault, found.erasure_id, found)
        return Ack()

    async def _receive(self, message: Message) -> Disposition:
        receipt = read(message, ErasureReceipt)
        if receipt.service not in HOLDERS:
            return Dead("unknown service")
        if receipt.service == HOLDERS[-1]:
            try:
                await self.dead_letters.remove_erased()
            except BrokerUnavailable:
                return Retry("dead letters")
        async with self.engine.begin() as tx:
            done = await erasure_orders.receive(tx, receipt.erasure_id, receipt.service)
            if not done:  # the next service is due
                await erasure_orders.repeat(tx, self.vault, receipt.erasure_id)
        log.info("erasure.receipt", service=receipt.service, done=done)
        return Ack()


def _entry(action: Action, given: Declaration) -> Entry:
    origin = Origin(given.ip_address, given.user_agent, given.ip_address_from)
    return Entry(action, given.email, origin, session_id=given.session_id)
