"""Every change of a subject's consent. Each is one transaction: state, events, trail."""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.common.messaging.broker import message
from libs.common.messaging.outbox import Outgoing
from libs.common.plain import plain
from services.consent import erasure_orders, messages, metrics
from services.consent.mails import MakeMail
from services.consent.rules import (
    ALL,
    LINK_MAILS_A_DAY,
    MARKETING,
    Agreement,
    ConsentState,
    Consequence,
    LinkMail,
    Subject,
    WithdrawalResult,
    consequence,
    wording_hash,
)
from services.consent.store import consents, data_subjects
from services.consent.store.data_subjects import Lock, parse_subject
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.topology import ALERTS, EVENTS
from services.consent.trail import chain
from services.consent.trail.chain import Entry

Note = Callable[[AsyncConnection, UUID | None], Awaitable[None]]
"""Records who acts on a data subject, by the subject's id; None: it is no longer known."""


class ErasedSince(Exception):  # noqa: N818 - reads as the answer it is
    """The subject was erased after giving this: it must not make them known again."""


async def grant(
    tx: AsyncConnection,
    vault: Vault,
    entry: Entry,
    agreement: Agreement,
    *,
    purpose: str = MARKETING,
    confirmed: bool = False,
    double_opt_in: bool = False,
    asked: Agreement | None = None,
    make_mail: MakeMail | None = None,
) -> bool:
    """Record an agreement, with the wording that proves it.

    No mail can prove a number, so none asks to confirm one: it counts at once, unless that number
    has withdrawn before.

    :param confirmed: the mailbox's owner has confirmed it by a mailed link
    :param double_opt_in: every agreement waits for that, not only one for a suppressed address
    :param asked: what that link asks to confirm, if not the same
    :param make_mail: makes the mail with that link; it is sent within the address's share of mails
    :returns: whether it counts
    :raises ValueError: neither an e-mail address nor a number
    :raises ErasedSince: nothing may be kept; the caller rolls back
    """
    who = parse_subject(entry.email)
    subject = await data_subjects.get_or_create(tx, vault, who.identity, Lock.CHANGE)
    key = subject.key(vault)
    suppression_hash = vault.suppression_hash(who.identity)
    confirmation = uuid4()
    if who.email is None:
        make_mail, double_opt_in = None, agreement.place == "import"
    # Each call makes a mail and runs the same number of statements: timing reveals nothing.
    mail = make_mail and make_mail(who.identity, confirmation)
    sealed = key.encrypt("agreement", _serialised(entry, asked or agreement))
    # Under the lock: a concurrent withdrawal or erasure of this subject is seen here.
    asked_of = {"subject": subject.id, "hash": suppression_hash, "purpose": purpose}
    restrictions = (await run(tx, "restrictions", **asked_of)).one()
    since = None if agreement.place == "import" else agreement.given_at  # who was ever erased
    if await run(tx, "erased_since", hashes=[suppression_hash], at=since):
        raise ErasedSince
    follows = consequence(
        agreement,
        confirmed=confirmed,
        double_opt_in=double_opt_in,
        suppressed=restrictions.suppressed,
        withdrawn_at=restrictions.withdrawn_at,
    )
    counts = follows is Consequence.COUNTS
    mailed = False
    if counts:
        if confirmed:
            await run(tx, "lift_suppression", hash=suppression_hash, purpose=purpose)
        await run(tx, "grant", subject=subject.id, purpose=purpose)
    elif mail:
        may = follows is Consequence.CONFIRM and not restrictions.never_ask
        # Each purpose has its own share of mails: two boxes of a form are confirmed by a mail each.
        kind = LinkMail.OPT_IN if purpose == MARKETING else f"{LinkMail.OPT_IN}:{purpose}"
        kept = await run(
            tx, "await_opt_in", **asked_of, id=confirmation, agreement=sealed,
            kind=str(kind), may=may, a_day=LINK_MAILS_A_DAY,
        )  # fmt: skip
        mailed = kept.rowcount == 1
    else:
        await run(tx, "idle")
    outgoing: list[Outgoing | None] = []
    if mail and not counts:
        outgoing.append(_mail(LinkMail.OPT_IN, confirmation, mail, allowed=mailed))
    if counts or restrictions.granted:  # also to those who heard of an agreement that only waits
        outgoing.append(_event(messages.GRANTED, who, [purpose], entry.action))
    await _send(tx, outgoing)
    evidence = {
        **entry.evidence,
        "purpose": purpose,
        "wording": agreement.text,
        "wording_sha256": wording_hash(agreement.text),
        "wording_version": agreement.version,
        "language": agreement.language,
        "source": agreement.source,
        "given_at": agreement.given_at.isoformat(),
        "counts": counts,
    }
    if mailed:
        evidence["confirmation"] = str(confirmation)
    await chain.append(tx, subject.id, key, replace(entry, evidence=evidence))
    metrics.GRANTS.labels(follows).inc()
    return counts


def _serialised(entry: Entry, agreement: Agreement) -> str:
    """Serialise what a link is to confirm; `optin` reads it."""
    given = asdict(agreement) | {"session_id": entry.session_id}
    del given["proven"]  # the link is the proof
    return json.dumps(given, ensure_ascii=False, default=plain)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    subject_id: UUID
    state: ConsentState
    """As the transaction left it; once that is committed, permits can only be returned."""


