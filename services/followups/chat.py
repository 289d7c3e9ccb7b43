"""One chat message, from what was said to everything that follows from it, in one transaction."""

import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import logs, outbox
from libs.common.addresses import MalformedAddress, normalise
from libs.common.broker import Message
from services.followups import dialogue, lead, messages, metrics
from services.followups.config import LANGUAGES, Config
from services.followups.dialogue import State
from services.followups.facts import Facts, addresses
from services.followups.store import conversations, steps
from services.followups.store.tables import Row
from services.followups.topology import CONSENT_COMMANDS, EVENTS

DEFAULT_SEQUENCE = "default"


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


@dataclass(frozen=True, slots=True)
class Answer:
    conversation_id: uuid.UUID
    reply: str
    score: int
    reply_id: int
    language: str
    about_consent: bool
    """It asks for consent, or the message may have answered: its words are the configured ones."""


async def take_turn(tx: AsyncConnection, config: Config, said: Said, now: datetime) -> Answer:
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
    )
    state = replace(turn.state, facts=_normal(turn.state.facts, before.facts))
    scored = lead.score(state.facts.known(), config.rules)

    grants = state.consent == "given" and state.granted_to is None and state.facts.email
    if grants:
        state = replace(state, granted_to=state.facts.email)
        await _record_grant(tx, said, state, now)
    qualifies = row["qualified_at"] is None and scored.points >= config.threshold
    if qualifies:
        await _tell_qualified(tx, config, conversation_id, said, state, scored, now)
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
    )
    if email := state.facts.email:  # nobody is chased without
        await _hear(tx, config, conversation_id, email, now)
        if (qualifies or grants) and state.consent != "refused":
            due = config.due_times(DEFAULT_SEQUENCE, now)
            request_id = logs.request_id.get()
            await steps.enrol(tx, conversation_id, email, DEFAULT_SEQUENCE, due, "chat", request_id)
    metrics.TURNS.labels(state.language).inc()
    return Answer(
        conversation_id,
        turn.reply,
        scored.points,
        reply_id,
        state.language or config.default_language,
        about_consent="consent" in {before.asking, state.asking} or said.agreed is not None,
    )


def _normal(facts: Facts, before: Facts) -> Facts:
    """Keep the address in the spelling under which consent is looked up."""
    if facts.email is None:
        return facts
    try:
        return replace(facts, email=normalise(facts.email))
    except MalformedAddress:
        return replace(facts, email=before.email)


def _named(message: str, facts: Facts) -> set[str]:
    named = {facts.email} if facts.email else set()
    for each in addresses(message):
        with suppress(MalformedAddress):
            named.add(normalise(each))
    return named


async def _record_grant(tx: AsyncConnection, said: Said, state: State, now: datetime) -> None:
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
    )
    await _send(tx, CONSENT_COMMANDS.name, messages.GRANT_RECORD, uuid.uuid4(), body)
    metrics.GRANTS.inc()


async def _tell_qualified(
    tx: AsyncConnection,
    config: Config,
    conversation_id: uuid.UUID,
    said: Said,
    state: State,
    scored: lead.Score,
    now: datetime,
) -> None:
    body = messages.lead_qualified(
        conversation_id=conversation_id,
        session_id=said.session_id,
        facts=state.facts,
        language=str(state.language),
        score=scored.points,
        reasons=scored.reasons,
        summary=dialogue.summary(state.facts, config.staff_language),
        at=now,
    )
    await _send(tx, EVENTS.name, messages.LEAD_QUALIFIED, messages.lead_id(conversation_id), body)
    metrics.LEADS.inc()


async def _send(
    tx: AsyncConnection, exchange: str, kind: str, message_id: uuid.UUID, body: dict[str, object]
) -> None:
    message = Message(id=str(message_id), type=kind, body=body, request_id=logs.request_id.get())
    await outbox.add(tx, exchange, kind, message)


async def _hear(
    tx: AsyncConnection,
    config: Config,
    conversation_id: uuid.UUID,
    email: str,
    now: datetime,
) -> None:
    """A message of the lead ends the chase: it is an answer, or the silence begins anew.

    An answer, once a step was handed over or when staff had enrolled a lead that was silent: the
    rest is cancelled. Else the lead is still talking, and the steps wait again from now on. It
    counts in whichever conversation it comes: a mail's link leads to a new one.
    """
    chases: dict[tuple[uuid.UUID, str], list[Row]] = {}
    for row in await steps.chase(tx, conversation_id, email):
        chases.setdefault((row["conversation_id"], row["sequence"]), []).append(row)
    for (_, sequence), rows in chases.items():
        if any(row["enrolled_by"] == "api" or row["handed_over_at"] for row in rows):
            stopped = await steps.stop(tx, steps.from_step(rows[0]), "reply")
            metrics.ENDED.labels("cancelled").inc(len(stopped))
        elif waiting := [row for row in rows if row["status"] == "scheduled"]:
            due = config.due_times(sequence, now, from_step=waiting[0]["step"])
            await steps.retime(tx, waiting, due, "chat")
