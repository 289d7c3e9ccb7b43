"""Exports and erases a data subject's rows in the ledger, as consent requests.

Steps 5 and 6 of protocol C (docs/protocols.md) are here and in intake.py.
"""

import asyncio
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.messaging.broker import Broker, Message, PublishError
from libs.common.messaging.consumer import Ack, Disposition, Retry, Unreadable, read
from libs.common.messaging.dead_letters import DeadLetter, DeadLetters
from libs.common.messaging.queue_depths import KEPT_SECONDS
from libs.common.messaging.rpc import reply
from libs.common.messaging.topology import retry_name
from libs.common.process.logs import log
from libs.domain.events import occurred
from libs.domain.mentions import emails, phones, strings
from services.alerts import messages, topology
from services.alerts.delivery import ending
from services.alerts.delivery.events import person
from services.alerts.messages import ExportRequest, SubjectErased, columns
from services.alerts.rules.delivery import Reason, State
from services.alerts.rules.subjects import Hash, Kind, Subjects, Wanted
from services.alerts.store import subscriptions
from services.alerts.store.cases import privacy as case_privacy
from services.alerts.store.ledger import privacy, transitions
from services.alerts.store.ledger.privacy import BEGINNING, Key

DEAD_LETTERS_PAGE = 8
"""Per reply: a batch may be 1 MiB, and RabbitMQ takes no message above 16 MiB."""
_EVENTS = -(10**12)
"""`after` of the first page of events; those of the next pages are below it."""
_EVENTS_PAGE = 100
_CASES = -1
"""`after` of the first page of cases; those of the next pages are below it."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Privacy:
    def __init__(
        self, engine: AsyncEngine, broker: Broker, hashing: Subjects, *, kept: float
    ) -> None:
        """:param kept: seconds for which a tombstone is kept"""
        self._engine = engine
        self._broker = broker
        self._subjects = hashing
        self._kept = kept
        self._dead_letters = DeadLetters(engine, broker, topology.INTAKE_QUEUE)

    async def erasures(self, message: Message) -> Disposition:
        """Handle alerts.erasures. Idempotent: consent accepts a second receipt."""
        order = read(message, SubjectErased, messages.SUBJECT_ERASED)
        # An alert accepted before the order may still be on its way into the ledger. A depth that
        # was cached before the order would say nothing about it.
        await asyncio.sleep(KEPT_SECONDS)
        before = [topology.INTAKE_QUEUE, retry_name(topology.INTAKE_QUEUE)]
        depths = await self._broker.depths(before)
        if any(depth != 0 for depth in depths.values()):  # unknown is not empty
            return Retry("intake")
        wanted = self._wanted(order)
        async with self._engine.begin() as tx:
            await subscriptions.run(tx, "order_events")  # one is either here, or sees the mark
            await privacy.run(tx, "mark", hashes=sorted(wanted.own))
            named = await subscriptions.run(tx, "naming", hashes=wanted.hashes)
            theirs = [str(row.id) for row in named if wanted.holds(row.named)]
            await subscriptions.run(tx, "erase", ids=theirs)
        in_flight = await self._erase_cases(wanted)  # which lock before their steps
        after: Key | None = BEGINNING
        while after is not None:
            rows, after = await self._look(wanted, after)
            in_flight += sum([not await self._erase(wanted, row) for row in rows])
        log.info("subject.erased", in_flight=in_flight)
        if in_flight:
            return Retry("in flight")
        try:
            await self._dead_letters.sift(partial(self._take_out, wanted))
        except PublishError:
            return Retry("dead letters")
        async with self._engine.begin() as tx:
            await outbox.add(
                tx,
                topology.CONSENT_COMMANDS,
                messages.ERASURE_RECEIPT,
                messages.erasure_receipt(order.erasure_id, datetime.now(UTC)),
            )
            told = occurred(
                "person.erased",
                order.erasure_id,
                erasure_id=order.erasure_id,
                persons=person(self._subjects, order.email),
                conversations=list(map(str, order.conversations)),
            )
            await outbox.add_all(tx, [told])
        return Ack()

    async def _erase_cases(self, wanted: Wanted) -> int:
        """:returns: how many still have a message in Slack that is to be overwritten"""
        found: list[Any] = []
        async with self._engine.connect() as tx:
            while rows := await case_privacy.page(tx, wanted.hashes, len(found)):
                found += rows
        waiting = 0
        for row in found:
            if wanted.holds(row.named):
                async with self._engine.begin() as tx:
                    if self._is_theirs(wanted, row):
                        waiting += not await case_privacy.erase(tx, row.alert_id)
                    else:
                        without = partial(self._subjects.strike, gone=wanted.own)
                        done = await case_privacy.strike(tx, row.alert_id, wanted.own, without)
                        waiting += not done
        return waiting

    async def _erase(self, wanted: Wanted, row: Any) -> bool:
        """Empty a row, whose messages are then acknowledged unsent; or strike out the mention.

        :returns: False when the row is being sent at this moment: try again after that
        """
        key = {"alert_id": row.alert_id, "target": row.target}
        async with self._engine.begin() as tx:
            before = (await privacy.run(tx, "lock", **key)).scalar()
            if self._is_theirs(wanted, row):
                await privacy.run(tx, "erase", **key)
                if before == State.PENDING:
                    await ending.notify(tx, transitions.ended(row), State.DISCARDED, Reason.ERASED)
            else:
                left = self._subjects.strike(row.payload, wanted.own)
                await privacy.run(tx, "strike", **key, payload=left, hashes=list(wanted.own))
        return before not in {State.CLAIMED, State.SENDING}

    async def requests(self, message: Message) -> Disposition:
        """Handle alerts.requests: reply with a page of a data subject's records."""
        asked = read(message, ExportRequest, messages.EXPORT_REQUEST)
        after = asked.after or BEGINNING
        end: Key | tuple[int] | None
        everybody = asked.email is None and asked.phone is None
        wanted = None if everybody else self._wanted(asked)
        if len(after) == 2:
            records, end = await self._deliveries(wanted, after)
            end = end or (_CASES,)
        elif after[0] <= _EVENTS:  # after the one with this number
            records, end = await self._events_of(wanted, _EVENTS - after[0])
            end = end or (None if everybody else (0,))
        elif after[0] < 0:  # cases, after those already sent
            records, end = await self._cases_of(wanted, _CASES - after[0])
            end = end or (_EVENTS,)
        else:
            try:
                records, end = await self._dead_letters_of(self._wanted(asked), after[0])
            except PublishError:
                return Retry("dead letters")  # without a reply, the export says it is incomplete
        await reply(self._broker, message, messages.export_reply(records, end))
        return Ack()

    async def _dead_letters_of(
        self, wanted: Wanted, done: int
    ) -> tuple[messages.Records, tuple[int] | None]:
        found: list[dict[str, Any]] = []

        async def look(_: AsyncConnection, dead_letter: DeadLetter) -> bool:
            record = dead_letter.record()
            for each in _messages(dead_letter):
                named = self._subjects.named_by(each.body)
                if wanted.holds(named) and not self._subjects.only_mentions(wanted, each.body):
                    if each.type != dead_letter.type:
                        record = record | {"body": json.dumps(each.body, ensure_ascii=False)}
                    found.append(record)
            return False

        await self._dead_letters.sift(look)
        end = done + DEAD_LETTERS_PAGE
        return {"dead_letters": found[done:end]}, (end,) if len(found) > end else None

    async def _take_out(
        self, whose: Wanted | None, tx: AsyncConnection, dead_letter: DeadLetter
    ) -> bool:
        """Delete a dead letter that is theirs; the other alerts of a batch, and those that only
        mention them, are accepted again.

        :param whose: None: of everyone who was erased after it was sent
        """
        each = _messages(dead_letter)
        left = []
        for one in each:
            named = self._subjects.named_by(one.body)
            wanted = whose or await _erased_since(tx, named, dead_letter.sent_at)
            if not wanted.holds(named):
                left.append(one)
            elif self._subjects.only_mentions(wanted, one.body):
                left.append(replace(one, body=self._subjects.strike(one.body, wanted.own)))
        if left == each:
            return False
        for one in left:
            await self._broker.publish(topology.ALERTS.name, topology.INTAKE_QUEUE, one)
        return True

    def _is_theirs(self, wanted: Wanted, row: Any) -> bool:
        return wanted.holds(row.named) and not self._subjects.only_mentions(
            wanted, row.payload, row.once_address, row.dedup_key
        )

    async def _look(self, wanted: Wanted, after: Key) -> tuple[list[Any], Key | None]:
        """Return the rows that name them of the next page, and where the one behind it begins."""
        rows = await privacy.run.alone(self._engine, "look", hashes=wanted.hashes, after=after)
        end = (rows[-1].alert_id, rows[-1].target) if len(rows) == privacy.PAGE else None
        return [row for row in rows if wanted.holds(row.named)], end

    async def _deliveries(
        self, wanted: Wanted | None, after: Key
    ) -> tuple[messages.Records, Key | None]:
        """Return a page of the ledger; without `wanted`, of the addresses in it: after a restore,
        consent looks for erased ones.
        """
        if wanted is None:
            part = await privacy.run.alone(self._engine, "words", after=after)
            end = (part[-1].alert_id, part[-1].target) if len(part) == privacy.BATCH else None
            named = [row for row in part if row.names_somebody]
            more = [text or "" for row in named for text in (row.dedup_key, row.once_address)]
            return _addresses_in(chain(more, *(strings(row.payload) for row in named))), end
        rows, end = await self._look(wanted, after)
        mine = [row for row in rows if self._is_theirs(wanted, row)]
        ids, targets = [row.alert_id for row in mine], [row.target for row in mine]
        tried = await privacy.run.alone(self._engine, "attempts", ids=ids, targets=targets)
        attempts = [columns(each, *each._fields) for each in tried]
        return {"deliveries": [_record(row) for row in mine], "attempts": attempts}, end

    async def _cases_of(
        self, wanted: Wanted | None, done: int
    ) -> tuple[messages.Records, tuple[int] | None]:
        """Return a page of cases with their answers; without `wanted`, of the addresses in them."""
        async with self._engine.connect() as tx:
            rows = await case_privacy.page(tx, wanted.hashes if wanted else None, done)
            mine = [row for row in rows if wanted is None or self._is_theirs(wanted, row)]
            answers = await case_privacy.answers(tx, [row.alert_id for row in mine])
        end = None if len(rows) < case_privacy.PAGE else (_CASES - done - len(rows),)
        if wanted is None:
            texts = (text for row in rows for text in (*strings(row.payload), row.dedup_key or ""))
            return _addresses_in(texts), end
        return {"cases": [_case_record(row, answers) for row in mine]}, end

    async def _events_of(
        self, wanted: Wanted | None, number: int
    ) -> tuple[messages.Records, tuple[int] | None]:
        """Return a page of the kept events; without `wanted`, of the addresses in them."""
        given = {
            "hashes": wanted.hashes if wanted else None,
            "after": number,
            "limit": _EVENTS_PAGE,
        }
        rows = await subscriptions.run.alone(self._engine, "named_events", **given)
        end = (_EVENTS - rows[-1].number,) if len(rows) == _EVENTS_PAGE else None
        if wanted is None:
            return _addresses_in(text for row in rows for text in strings(row.data)), end
        mine = [row for row in rows if wanted.holds(row.named)]
        return {"events": [columns(row, "type", "data", "at") for row in mine]}, end

    def _wanted(self, asked: SubjectErased | ExportRequest) -> Wanted:
        hashes = self._subjects.hashes
        return Wanted(
            own=[
                *hashes(Kind.EMAIL, [asked.email] if asked.email else []),
                *hashes(Kind.PHONE, [asked.phone] if asked.phone else []),
                *hashes(Kind.CONVERSATION, map(str, asked.conversations)),
            ],
            numbers=hashes(Kind.PHONE, asked.phones),
        )

    async def upkeep(self) -> None:
        """Erase late dead letters, and delete old tombstones."""
        # Dead letters that intake had, or an operator was moving, while their subject was erased.
        with suppress(PublishError):
            await self._dead_letters.sift(partial(self._take_out, None))
        await privacy.run.alone(self._engine, "forget", seconds=self._kept)