@dataclass(frozen=True, slots=True)
class WithdrawalRequest:
    entry: Entry
    purposes: Sequence[str] = ALL
    erase: bool = False
    """Erasure is also requested; it waits for confirmation."""
    make_mail: MakeMail | None = None
    """Makes the mail with the link for that confirmation; it is sent within the address's share.
    Unknown addresses get it too, because another service may know them."""
    never_ask: bool = False
    """Never mail a link for a new agreement again."""
    at: datetime | None = None
    """When it was withdrawn, if not now: a restored backup had undone it."""
    note: Note | None = None


async def withdraw(
    tx: AsyncConnection, vault: Vault, request: WithdrawalRequest, *, suppression_days: int
) -> Withdrawal:
    """Withdraw purposes; the caller commits, and answers as `permits.wait_until_answerable` says.

    All of them withdraws also what is granted later by an agreement of before. A repeated
    withdrawal is recorded and published again: a reader that missed the first event gets the
    second.

    :raises ValueError: neither an e-mail address nor a number
    """
    entry, purposes = request.entry, request.purposes
    who = parse_subject(entry.email)
    subject = await data_subjects.get_or_create(tx, vault, who.identity, Lock.CHANGE)
    suppression_hash = vault.suppression_hash(who.identity)
    whose = {"subject": subject.id, "hash": suppression_hash}
    await run(tx, "withdraw", subject=subject.id, purposes=list(purposes), at=request.at)
    await run(
        tx, "suppress", **whose, purposes=list(purposes), days=suppression_days,
        never_ask=request.never_ask,
    )  # fmt: skip
    if request.erase:
        erasure_id = (await run(tx, "request_erasure", **whose, id=uuid4())).scalar_one()
        if request.make_mail and who.email:
            mail = request.make_mail(who.email, erasure_id)
            share = {"hash": suppression_hash, "kind": str(LinkMail.ERASURE), "may": True}
            allowed = bool(await run(tx, "may_mail", **share, a_day=LINK_MAILS_A_DAY))
            await _send(tx, [_mail(LinkMail.ERASURE, uuid4(), mail, allowed=allowed)])
    state = await consents.read(tx, subject.id, purposes)
    await _send(tx, [_event(messages.WITHDRAWN, who, purposes, entry.action)])
    evidence = {**entry.evidence, "purposes": list(purposes)}
    if request.never_ask:
        evidence["never_ask"] = True
    await chain.append(tx, subject.id, subject.key(vault), replace(entry, evidence=evidence))
    if request.note is not None:
        await request.note(tx, subject.id)
    return Withdrawal(subject.id, state)


async def erase(
    tx: AsyncConnection, vault: Vault, entry: Entry, withdrawal: Withdrawal
) -> WithdrawalResult:
    """Erase the subject here and order the other services to; the caller has verified the request.

    The rows of the trail stay and the chain verifies, but no one can read whose they are.

    :param withdrawal: the subject's, with every permit returned: if the address comes back it is
        a new subject, whose withdrawal would not see an earlier permit
    :returns: whether it is done; otherwise a newer consent was recorded since, or the processing
        is restricted, and nothing was changed
    :raises ValueError: neither an e-mail address nor a number
    """
    who = parse_subject(entry.email)
    subject = await data_subjects.find(tx, vault, who.identity, Lock.CHANGE)
    if subject is None or subject.id != withdrawal.subject_id:  # a duplicate came first
        return WithdrawalResult.DONE
    if (await consents.read(tx, subject.id, ALL)).versions != withdrawal.state.versions:
        return WithdrawalResult.SUPERSEDED
    # Again: it may have been dismissed while permits were waited for.
    whose = {"subject": subject.id, "hash": vault.suppression_hash(who.identity)}
    await run(tx, "request_erasure", **whose, id=uuid4())
    if await data_subjects.restricted(tx, subject.id):
        return WithdrawalResult.RESTRICTED
    await run(tx, "forget", subject=subject.id)
    erasure_id = (await run(tx, "confirm_erasure", subject=subject.id)).scalar_one()
    await erasure_orders.order(tx, vault, erasure_id, who)
    await chain.append(tx, subject.id, subject.key(vault), entry)
    metrics.ERASURES.inc()
    return WithdrawalResult.DONE


def _event(kind: str, who: Subject, purposes: Iterable[str], action: str) -> Outgoing | None:
    if who.email is None:  # nobody keeps what they may be mailed under a number
        return None
    body = messages.event(who.email, purposes, action, datetime.now(UTC))
    return EVENTS.name, kind, message(kind, body)


def _mail(
    kind: LinkMail, mail_id: UUID, payload: dict[str, Any], *, allowed: bool
) -> Outgoing | None:
    """Return a mail with a link, if it may be sent."""
    metrics.LINK_MAILS.labels(kind, "mailed" if allowed else "held_back").inc()
    if not allowed:
        return None
    body = messages.mail(mail_id, payload, datetime.now(UTC), kind)
    return ALERTS, "alerts.intake", message(messages.ALERT_ACCEPTED, body)


async def _send(tx: AsyncConnection, outgoing: Iterable[Outgoing | None]) -> None:
    """Put these into the outbox. If there are none, do equal work: timing reveals nothing."""
    if leaving := [each for each in outgoing if each is not None]:
        await outbox.add_all(tx, leaving)
    else:
        await run(tx, "idle")
