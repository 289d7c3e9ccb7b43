"""One function per queue."""

import asyncio
from collections.abc import Mapping, Sequence
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
from libs.common.plain import plain
from libs.common.process.logs import log
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
from services.followups.store import acts, conversations, sql, steps
from services.followups.store.conversations import Subject
from services.followups.store.sql import run
from services.followups.topology import (
    CONSENT_COMMANDS,
    CONSENT_QUEUE,
    LEADS_QUEUE,
    OUTCOMES_QUEUE,
)

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
                heard = {"email": event.email, "at": event.at, "may_mail": may_mail}
                await run(tx, "hear_consent", **heard, patience=patience)
                if withdrawn:
                    stopped = await steps.stop(tx, event.action, email=event.email)
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
                row = await sql.row(tx, "step", id=ended.reference) if is_new else None
                if row is not None and ended.outcome == "sent":
                    await outbox.add_all(tx, [steps.event("followup.sent", row)])
                if row is not None and (ended.outcome, ended.reason) == ("failed", UNDELIVERABLE):
                    here = row["conversation_id"]
                    stopped = await steps.stop(tx, UNDELIVERABLE, here, since=row)
                    metrics.ENDED.labels("cancelled").inc(len(stopped))
        if is_new:
            metrics.ENDED.labels(ended.outcome).inc()
        log.info("followup.settled", outcome=ended.outcome, new=is_new)
        return Ack()

    async def _taken(self, message: Message) -> Disposition:
        """Note that a person took a lead, and end its follow-ups, as an act of staff does.

        A state that staff have set since stays: this message may be late.
        """
        answered, stopped = read(message, CaseOwner), []
        async with self._engine.begin() as tx:
            # Staff may have enrolled the person again since the first copy of this message.
            if await inbox.first_time(tx, OUTCOMES_QUEUE, message.id):
                lead, here, email = await sql.row(tx, "lead", id=answered.lead_id), None, None
                if lead is not None and lead["next"] is None:  # else its follow-ups go on
                    here, email = lead["conversation_id"], lead["known"].get("email")
                    ending = {"conversation": here, "email": email, "reason": "staff"}
                    await run(tx, "end_followups", **ending)
                await acts.follow(tx, answered.lead_id, "taken", answered.by, answered.at)
                if here is not None:
                    stopped = await steps.stop(tx, TAKEN, here, email=email)
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
        """followups.requests: export a data subject's records, one page per request.

        With neither address nor number: the addresses and numbers of all.
        """
        asked = read(message, ExportRequest, messages.EXPORT_REQUEST)
        subject, trace = Subject(asked.email, asked.phone), None
        kinds = (*conversations.HELD, DEAD_LETTERS) if subject.contacts else ("addresses",)
        kind, offset = asked.after or (kinds[0], 0)
        rows: Sequence[Mapping[Any, Any]]
        if kind == DEAD_LETTERS:
            try:
                found = await self._dead_letters(subject)
            except BrokerUnavailable:
                return Retry("dead letters")  # without a reply, the export says it is incomplete
            rows = found[offset : offset + DEAD_LETTERS_PAGE]
            is_whole = len(found) == offset + len(rows)
        else:
            async with self._engine.begin() as tx:
                if kind == "addresses":
                    rows = await sql.rows(tx, "addresses", offset=offset, limit=EXPORT_PAGE)
                else:
                    traced = await conversations.trace(tx, subject)
                    trace = messages.trace(traced.conversations, traced.phones)
                    rows = await conversations.held(tx, subject, kind, offset, EXPORT_PAGE)
            is_whole = len(rows) < EXPORT_PAGE
        following = kinds[kinds.index(kind) + 1 :]
        after = (following[0], 0) if following else None
        if not is_whole:
            after = (kind, offset + len(rows))
        records = {kind: [{name: plain(value) for name, value in row.items()} for row in rows]}
        await reply(self._broker, message, messages.export_answer(records, after, trace))
        return Ack()

    async def _dead_letters(self, subject: Subject) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        async def look(tx: AsyncConnection, letter: DeadLetter) -> bool:
            if await _names(subject, tx, letter):
                found.append(letter.record())
            return False

        await self._dead_leads.sift(look)
        return found


async def _names(subject: Subject, _: AsyncConnection, letter: DeadLetter) -> bool:
    texts = list(strings(letter.payload()))
    if subject.email is not None:
        return any(subject.email in emails(text) for text in texts)
    return any(subject.phone in phones(text) for text in texts)
