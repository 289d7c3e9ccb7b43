"""Publishes the effects of an ended row in the transaction that ends it, so no crash loses them."""

from datetime import datetime
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.messaging.topology import dead_name
from libs.domain.events import occurred
from services.alerts import messages, topology
from services.alerts.rules.delivery import Once, Reason, State
from services.alerts.store import incidents, subscriptions
from services.alerts.store.ledger import transitions
from services.alerts.store.ledger.transitions import Ended

_EVENTS: dict[State, messages.Settled] = {
    State.DELIVERED: "sent",
    State.FAILED: "failed",
    State.DISCARDED: "cancelled",
    State.IN_DOUBT: "in_doubt",
}


async def return_permit(tx: AsyncConnection, alert_id: UUID, attempt: int, once: Once) -> None:
    """Return the permit of one attempt, in the transaction that moves its row."""
    await outbox.add(
        tx,
        topology.CONSENT_COMMANDS,
        messages.PERMIT_RETURN,
        messages.permit_return(alert_id, attempt, once),
    )


async def notify(
    tx: AsyncConnection,
    ended: Ended,
    state: State,
    reason: Reason,
    until: datetime | None = None,
) -> None:
    """Publish the notifications of an ended row, in the transaction that ends it.

    A failure, a mail in doubt and a mail cancelled because consent did not reply are escalated.
    A failure also leaves its ids in `.dead`. The sender of an at-most-once message gets an event
    for every end.

    :param until: when it may be submitted again
    """
    if subscriptions.is_one(ended.target):  # nothing more is raised for it, or it would go round
        if reason is Reason.GONE:
            await subscriptions.end_by(tx, ended.target)
    elif ended.event_type == messages.ESCALATION and state is State.FAILED:
        await incidents.run(tx, "mark_unsent", digest=ended.alert_id)
    elif state in {State.FAILED, State.IN_DOUBT} or reason is Reason.NO_PERMIT:
        await incidents.run(
            tx, "escalate", alert_id=ended.alert_id, target=ended.target,
            event_type=ended.event_type, reason=reason, error=ended.error,
        )  # fmt: skip
    if state is State.FAILED and not subscriptions.is_one(ended.target):
        failed = uuid5(ended.alert_id, f"{ended.target} {ended.attempt}")
        about = {"alert_id": ended.alert_id, "event_type": ended.event_type, "reason": reason}
        await outbox.add_all(tx, [occurred("alert.failed", failed, target=ended.target, **about)])
    if state is State.FAILED and reason is not Reason.UNROUTED:  # which has no such queue
        await outbox.add(
            tx,
            topology.DLX.name,
            dead_name(topology.work_name(ended.target)),
            messages.dead(ended.alert_id, ended.target, ended.event_type, reason),
        )
    if ended.once is not None:
        comes_back = reason in {Reason.WINDOW_OVER, Reason.DEFERRED}
        outcome = "too_late" if comes_back else _EVENTS[state]
        await outbox.add(
            tx,
            topology.EVENTS.name,
            f"followup.{outcome}",
            messages.settled(
                ended.alert_id, ended.target, ended.once, outcome, reason, until=until
            ),
        )


async def mark_in_doubt(engine: AsyncEngine, alert_id: UUID, target: str) -> bool:
    """End a mail whose worker died after it may have written the terminator.

    :returns: False when the row is in another state by now; nothing has changed
    """
    async with engine.begin() as tx:
        found = await transitions.run(tx, "mark_in_doubt", alert_id=alert_id, target=target)
        for row in found:
            await notify(tx, transitions.ended(row), State.IN_DOUBT, Reason.CRASHED)
    return bool(found)
