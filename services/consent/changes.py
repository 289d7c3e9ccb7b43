"""What may change a person's consent. Each change is one transaction: state, events, trail."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import outbox
from libs.common.addresses import normalise
from libs.common.broker import message
from services.consent import messages, metrics, store, trail
from services.consent.consent import (
    HOLDERS,
    PURPOSES,
    ErasureStatus,
    LinkMail,
    Standing,
    State,
    wording_hash,
)
from services.consent.store import Lock
from services.consent.topology import ALERTS, EVENTS
from services.consent.trail import Entry
from services.consent.vault import Vault


@dataclass(frozen=True, slots=True)
class Wording:
    """What somebody agreed to, and where."""

    text: str
    language: str | None
    source: str
    given_at: datetime | None = None
    """When it was agreed to, where that is told apart from when it was recorded."""


async def grant(
    tx: AsyncConnection,
    vault: Vault,
    entry: Entry,
    wording: Wording,
    *,
    purpose: str = "marketing",
    confirmed: bool = False,
) -> bool:
    """Record an agreement, with the wording that proves it.

    :param confirmed: the owner of the mailbox has confirmed it by a mailed link
    :returns: whether it counts; one for a suppressed address waits for that confirmation
    :raises MalformedAddress:
    """
    address = normalise(entry.email)
    person = await store.enter(tx, vault, address, Lock.CHANGE)
    suppressed = vault.suppression_hash(address)
    if confirmed:
        await store.lift_suppression(tx, suppressed, purpose)
    counts = confirmed or not await store.is_suppressed(tx, suppressed, purpose)
    if counts:
        await store.set_state(tx, person.id, [purpose], State.GRANTED)
        await _tell(tx, messages.GRANTED, address, [purpose], entry.action)
    evidence = {
        **entry.evidence,
        "purpose": purpose,
        "wording": wording.text,
        "wording_sha256": wording_hash(wording.text),
        "language": wording.language,
        "source": wording.source,
        "counts": counts,
    }
    if wording.given_at is not None:
        evidence["given_at"] = wording.given_at.isoformat()
    await trail.append(tx, person.id, person.key(vault), replace(entry, evidence=evidence))
    metrics.GRANTS.labels("counted" if counts else "awaiting_confirmation").inc()
    return counts


@dataclass(frozen=True, slots=True)
class Withdrawal:
    person_id: UUID
    standing: Standing
    """As the transaction left it; once that is committed, permits can only be returned."""


AskForProof = Callable[[str, UUID], dict[str, Any]]
"""Makes the mail with the link that confirms this erasure, to this address."""


async def withdraw(
    tx: AsyncConnection,
    vault: Vault,
    entry: Entry,
    *,
    suppression_days: int,
    erase: bool = False,
    ask_for_proof: AskForProof | None = None,
) -> Withdrawal:
    """Withdraw every purpose; the caller commits, and answers as `permits.settled` says.

    One that was withdrawn already is recorded and told again: a reader that missed the first
    event hears the second.

    :param erase: erasure is asked for as well; it waits for proof
    :param ask_for_proof: mails for that proof, at most once an hour to an address; known or not,
        for consent does not know whom the other services know
    :raises MalformedAddress:
    """
    address = normalise(entry.email)
    person = await store.enter(tx, vault, address, Lock.CHANGE)
    await store.set_state(tx, person.id, PURPOSES, State.WITHDRAWN)
    suppressed = vault.suppression_hash(address)
    await store.suppress(tx, person.id, suppressed, PURPOSES, suppression_days)
    if erase:
        erasure_id = await store.request_erasure(tx, person.id, suppressed)
        if ask_for_proof and await store.may_mail(tx, suppressed, LinkMail.ERASURE):
            body = messages.mail(uuid4(), ask_for_proof(address, erasure_id), datetime.now(UTC))
            await outbox.add(tx, ALERTS, "alerts.intake", message(messages.ALERT_ACCEPTED, body))
    standing = await store.standing(tx, person.id, PURPOSES)
    await _tell(tx, messages.WITHDRAWN, address, PURPOSES, entry.action)
    evidence = {**entry.evidence, "purposes": list(PURPOSES)}
    await trail.append(tx, person.id, person.key(vault), replace(entry, evidence=evidence))
    return Withdrawal(person.id, standing)


async def erase(
    tx: AsyncConnection, vault: Vault, entry: Entry, withdrawal: Withdrawal
) -> ErasureStatus | None:
    """Forget the person here and tell the other services to; the caller has the proof.

    The rows of the trail stay and the chain verifies, but nobody can read whose they are.

    :param withdrawal: the person's, with every permit returned: the address, should it come
        back, is somebody new, for whose withdrawal a permit of before would be invisible
    :returns: None, and nothing was changed, when a newer consent was recorded since
    :raises MalformedAddress:
    """
    address = normalise(entry.email)
    person = await store.find(tx, vault, address, Lock.CHANGE)
    if person is None or person.id != withdrawal.person_id:  # a twin was first
        return ErasureStatus.IN_PROGRESS
    standing = await store.standing(tx, person.id, PURPOSES)
    if standing.versions != withdrawal.standing.versions:
        return None
    await order(tx, address, await store.destroy(tx, person.id))
    await trail.append(tx, person.id, person.key(vault), entry)
    metrics.ERASURES.inc()
    return ErasureStatus.IN_PROGRESS


async def order(tx: AsyncConnection, address: str, erasure_id: UUID) -> None:
    """Tell each holder to erase; repeating it is harmless.

    A key for each: a message that finds no queue waits in the outbox, and does not count as
    delivered because another service's queue took it.
    """
    body = messages.erased(address, PURPOSES, datetime.now(UTC), erasure_id)
    await outbox.add_all(
        tx,
        [
            (EVENTS.name, f"{messages.ERASED}.{holder}", message(messages.ERASED, body))
            for holder in HOLDERS
        ],
    )


async def _tell(
    tx: AsyncConnection, kind: str, address: str, purposes: Iterable[str], action: str
) -> None:
    body = messages.event(address, purposes, action, datetime.now(UTC))
    await outbox.add(tx, EVENTS.name, kind, message(kind, body))
