"""One chat message, from what was said to everything that follows from it, in one transaction."""

import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.email_address import MalformedEmail, normalise
from libs.common.messaging import outbox
from libs.common.messaging.broker import Message
from libs.common.process import logs
from services.followups import dialogue, lead_score, messages, metrics, staff
from services.followups.config import LANGUAGES, Config
from services.followups.dialogue import State
from services.followups.facts import Facts
from services.followups.store import conversations, steps
from services.followups.store.tables import Row
from services.followups.topology import CONSENT_COMMANDS
from services.followups.understanding import addresses

DEFAULT_SEQUENCE = "default"
LOST = "lost"
UNSUBSCRIBED, CORRECTED = "unsubscribe", "address_corrected"
"""Why steps were cancelled; the first is what consent's own event says."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message to the chat and what came with it."""

    message: str
    session_id: str
    passed: Facts
    language: str | None
    agreed: str | None
    """Wording of a consent that the web site collected with this message."""
    ip_address: str | None
    user_agent: str | None
    ip_address_from: str | None = None
    vouched: bool = False
    """It came with the service key."""


@dataclass(frozen=True, slots=True)
class Reply:
    conversation_id: uuid.UUID
    reply: str
    score: int
    reply_id: int
    language: str
    is_fixed: bool
    """Its words are the configured ones: it is about consent, an answer of a route, a promise."""
    private: tuple[str, ...]
    """Names and places that nobody outside needs to see."""


