"""One chat turn: the message, the reply and all its effects, in one transaction."""

import uuid
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.email_address import MalformedEmail, normalise
from libs.common.messaging import outbox
from libs.common.messaging.broker import Message
from libs.common.process import logs
from libs.common.process.prometheus_private import increments
from services.followups import dialogue, lead_score, messages, metrics, staff
from services.followups.config import LANGUAGES, Config
from services.followups.facts import Facts
from services.followups.state import State
from services.followups.store import conversations, steps
from services.followups.store.leads import Change
from services.followups.store.tables import Row
from services.followups.topology import CONSENT_COMMANDS
from services.followups.understanding import addresses

_count_turn = increments(metrics.TURNS)

DEFAULT_SEQUENCE = "default"
LOST = "lost"
UNSUBSCRIBED, CORRECTED = "unsubscribe", "address_corrected"
"""Cancellation reasons. The first equals the action in consent's own event."""


class Said(NamedTuple):
    """One chat message and its metadata."""

    message: str
    session_id: str
    passed: Facts
    language: str | None
    agreed: str | None
    """Wording of a consent that the website collected with this message."""
    ip_address: str | None
    user_agent: str | None
    ip_address_from: str | None = None
    source: str = "chat"
    """As consent's trail names it."""


class Reply(NamedTuple):
    conversation_id: uuid.UUID
    reply: str
    score: int


async def take_turn(
    tx: AsyncConnection, config: Config, link: staff.Link, said: Said, now: datetime
) -> Reply:
    """Store a turn and return the reply.

    The first statement locks the conversation's row, so turns of one session run one at a time and
    exactly one of them publishes `lead.qualified`.
    """
    row = await conversations.enter_conversation(tx, said.session_id)
    conversation_id: uuid.UUID = row["id"]
    before = State.of(row["state"])
    turn = dialogue.turn(
        before,
        said.message,
        texts=config.texts,
        default_language=config.default_language,
        language=said.language if said.language in LANGUAGES else None,
        today=now.astimezone(config.hours.zone).date(),
        passed=said.passed,
        agreed=said.agreed,
        works=config.works,
        towns=config.towns,
        routes=config.routes,
        handover=config.handover,
    )
    state = turn.state
    facts = _normal(state.facts, before.facts)
    if facts is not state.facts:
        state = state._replace(facts=facts)
    scored = lead_score.score(state.facts.known(), config.rules)

    # Emergencies, complaints and requests about personal data reach staff all the same.
    is_lost = "lost" in turn.actions and turn.is_about_lead
    # Lock order: contacts and the lead before the address.
    heard = staff.Heard(
        conversation_id=conversation_id,
        session_id=said.session_id,
        before=before,
        state=state,
        is_about_lead=turn.is_about_lead,
        is_lost=is_lost,
        now=now,
        agrees=state.consent == "given" and state.facts.email not in {None, state.granted_to},
    )
    outgoing: list[outbox.Outgoing] = []
    changes: list[Change] = []
    state = await staff.record(tx, config, link, heard, outgoing, changes)
    old, new = before.facts.email, state.facts.email
    if old and old != new:
        state = await leave(tx, conversation_id, said, before, state, now, outgoing)
    grants = state.consent == "given" and state.granted_to is None and new
    if grants:
        state = state._replace(granted_to=new)
        outgoing.append(_grant(said, state, now))
    withdraws = state.consent == "refused" and (
        turn.answer == "no" or state.withdrawn_from != new or state.wants_erasure
    )
    if new and withdraws:
        outgoing.append(
            _withdrawal(said, new, now, language=state.language, erase=state.wants_erasure)
        )
        state = state._replace(withdrawn_from=new, wants_erasure=False)
    qualifies = row["qualified_at"] is None and scored.points >= config.threshold
    await conversations.save_turn(
        tx,
        conversation_id,
        said=said.message,
        reply=turn.reply,
        state=state.stored(),
        email=state.facts.email,
        score=scored.points,
        qualified_at=now if qualifies else row["qualified_at"],
        named=named_in(said.message) | {*filter(None, [new])},
        leads=changes,
        outgoing=outgoing,
    )
    if new and withdraws:
        stopped = await steps.stop(tx, steps.of_address(new), UNSUBSCRIBED)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
    if is_lost:
        stopped = await steps.stop(tx, steps.of_conversation(conversation_id), LOST)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
    if new:  # no follow-ups without an e-mail
        # Without an earlier e-mail address nothing can be enrolled yet.
        enrolled = await hear(tx, config, conversation_id, now) if old else ()
        is_wanted = (
            (qualifies or grants)
            and state.consent != "refused"
            and state.barred is None
            and not is_lost
        )
        if is_wanted and DEFAULT_SEQUENCE not in enrolled:
            due = config.due_times(DEFAULT_SEQUENCE, now)
            request_id = logs.request_id.get()
            await steps.enrol(tx, conversation_id, new, DEFAULT_SEQUENCE, due, "chat", request_id)
    _count_turn(state.language)(1)
    return Reply(conversation_id, turn.reply, scored.points)


