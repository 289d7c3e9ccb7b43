"""What may change a person's consent. Each change is one transaction: state, events, trail."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import logs, outbox
from libs.common.addresses import normalise
from libs.common.broker import Message, message
from services.consent import erasures, messages, metrics, trail
from services.consent.consent import (
    HOLDERS,
    PURPOSES,
    ErasureStatus,
    LinkMail,
    Standing,
    State,
    wording_hash,
)
from services.consent.records import Records
from services.consent.store import consents, erasing, links, people, upkeep
from services.consent.store.people import Lock
from services.consent.topology import ALERTS, EVENTS
from services.consent.trail import Entry
from services.consent.vault import Vault

AskForProof = Callable[[str, UUID], dict[str, Any]]
"""Makes the mail to this address with the link that confirms the request of this id."""


class ErasedSince(Exception):  # noqa: N818 - reads as the answer it is
    """The person was erased after giving this: it must not make them known again."""


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
    confirm_first: bool = False,
    ask_for_proof: AskForProof | None = None,
) -> bool:
    """Record an agreement, with the wording that proves it.

    :param confirmed: the owner of the mailbox has confirmed it by a mailed link
    :param confirm_first: every agreement waits for that, not only one for a suppressed address
    :param ask_for_proof: mails that link where it is waited for, as often as an address may be
    :returns: whether it counts
    :raises MalformedAddress:
    :raises ErasedSince: nothing may be kept; the caller rolls back
    """
    address = normalise(entry.email)
    person = await people.enter(tx, vault, address, Lock.CHANGE)
    suppressed = vault.suppression_hash(address)
    confirmation = uuid4()
    # Made for each, as each takes the same number of statements: time does not tell which it is.
    mail = ask_for_proof and ask_for_proof(address, confirmation)
    agreement = person.key(vault).encrypt("agreement", _kept(entry, wording))
    if confirmed:
        await consents.lift_suppression(tx, suppressed, purpose)
    else:
        confirm_first |= await consents.is_suppressed(tx, suppressed, purpose)
    counts = confirmed or not confirm_first
    # Under the lock: whoever erases this person meanwhile is seen here.
    if wording.given_at and await erasing.erased_since(tx, suppressed, wording.given_at):
        raise ErasedSince
    mailed = False
    if counts:
        await consents.set_state(tx, [person.id], [purpose], State.GRANTED)
        told = _event(messages.GRANTED, address, [purpose], entry.action, datetime.now(UTC))
        await outbox.add_all(tx, [told])
    elif mail:
        mailed = await links.await_opt_in(
            tx, confirmation, person.id, purpose, agreement, suppressed
        )
        await _mail(tx, LinkMail.OPT_IN, confirmation, mail, allowed=mailed)
    evidence = {
        **entry.evidence,
        "purpose": purpose,
        "wording": wording.text,
        "wording_sha256": wording_hash(wording.text),
        "language": wording.language,
        "source": wording.source,
        "counts": counts,
    }
    if mailed:
        evidence["confirmation"] = str(confirmation)
    if wording.given_at is not None:
        evidence["given_at"] = wording.given_at.isoformat()
    entry = replace(entry, evidence=evidence)
    await trail.append(tx, [(person.id, person.key(vault), entry)])
    metrics.GRANTS.labels("counted" if counts else "awaiting_confirmation").inc()
    return counts


def _kept(entry: Entry, wording: Wording) -> str:
    """Write down what a link is to confirm; `optin` reads it."""
    given_at = wording.given_at or datetime.now(UTC)
    return json.dumps(
        {
            "text": wording.text,
            "language": wording.language,
            "source": wording.source,
            "given_at": given_at.isoformat(),
            "session_id": entry.session_id,
        },
        ensure_ascii=False,
    )


@dataclass(frozen=True, slots=True)
class Withdrawal:
    person_id: UUID
    standing: Standing
    """As the transaction left it; once that is committed, permits can only be returned."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a withdrawal asks for."""

    entry: Entry
    erase: bool = False
    """Erasure is asked for as well; it waits for proof."""
    ask_for_proof: AskForProof | None = None
    """Mails for that proof, as often as an address may be mailed; known or not, for consent does
    not know whom the other services know."""
    request_id: str | None = field(default_factory=logs.request_id.get)
    """Of the request that asks, while others are served by the same transaction."""