async def take_turn(
    tx: AsyncConnection, config: Config, link: staff.Link, said: Said, now: datetime
) -> Reply:
    """Store a turn and answer it.

    The conversation's row is locked from the first statement on, so turns of one session happen
    one after the other and `lead.qualified` is raised in exactly one of them.
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
        routes=config.routes,
        handover=config.handover,
    )
    state = replace(turn.state, facts=_normal(turn.state.facts, before.facts))
    if said.agreed is not None:
        state = replace(state, vouched=said.vouched)
    scored = lead_score.score(state.facts.known(), config.rules)

    # Of an emergency, a complaint or a request for one's data, staff hear all the same.
    is_lost = "lost" in turn.actions and turn.is_about_lead
    # First: it locks contacts and the lead, which come before the lock of an address.
    heard = staff.Heard(
        conversation_id=conversation_id,
        session_id=said.session_id,
        before=before,
        state=state,
        is_about_lead=turn.is_about_lead,
        is_lost=is_lost,
        now=now,
    )
    outgoing: list[outbox.Outgoing] = []
    state = await staff.record(tx, config, link, heard, outgoing)
    old, new = before.facts.email, state.facts.email
    if old and old != new:
        state = await _leave(tx, conversation_id, said, before, state, now, outgoing)
    grants = state.consent == "given" and state.granted_to is None and new
    if grants:
        state = replace(state, granted_to=new)
        outgoing.append(_grant(said, state, now))
    withdraws = state.consent == "refused" and (
        turn.answer == "no" or state.withdrawn_from != new or state.wants_erasure
    )
    if new and withdraws:
        outgoing.append(
            _withdrawal(said, new, now, language=state.language, erase=state.wants_erasure)
        )
        state = replace(state, withdrawn_from=new, wants_erasure=False)
    qualifies = row["qualified_at"] is None and scored.points >= config.threshold
    reply_id = await conversations.save_turn(
        tx,
        conversation_id,
        said=said.message,
        reply=turn.reply,
        state=state.stored(),
        email=state.facts.email,
        score=scored.points,
        qualified_at=now if qualifies else row["qualified_at"],
        named=_named(said.message, state.facts),
        outgoing=outgoing,
    )
    if new and withdraws:
        stopped = await steps.stop(tx, steps.of_address(new), UNSUBSCRIBED)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
    if is_lost:
        stopped = await steps.stop(tx, steps.of_conversation(conversation_id), LOST)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
    if new:  # no follow-ups without an e-mail
        # Without an earlier e-mail nothing can have been enrolled.
        enrolled = await _hear(tx, config, conversation_id, now) if old else ()
        is_wanted = (qualifies or grants) and state.consent != "refused" and state.barred is None
        if is_wanted and DEFAULT_SEQUENCE not in enrolled:
            due = config.due_times(DEFAULT_SEQUENCE, now)
            request_id = logs.request_id.get()
            await steps.enrol(tx, conversation_id, new, DEFAULT_SEQUENCE, due, "chat", request_id)
    metrics.TURNS.labels(state.language).inc()
    return Reply(
        conversation_id,
        turn.reply,
        scored.points,
        reply_id,
        state.language or config.default_language,
        is_fixed=turn.is_fixed
        or before.asking == "consent"
        or turn.answer is not None
        or said.agreed is not None,
        private=tuple(filter(None, (state.facts.name, state.facts.city))),
    )


def _normal(facts: Facts, before: Facts) -> Facts:
    """Keep the address in the spelling under which consent is looked up."""
    if facts.email is None:
        return facts
    try:
        return replace(facts, email=normalise(facts.email))
    except MalformedEmail:
        return replace(facts, email=before.email)


def _named(message: str, facts: Facts) -> set[str]:
    named = {facts.email} if facts.email else set()
    for each in addresses.named(message):
        with suppress(MalformedEmail):
            named.add(normalise(each))
    return named


def _grant(said: Said, state: State, now: datetime) -> outbox.Outgoing:
    """Tell consent, with the wording that the person agreed to and where it came from."""
    body = messages.grant_record(
        email=str(state.facts.email),
        wording=str(state.wording),
        language=str(state.language),
        session_id=said.session_id,
        ip_address=said.ip_address,
        ip_address_from=said.ip_address_from,
        user_agent=said.user_agent,
        at=now,
        vouched=state.vouched,
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
    )
    metrics.WITHDRAWALS.inc()
    return _command(messages.WITHDRAWAL_RECORD, body)


async def _leave(
    tx: AsyncConnection,
    conversation_id: uuid.UUID,
    said: Said,
    before: State,
    state: State,
    now: datetime,
    outgoing: list[outbox.Outgoing],
) -> State:
    """Void what was agreed and planned for a mailbox that was given by mistake.

    What has not left moves to the address that takes its place. What was handed over needs a
    permit, which the withdrawal denies.
    """
    old, new = str(before.facts.email), state.facts.email
    for address in sorted(filter(None, (old, new))):  # in one order for all
        await steps.lock_address(tx, address)
    if before.granted_to == old and before.withdrawn_from != old:
        outgoing.append(_withdrawal(said, old, now))
    await steps.move(tx, conversation_id, old, new)
    stopped = await steps.stop(tx, steps.of_mailbox(conversation_id, old), CORRECTED)
    metrics.ENDED.labels("cancelled").inc(len(stopped))
    return replace(state, granted_to=None, withdrawn_from=None)


def _command(kind: str, body: dict[str, object]) -> outbox.Outgoing:
    request_id = logs.request_id.get()
    message = Message(id=str(uuid.uuid4()), type=kind, body=body, request_id=request_id)
    return CONSENT_COMMANDS.name, kind, message


async def _hear(
    tx: AsyncConnection, config: Config, conversation_id: uuid.UUID, now: datetime
) -> Collection[str]:
    """A message of the lead ends its sequences, or restarts their delays.

    An answer, once a step was handed over or when staff had enrolled a lead that was silent: the
    rest is cancelled. Else the lead is still talking, and the steps wait again from now on. Only
    in its own conversation: in another, anybody could name the address.

    :returns: the sequences that this conversation was ever enrolled in
    """
    sequences: dict[str, list[Row]] = {}
    for row in await steps.in_conversation(tx, conversation_id):
        sequences.setdefault(row["sequence"], []).append(row)
    for sequence, rows in sequences.items():
        if any(row["enrolled_by"] == "api" or row["handed_over_at"] for row in rows):
            stopped = await steps.stop(tx, steps.from_step(rows[0]), "reply")
            metrics.ENDED.labels("cancelled").inc(len(stopped))
        elif waiting := [row for row in rows if row["status"] == "scheduled"]:
            due = config.due_times(sequence, now, from_step=waiting[0]["step"])
            await steps.retime(tx, waiting, due, "chat")
    return sequences
