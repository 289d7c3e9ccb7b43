"""One function per queue; that of alerts.<target> is delivery.Worker.handle."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import logs, outbox
from libs.common.batches import PACE_SECONDS, Batches
from libs.common.broker import Broker, BrokerUnavailable, Message, PublishError
from libs.common.consume import Ack, Dead, Delivery, Retry, malformed
from libs.common.consume import Outcome as Verdict
from libs.common.requests import reply
from libs.common.topology import retry_name
from services.alerts import messages, metrics, persons, topology
from services.alerts.alert import Reason
from services.alerts.config import UNROUTED, Config, EmailTarget
from services.alerts.messages import (
    LEAD_QUALIFIED,
    AlertAccepted,
    ExportRequest,
    PersonErased,
)
from services.alerts.store import intake
from services.alerts.store.intake import NewRow, Taken

log = logs.get_logger(__name__)

IN_HAND = 50
"""Messages of alerts.intake at a time; a third faster than 25, and 100 are no faster. Each may be
of 256 KiB: when all are, the process grows to 410 MiB (25: 280 MiB, 100: 510 MiB)."""
MAX_BATCH = 200


class Intake:
    """Accepted alerts → routes → ledger rows → work messages.

    The message is acked after the rows are committed and the work messages are confirmed. A crash
    in between brings it again: the rows are there, and the work messages are published once more,
    which the claim absorbs.
    """

    def __init__(self, config: Config, engine: AsyncEngine, broker: Broker) -> None:
        self._config = config
        self._engine = engine
        self._broker = broker
        self._rows = Batches(self._write, limit=MAX_BATCH, pace=PACE_SECONDS)
        # Two keep the writer and the broker busy; all that are in hand would have so many publishes
        # under way that each outlasts its confirm time.
        self._together = asyncio.Semaphore(2)

    async def handle(self, message: Message, _: Delivery) -> Verdict:
        try:
            if message.type == messages.ALERTS_ACCEPTED:
                async with self._together:
                    return await self._take_all(messages.each_accepted(message))
            return await self._take(message)
        except ValidationError as error:
            return malformed(error)

    async def _take_all(self, together: Sequence[Message]) -> Verdict:
        """Take each as if it had come alone; what cannot be read goes its own way to `.dead`."""
        taken = await asyncio.gather(*map(self._take, together), return_exceptions=True)
        try:
            for message, verdict in zip(together, taken, strict=True):
                if isinstance(verdict, ValidationError):
                    await self._broker.publish(topology.ALERTS.name, topology.INTAKE_QUEUE, message)
                elif isinstance(verdict, BaseException):
                    raise verdict
        except PublishError as error:
            return Retry(type(error).__name__)
        return next((verdict for verdict in taken if isinstance(verdict, Retry)), Ack())

    async def _take(self, message: Message) -> Verdict:
        accepted = messages.accepted(message)
        rows = self.rows(accepted, message.request_id)
        if not rows:
            log.info("intake.unrouted_event", type=message.type)
            return Ack()
        taken = await self._rows.ask(rows)
        try:
            await asyncio.gather(*(self._broker.publish(*work) for work in _works(rows, taken)))
        except PublishError as error:
            return Retry(type(error).__name__)
        return Ack()

    async def accept(
        self, tx: AsyncConnection, alerts: Sequence[AlertAccepted], request_id: str | None
    ) -> None:
        """Take alerts without the broker: the work messages go through the outbox."""
        rows = [row for accepted in alerts for row in self.rows(accepted, request_id)]
        taken = await intake.accept(tx, rows, self._config.dedup.window)
        metrics.ACCEPTED.inc(taken.added)
        await outbox.add_all(tx, _works(rows, taken))

    def rows(self, accepted: AlertAccepted, request_id: str | None) -> list[NewRow]:
        """Resolve the routes, here and nowhere else.

        An accepted alert that leads nowhere (the configuration changed under it) is a failure for
        a person; an event that nobody wants is none.
        """
        once = accepted.once
        targets = self._config.route(accepted.event_type, accepted.target)
        if once is not None:  # the way to leave at most once is known for mail only
            targets = tuple(
                name for name in targets if isinstance(self._config.targets[name], EmailTarget)
            )
        failed = None
        if not targets:
            if accepted.event_type == LEAD_QUALIFIED:
                return []
            targets, failed = (UNROUTED,), Reason.UNROUTED
        return [
            NewRow(
                alert_id=accepted.id,
                target=target,
                event_type=accepted.event_type,
                severity=accepted.severity,
                source=accepted.source,
                payload=accepted.payload,
                dedup_key=accepted.dedup_key,
                request_id=request_id,
                accepted_at=accepted.accepted_at,
                once_address=once.address if once else None,
                once_purpose=once.purpose if once else None,
                once_reference=once.reference if once else None,
                failed=failed,
            )
            for target in targets
        ]

    async def _write(self, batch: Sequence[list[NewRow]]) -> list[Taken]:
        async with self._engine.begin() as tx:
            taken = await intake.accept(
                tx, [row for rows in batch for row in rows], self._config.dedup.window
            )
        metrics.ACCEPTED.inc(taken.added)
        return [taken] * len(batch)


class Persons:
    """What consent wants to know of a person, or wants forgotten."""

    def __init__(self, engine: AsyncEngine, broker: Broker) -> None:
        self._engine = engine
        self._broker = broker

    async def erasures(self, message: Message, delivery: Delivery) -> Verdict:
        """alerts.erasures: twice has the effect of once, and consent takes the receipt twice.

        Each order is done at least twice: what intake had in hand at the first time, which no
        queue's depth tells, is in the ledger or back in a queue when the order comes again.
        """
        if message.type != messages.PERSON_ERASED:
            return Dead("unknown type")
        try:
            order = PersonErased.model_validate(message.body)
        except ValidationError as error:
            return malformed(error)
        # What was accepted before the order may still be on its way into the ledger.
        try:
            for queue in (topology.INTAKE_QUEUE, retry_name(topology.INTAKE_QUEUE)):
                if await self._broker.depth(queue):
                    return Retry("intake")
        except BrokerUnavailable:
            return Retry("broker")
        erased, in_flight = await self._erase(order.email)
        log.info("person.erased", rows=erased, in_flight=in_flight)
        if erased or in_flight or delivery.death_count == 0:
            return Retry("in flight")
        async with self._engine.begin() as tx:
            await outbox.add(
                tx,
                topology.CONSENT_COMMANDS,
                messages.ERASURE_RECEIPT,
                messages.erasure_receipt(order.erasure_id, datetime.now(UTC)),
            )
        return Ack()

    async def _erase(self, address: str) -> tuple[int, int]:
        erased = in_flight = 0
        after: persons.Key | None = persons.BEGINNING
        while after is not None:
            async with self._engine.begin() as tx:
                looked = await persons.look(tx, address, after)
                for row in looked.rows:
                    done = await persons.erase(tx, row)
                    erased, in_flight = erased + done, in_flight + (not done)
            after = looked.after
        return erased, in_flight

    async def requests(self, message: Message, _: Delivery) -> Verdict:
        """alerts.requests: what is held on a person, a part of the ledger at a time."""
        if message.type != messages.EXPORT_REQUEST:
            return Dead("unknown type")
        try:
            asked = ExportRequest.model_validate(message.body)
        except ValidationError as error:
            return malformed(error)
        after = asked.after or persons.BEGINNING
        async with self._engine.connect() as tx:
            if asked.email is None:
                found, end = await persons.addresses(tx, after)
                records = {"addresses": [{"address": each} for each in found]}
            else:
                looked = await persons.look(tx, asked.email, after)
                tried = await persons.attempts(tx, looked.rows)
                records = {"deliveries": [_record(row) for row in looked.rows], "attempts": tried}
                end = looked.after
        await reply(self._broker, message, messages.export_answer(records, end))
        return Ack()


def _record(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.alert_id),
        "target": row.target,
        "event_type": row.event_type,
        "state": row.state,
        "reason": row.reason,
        "error": row.error,
        "permit_for": row.once_address,
        "accepted_at": row.accepted_at.isoformat(),
        "finished_at": row.finished_at and row.finished_at.isoformat(),
        "payload": row.payload,
    }


def _works(rows: Sequence[NewRow], taken: Taken) -> list[tuple[str, str, Message]]:
    return [
        (
            topology.ALERTS.name,
            topology.work_name(row.target),
            messages.work(row.alert_id, row.target, 0, row.request_id),
        )
        for row in rows
        if row.failed is None and row.key not in taken.repeats
    ]
