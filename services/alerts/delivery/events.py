"""Keeps the events that happened, and hands them to the subscriptions that want them.

One transaction holds the event, a row of the ledger for each subscription, and their work messages
in the outbox. Killed before its commit, the message comes again; after it, the event is there, and
nothing is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Dead, Disposition, read
from libs.domain.events import KEY_REVOKED
from libs.domain.scopes import KEY
from services.alerts import metrics, topology
from services.alerts.messages import Occurred
from services.alerts.rules import events
from services.alerts.rules.subjects import Kind, Subjects
from services.alerts.store.ledger import intake, privacy
from services.alerts.store.ledger.intake import NewRow
from services.alerts.store.subscriptions import run, target_of

PREFETCH = 2
"""They wait for each other (`order_events`), each with a connection of the pool."""


def person(subjects: Subjects, email: str | None) -> list[str]:
    """Return the names that events give a person: with each key, of which the first is in use."""
    hashes = subjects.hashes(Kind.EMAIL, [email] if email else [])
    return [each.removeprefix("\\x")[2:] for each in hashes]


@dataclass(frozen=True, eq=False)
class Events:
    engine: AsyncEngine
    subjects: Subjects

    async def handle(self, message: Message) -> Disposition:
        """Handle alerts.occurred."""
        if message.type == KEY_REVOKED:
            made_by = f"{KEY}{read(message, Occurred).key}"
            await run.alone(self.engine, "pause_of", made_by=made_by, paused="key_revoked")
            return Ack()
        if message.type not in events.EVENTS:
            return Dead("unknown type")
        given = read(message, Occurred)
        try:
            event_id = UUID(message.id)
        except ValueError:
            return Dead("unreadable: no UUID")
        names = person(self.subjects, given.email)
        data = events.content(message.type, message.body, given.at, names[0] if names else None)
        named = self.subjects.named_by(message.body)
        async with self.engine.begin() as tx:
            await run(tx, "order_events")
            erased = await privacy.erased_since(tx, named) if named else {}
            is_new = not any(since > given.at for since in erased.values()) and await run(
                tx, "keep", id=event_id, type=message.type, data=data, hashes=named, at=given.at
            )
            if is_new:
                always = events.EVENTS[message.type].get("about_persons", False)
                rows = [
                    row_of(each, event_id, message.type, data, given.at, named, message.request_id)
                    for each in await run(tx, "receiving")
                    if events.wants(each.events, message.type) or (always and each.personal_data)
                ]
                await order(tx, rows)
        if is_new:
            metrics.EVENTS.labels(message.type).inc()
        return Ack()


def row_of(
    subscription: Any, event_id: UUID, event_type: str, data: Mapping[str, Any], at: datetime,
    named: Sequence[str] = (), request_id: str | None = None, *, replayed: bool = False,
) -> NewRow:  # fmt: skip
    content = data if subscription.personal_data else events.without_persons(data)
    return NewRow(
        alert_id=event_id,
        target=target_of(subscription.id),
        event_type=event_type,
        severity="info",
        source="subscription",
        payload={"data": content} | ({"replayed": True} if replayed else {}),
        dedup_key=None,
        request_id=request_id,
        accepted_at=at,
        subjects=tuple(named),
    )


async def order(tx: AsyncConnection, rows: Sequence[NewRow]) -> None:
    """Write the rows; the outbox publishes their work."""
    if rows:
        await intake.accept(tx, rows, 0)
        await outbox.add_all(tx, [topology.work(row, row.target) for row in rows])