async def withdraw(
    tx: AsyncConnection,
    vault: Vault,
    asked: Sequence[Asked],
    *,
    suppression_days: int,
    purposes: Sequence[str] = PURPOSES,
) -> list[Withdrawal]:
    """Withdraw these purposes; the caller commits, and answers each as `permits.settled` says.

    One that was withdrawn already is recorded and told again: a reader that missed the first
    event hears the second. Many cost little more than one: they share the statements, the head of
    the chain and the commit.

    :raises MalformedAddress:
    """
    addresses = [normalise(each.entry.email) for each in asked]
    each_of = list(zip(addresses, asked, strict=True))
    persons = await people.enter_all(tx, vault, addresses, Lock.CHANGE)
    hashes = {person.id: vault.suppression_hash(address) for address, person in persons.items()}
    await consents.set_state(tx, hashes, purposes, State.WITHDRAWN)
    await consents.suppress(tx, hashes, purposes, suppression_days)
    for address, each in each_of:
        if each.erase:
            await _request_erasure(tx, persons[address].id, address, hashes, each)
    standings = await consents.standings(tx, hashes, purposes)
    told = datetime.now(UTC)
    await outbox.add_all(
        tx,
        [
            _event(
                messages.WITHDRAWN,
                address,
                purposes,
                each.entry.action,
                told,
                request_id=each.request_id,
            )
            for address, each in each_of
        ],
    )
    entries = []
    for address, each in each_of:
        evidence = {**each.entry.evidence, "purposes": list(purposes)}
        person = persons[address]
        entries.append((person.id, person.key(vault), replace(each.entry, evidence=evidence)))
    await trail.append(tx, entries)
    return [Withdrawal(person_id, standings[person_id]) for person_id, _, _ in entries]


async def _request_erasure(
    tx: AsyncConnection,
    person_id: UUID,
    address: str,
    hashes: Mapping[UUID, bytes],
    asked: Asked,
) -> None:
    erasure_id = await erasing.request_erasure(tx, person_id, hashes[person_id])
    if asked.ask_for_proof:
        mail = asked.ask_for_proof(address, erasure_id)
        allowed = await links.may_mail(tx, hashes[person_id], LinkMail.ERASURE)
        kind, request_id = LinkMail.ERASURE, asked.request_id
        await _mail(tx, kind, uuid4(), mail, allowed=allowed, request_id=request_id)


async def erase(
    tx: AsyncConnection, vault: Vault, entry: Entry, withdrawal: Withdrawal, erased: Records
) -> ErasureStatus | None:
    """Forget the person here and tell the other services to; the caller has the proof.

    The rows of the trail stay and the chain verifies, but nobody can read whose they are.

    :param withdrawal: the person's, with every permit returned: the address, should it come
        back, is somebody new, for whose withdrawal a permit of before would be invisible
    :param erased: where it is written, before the commit, that a restored backup must forget
        this person again
    :returns: None, and nothing was changed, when a newer consent was recorded since
    :raises MalformedAddress:
    """
    address = normalise(entry.email)
    person = await people.find(tx, vault, address, Lock.CHANGE)
    if person is None or person.id != withdrawal.person_id:  # a twin was first
        return ErasureStatus.IN_PROGRESS
    standing = await consents.standing(tx, person.id, PURPOSES)
    if standing.versions != withdrawal.standing.versions:
        return None
    erasure_id = await erasing.destroy(tx, person.id)
    await give_order(tx, vault, address, erasure_id)
    suppressed = vault.suppression_hash(address)
    await erased.append(erasures.record(person.id, erasure_id, suppressed, datetime.now(UTC)))
    await trail.append(tx, [(person.id, person.key(vault), entry)])
    metrics.ERASURES.inc()
    return ErasureStatus.IN_PROGRESS


async def give_order(tx: AsyncConnection, vault: Vault, address: str, erasure_id: UUID) -> None:
    """Order each holder to erase, and keep the order until all have."""
    await erasing.seal_order(tx, erasure_id, vault.seal_address(erasure_id, address))
    await erasures.order(tx, address, erasure_id, HOLDERS)


def _event(
    kind: str, address: str, purposes: Iterable[str], action: str, at: datetime, **properties: Any
) -> tuple[str, str, Message]:
    body = messages.event(address, purposes, action, at)
    return EVENTS.name, kind, message(kind, body, **properties)


async def _mail(
    tx: AsyncConnection,
    kind: LinkMail,
    mail_id: UUID,
    payload: dict[str, Any],
    *,
    allowed: bool,
    **properties: Any,
) -> None:
    """Have a link mailed; one that may not be takes as long, for nobody is told which it was."""
    if allowed:
        body = messages.mail(mail_id, payload, datetime.now(UTC))
        accepted = message(messages.ALERT_ACCEPTED, body, **properties)
        await outbox.add(tx, ALERTS, "alerts.intake", accepted)
    else:
        await upkeep.idle(tx)
    metrics.LINK_MAILS.labels(kind, "mailed" if allowed else "held_back").inc()