def _addresses_in(texts: Iterable[str]) -> messages.Records:
    found = {address for text in texts for address in emails(text) | phones(text)}
    return {"addresses": [{"address": each} for each in sorted(found)]}


def _messages(dead_letter: DeadLetter) -> list[Message]:
    """Split a dead letter as intake would; an unreadable one is one message with all it names."""
    body = dead_letter.payload()
    if not isinstance(body, dict):
        named = [{"conversation_id": each} for each in _UUID.findall(dead_letter.text)]
        body = {"text": dead_letter.text, "named": named}
    whole = Message(dead_letter.message_id or "", dead_letter.type or "", body)
    if whole.type == messages.ALERTS_ACCEPTED:
        with suppress(Unreadable):
            return messages.each_accepted(whole)
    return [whole]


async def _erased_since(tx: AsyncConnection, named: list[Hash], sent_at: datetime | None) -> Wanted:
    erased = await privacy.erased_at(tx, named)
    return Wanted([each for each, at in erased.items() if sent_at is None or at > sent_at])


def _record(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.alert_id),
        "permit_for": row.once_address,
        "payload": messages.shown_payload(row),
        **columns(row, "target", "event_type", "state", "reason", "error"),
        **columns(row, "accepted_at", "finished_at"),
    }


def _case_record(row: Any, answers: Iterable[Any]) -> dict[str, Any]:
    return {
        "id": str(row.alert_id),
        "owner": row.owner_name,
        **columns(row, "event_type", "state", "reason", "outcome", "payload"),
        **columns(row, "opened_at", "ended_at"),
        "answers": [
            {"answer": each.verb, "by": each.name, **columns(each, "at", "reason", "until")}
            for each in answers
            if each.case_id == row.alert_id
        ],
    }
