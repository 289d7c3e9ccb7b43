"""One function per queue."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import inbox, outbox
from libs.common.messaging.broker import Broker, BrokerUnavailable, Message
from libs.common.messaging.broker import message as new_message
from libs.common.messaging.consumer import Ack, Dead, Disposition, Retry, read
from libs.common.messaging.dead_letters import DeadLetter, DeadLetters
from libs.common.messaging.queue_depths import KEPT_SECONDS
from libs.common.messaging.rpc import reply
from libs.common.messaging.topology import retry_name
from libs.common.process import logs
from libs.domain.mentions import emails, phones, strings
from services.followups import chat, messages, metrics
from services.followups.leads.submissions import Submissions
from services.followups.messages import (
    CaseOwner,
    ConsentEvent,
    DeliverySettled,
    ExportRequest,
    LeadSubmit,
    SubjectErased,
)
from services.followups.store import acts, conversations, leads, steps
from services.followups.store.conversations import Subject
from services.followups.store.tables import Row
from services.followups.topology import (
    CONSENT_COMMANDS,
    CONSENT_QUEUE,
    LEADS_QUEUE,
    OUTCOMES_QUEUE,
)

log = logs.get_logger(__name__)

UNDELIVERABLE = "refused"
"""The mail server refuses this mailbox for good: the later steps would be refused as well."""
TAKEN = "taken"
"""Why a step was stopped: a person took the lead."""
DEAD_LETTERS = "dead_letters"
DEAD_LETTERS_PAGE = 50
EXPORT_PAGE = 200  # rows: even the longest chat messages fit into one RabbitMQ message


class Consumers:
    def __init__(self, engine: AsyncEngine, broker: Broker, submissions: Submissions) -> None:
        self._engine = engine
        self._broker = broker
        self._submissions = submissions
        self._update_after = submissions.config.lead.update_after
        self._dead_leads = DeadLetters(engine, broker, LEADS_QUEUE)

    async def leads(self, message: Message) -> Disposition:
        """followups.leads: forms that were sent."""
        await self._submissions.take(read(message, LeadSubmit, messages.LEAD_SUBMIT))
        return Ack()

    async def consent_events(self, message: Message) -> Disposition:
        """followups.consent-events: the state of a consent, and orders to delete data.

        The permit is what stops a mail after a withdrawal; cancelling here saves the request.
        """
        if message.type == messages.SUBJECT_ERASED:
            return await self._erased(message)
        event = read(message, ConsentEvent)
        match message.type:
            case messages.CONSENT_GRANTED | messages.CONSENT_WITHDRAWN:
                if messages.MARKETING in event.purposes:
                    await self._changed(message, event)
                return Ack()
        return Dead("unknown type")

    async def _erased(self, message: Message) -> Disposition:
        """Protocol C, steps 2 and 3; E, step 5. Idempotent."""
        order = read(message, SubjectErased)
        # Forms that were accepted before the order are stored first, to be erased with the rest. A
        # depth that was cached before the order would say nothing about them. A form in a
        # running handler meets the mark, below.
        await asyncio.sleep(KEPT_SECONDS)
        depths = await self._broker.depths([LEADS_QUEUE, retry_name(LEADS_QUEUE)])
        if any(depth != 0 for depth in depths.values()):  # unknown is not empty
            return Retry("leads")
        try:
            await self._dead_leads.sift(partial(_names, Subject(order.email, order.phone)))
        except BrokerUnavailable:
            return Retry("dead letters")
        return await self.erase(order)

    async def erase(self, order: SubjectErased) -> Disposition:
        """Delete what the tables contain; no form is on its way."""
        subject, marks = Subject(order.email, order.phone), self._submissions.erased
        async with self._engine.begin() as tx:
            await marks.lock(tx, subject.contacts)
            found = await conversations.trace(tx, subject)
            if not (found.conversations <= order.conversations and found.phones <= order.phones):
                trace = messages.trace(found.conversations, found.phones)
                answer = new_message(
                    messages.ERASURE_TRACE, messages.erasure_trace(order.erasure_id, trace)
                )
            else:
                await marks.mark(tx, subject.contacts)
                erased, left = await conversations.erase(
                    tx, subject, order.conversations, chat.named_in
                )
                log.info("subject.erased", conversations=erased, outbox=left)
                if left:
                    return Retry("outbox")
                receipt = messages.erasure_receipt(order.erasure_id, datetime.now(UTC))
                answer = new_message(messages.ERASURE_RECEIPT, receipt)
            await outbox.add(tx, CONSENT_COMMANDS.name, answer.type, answer)
        return Ack()

    async def _changed(self, message: Message, event: ConsentEvent) -> None:
        stopped, withdrawn = [], message.type == messages.CONSENT_WITHDRAWN
        async with self._engine.begin() as tx:
            if await inbox.first_time(tx, CONSENT_QUEUE, message.id):
                may_mail, patience = "refused" if withdrawn else "given", self._update_after
                await leads.hear_consent(tx, event.email, may_mail, event.at, patience)
                if withdrawn:
                    await steps.lock_address(tx, event.email)
                    stopped = await steps.stop(tx, steps.of_address(event.email), event.action)
        metrics.ENDED.labels("cancelled").inc(len(stopped))

    async def outcomes(self, message: Message) -> Disposition:
        """followups.outcomes: how a step's mail ended, or that a person took or released a lead.

        Duplicates and late ones are no-ops.
        """
        if message.type == messages.CASE_ANSWERED:
            return await self._taken(message)
        if message.type == messages.CASE_RELEASED:
            return await self._released(message)
        ended = read(message, DeliverySettled, messages.DELIVERY_SETTLED)
        is_new = False
        async with self._engine.begin() as tx:
            if await inbox.first_time(tx, OUTCOMES_QUEUE, message.id):
                if ended.outcome == "too_late":
                    is_new = await steps.reschedule(
                        tx, ended.reference, ended.alert_id, ended.not_before
                    )
                else:
                    is_new = await steps.record_outcome(
                        tx, ended.reference, ended.alert_id, ended.outcome, ended.reason, ended.at
                    )
                if is_new and (ended.outcome, ended.reason) == ("failed", UNDELIVERABLE):
                    row = await steps.step(tx, ended.reference)
                    stopped = (
                        await steps.stop(tx, steps.from_step(row), UNDELIVERABLE) if row else []
                    )
                    metrics.ENDED.labels("cancelled").inc(len(stopped))
        if is_new:
            metrics.ENDED.labels(ended.outcome).inc()
        log.info("followup.settled", outcome=ended.outcome, new=is_new)
        return Ack()

    async def _taken(self, message: Message) -> Disposition:
        """Note that a person took a lead, and end its follow-ups, as an act of staff does.

        A state that staff have set since stays: this message may be late.
        """
        answered = read(message, CaseOwner)
        stopped = []
        async with self._engine.begin() as tx:
            # Staff may have enrolled the person again since the first copy of this message.
            if await inbox.first_time(tx, OUTCOMES_QUEUE, message.id):
                lead = await leads.one(tx, answered.lead_id)
                if lead is not None and lead["next"] is not None:  # its follow-ups go on
                    await acts.follow(tx, lead["id"], "taken", answered.by, answered.at)
                elif lead is not None:
                    here, email = lead["conversation_id"], lead["known"].get("email")
                    await conversations.end_followups(tx, here, email, "staff")
                    await acts.follow(tx, lead["id"], "taken", answered.by, answered.at)
                    if email:
                        await steps.lock_address(tx, email)
                    stopped = await steps.stop(tx, steps.of_recipient(here, email), TAKEN)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        metrics.TAKEN.inc(len(stopped))
        log.info("lead.taken", stopped=len(stopped))
        return Ack()

    async def _released(self, message: Message) -> Disposition:
        """Note that a lead no longer has an owner. Idempotent; it starts no follow-ups."""
        released = read(message, CaseOwner)
        async with self._engine.begin() as tx:
            await acts.follow(tx, released.lead_id, "new", released.by, released.at)
        log.info("lead.released")
        return Ack()

    async def requests(self, message: Message) -> Disposition:
        """followups.requests: export a data subject's records, one page per request."""
        asked = read(message, ExportRequest, messages.EXPORT_REQUEST)
        subject = Subject(asked.email, asked.phone)
        if asked.email is None and asked.phone is None:
            return await self._addresses(message, asked.after[1] if asked.after else 0)
        kind, offset = asked.after or ("conversations", 0)
        if kind == DEAD_LETTERS:
            return await self._dead_letters(message, subject, offset)
        async with self._engine.begin() as tx:
            found = await conversations.trace(tx, subject)
            rows = await conversations.held(tx, subject, kind, offset, EXPORT_PAGE)
        if len(rows) == EXPORT_PAGE:
            after: tuple[str, int] | None = (kind, offset + EXPORT_PAGE)
        else:
            following = conversations.HELD[conversations.HELD.index(kind) + 1 :]
            after = (following[0], 0) if following else (DEAD_LETTERS, 0)
        records: dict[str, list[dict[str, Any]]] = {kind: [_record(row) for row in rows]}
        trace = messages.trace(found.conversations, found.phones)
        await reply(self._broker, message, messages.export_answer(records, after, trace))
        return Ack()

    async def _dead_letters(self, message: Message, subject: Subject, done: int) -> Disposition:
        found: list[dict[str, Any]] = []

        async def look(tx: AsyncConnection, letter: DeadLetter) -> bool:
            if await _names(subject, tx, letter):
                found.append(letter.record())
            return False

        try:
            await self._dead_leads.sift(look)
        except BrokerUnavailable:
            return Retry("dead letters")  # without a reply, the export says it is incomplete
        end = done + DEAD_LETTERS_PAGE
        after = (DEAD_LETTERS, end) if len(found) > end else None
        records = {DEAD_LETTERS: found[done:end]}
        await reply(self._broker, message, messages.export_answer(records, after))
        return Ack()

    async def _addresses(self, message: Message, offset: int) -> Disposition:
        async with self._engine.connect() as tx:
            found = await conversations.addresses(tx, offset, EXPORT_PAGE)
        after = ("addresses", offset + EXPORT_PAGE) if len(found) == EXPORT_PAGE else None
        records: dict[str, list[dict[str, Any]]] = {
            "addresses": [{"address": each} for each in found]
        }
        await reply(self._broker, message, messages.export_answer(records, after))
        return Ack()


async def _names(subject: Subject, _: AsyncConnection, letter: DeadLetter) -> bool:
    texts = list(strings(letter.payload()))
    if subject.email is not None:
        return any(subject.email in emails(text) for text in texts)
    return any(subject.phone in phones(text) for text in texts)


def _record(row: Row) -> dict[str, Any]:
    return {
        name: value
        if value is None or isinstance(value, (str, int, float, dict, list))
        else value.isoformat()
        if isinstance(value, datetime)
        else str(value)
        for name, value in row.items()
    }