def _normal(facts: Facts, before: Facts) -> Facts:
    """Normalise the address, as consent does; keep the earlier one if this one is malformed."""
    if facts.email is None or facts.email == before.email:  # that one was normalised
        return facts
    try:
        return facts._replace(email=normalise(facts.email))
    except MalformedEmail:
        return facts._replace(email=before.email)


def named_in(message: str) -> set[str]:
    """Return the addresses in a message, in whatever spelling, in their normal form."""
    named = set()
    for each in addresses.named(message):
        with suppress(MalformedEmail):
            named.add(normalise(each))
    return named


def _grant(said: Said, state: State, now: datetime) -> outbox.Outgoing:
    """Record the grant with consent: the agreed wording and where it was given."""
    body = messages.grant_record(
        email=str(state.facts.email),
        wording=str(state.wording),
        language=str(state.language),
        session_id=said.session_id,
        ip_address=said.ip_address,
        ip_address_from=said.ip_address_from,
        user_agent=said.user_agent,
        at=now,
    )
    metrics.GRANTS.inc()
    return _command(messages.GRANT_RECORD, body)


def _withdrawal(
    said: Said, email: str, now: datetime, *, language: str | None = None, erase: bool = False
) -> outbox.Outgoing:
    body = messages.withdrawal_record(
        email=email,
        session_id=said.session_id,
        ip_address=said.ip_address,
        ip_address_from=said.ip_address_from,
        user_agent=said.user_agent,
        at=now,
        language=language,
        erase=erase,
        source=said.source,
    )
    metrics.WITHDRAWALS.inc()
    return _command(messages.WITHDRAWAL_RECORD, body)


async def leave(
    tx: AsyncConnection,
    conversation_id: uuid.UUID,
    said: Said,
    before: State,
    state: State,
    now: datetime,
    outgoing: list[outbox.Outgoing],
) -> State:
    """Undo the grant and the steps of an address that was given by mistake.

    Scheduled steps move to the new address. A step that was handed over needs a permit, which
    consent denies after the withdrawal.
    """
    old, new = str(before.facts.email), state.facts.email
    for address in sorted(filter(None, (old, new))):  # one lock order everywhere
        await steps.lock_address(tx, address)
    if before.granted_to == old and before.withdrawn_from != old:
        outgoing.append(_withdrawal(said, old, now))
    await steps.move(tx, conversation_id, old, new)
    stopped = await steps.stop(tx, steps.of_mailbox(conversation_id, old), CORRECTED)
    metrics.ENDED.labels("cancelled").inc(len(stopped))
    return state._replace(granted_to=None, withdrawn_from=None)


def _command(kind: str, body: dict[str, object]) -> outbox.Outgoing:
    request_id = logs.request_id.get()
    message = Message(id=str(uuid.uuid4()), type=kind, body=body, request_id=request_id)
    return CONSENT_COMMANDS.name, kind, message


async def hear(
    tx: AsyncConnection, config: Config, conversation_id: uuid.UUID, now: datetime
) -> Collection[str]:
    """End the sequences of a lead that writes, or restart their delays.

    If a step was handed over, or staff enrolled the lead, the message is a reply and the remaining
    steps are cancelled. Otherwise the lead is still talking, and the delays restart now. This holds
    only in the lead's own conversation: in another one, anyone could name the address.

    :returns: the sequences that this conversation was ever enrolled in
    """
    sequences: dict[str, list[Row]] = {}
    for row in await steps.rows_of_conversation(tx, conversation_id):
        sequences.setdefault(row["sequence"], []).append(row)
    for sequence, rows in sequences.items():
        if any(row["enrolled_by"] == "api" or row["handed_over_at"] for row in rows):
            stopped = await steps.stop(tx, steps.from_step(rows[0]), "reply")
            metrics.ENDED.labels("cancelled").inc(len(stopped))
        elif waiting := [row for row in rows if row["status"] == "scheduled"]:
            due = config.due_times(sequence, now, from_step=waiting[0]["step"])
            await steps.retime(tx, waiting, due, "chat")
    return sequences
