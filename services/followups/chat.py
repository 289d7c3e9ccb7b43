"""One chat turn: the message, the reply and all its effects, in one transaction."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.common.process import logs
from libs.domain.email_address import MalformedEmail, normalise
from services.followups import dialogue, metrics
from services.followups.config import LANGUAGES, Config
from services.followups.dialogue.hints import NOTHING, Hint
from services.followups.dialogue.state import State
from services.followups.dialogue.taps import Tapped
from services.followups.leads import staff
from services.followups.mails import enrolment
from services.followups.reading import addresses
from services.followups.rules import score as lead_score
from services.followups.rules.facts import Facts
from services.followups.store import conversations, steps
from services.followups.store.leads import Change

LOST = "lost"


class Reply(NamedTuple):
    conversation_id: uuid.UUID
    reply: str
    score: int
    said: str
    state: State
    unclear: str | None = None
    """A model may read this. Nothing was stored: the turn is to be taken again, with its hint."""


async def take_turn(
    tx: AsyncConnection,
    config: Config,
    link: staff.Link,
    said: enrolment.Said,
    now: datetime,
    replies: str | None = None,
    hint: Hint | None = NOTHING,
) -> Reply:
    """Store a turn and return the reply.

    The first statement locks the conversation's row, so turns of one session run one at a time and
    exactly one of them publishes `lead.qualified`.

    :param hint: what a model read; None: it was not asked yet
    :param replies: how many a page without a script shows: sent twice, it is one turn
    :raises Unfit: a tap that the last reply does not offer
    """
    row = await conversations.enter_conversation(
        tx, said.session_id, now - config.lead.reopens_after
    )
    before = State.entered(row)
    if said.language not in LANGUAGES:
        said = said._replace(language=None)
    known = before._replace(language=before.language or said.language)
    is_last = replies in {None, str(before.replies)}
    tapped = said.tap and config.taps.read(said.tap, known, config.today(now))
    if said.tap is None and is_last:
        return await _take(tx, config, link, said, now, row, before, None, hint)
    if tapped is None or (tapped.asks and not is_last):
        await tx.rollback()  # nothing changes
        score = lead_score.score(known.facts.known(), config.rules).points
        return Reply(row["id"], config.taps.again(known), score, "", known)
    language = known.language if tapped.answer else said.language  # that of the wording
    said = said._replace(message=tapped.text, language=language)
    return await _take(tx, config, link, said, now, row, before, tapped, NOTHING)


async def _take(
    tx: AsyncConnection,
    config: Config,
    link: staff.Link,
    said: enrolment.Said,
    now: datetime,
    row: Mapping[str, Any],
    before: State,
    tapped: Tapped | None,
    hint: Hint | None,
) -> Reply:
    """:param row: the conversation, and `before` its state"""
    conversation_id: uuid.UUID = row["id"]
    turn = dialogue.turn(
        before,
        said.message,
        taps=config.taps,
        language=said.language,
        today=config.today(now),
        passed=said.passed,
        agreed=said.agreed,
        works=config.works,
        towns=config.towns,
        tap=tapped,
        greeted=said.greeted,
        hint=hint or NOTHING,
    )
    if turn.unclear and hint is None:
        await tx.rollback()
        return Reply(conversation_id, "", 0, "", before, turn.unclear)
    state, reply = turn.state, config.said(turn.reply, turn.state.language, now)
    facts = _normal(state.facts, before.facts)
    if facts is not state.facts:
        state = state._replace(facts=facts)
    scored = lead_score.score(state.facts.known(), config.rules)

    # Emergencies, complaints and requests about personal data reach staff all the same.
    is_lost = "lost" in turn.actions and turn.is_about_lead
    # Lock order: contacts and the lead before the address.
    heard = staff.Notice(
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
        state = await enrolment.leave(tx, conversation_id, said, before, state, now, outgoing)
    grants = state.consent == "given" and state.granted_to is None and new
    if grants:
        state = state._replace(granted_to=new)
        outgoing.append(enrolment.grant(said, state, now))
    withdraws = state.consent == "refused" and (
        turn.answer == "no" or state.withdrawn_from != new or state.wants_erasure
    )
    if new and withdraws:
        outgoing.append(
            enrolment.withdrawal(said, new, now, language=state.language, erase=state.wants_erasure)
        )
        state = state._replace(withdrawn_from=new, wants_erasure=False)
    qualifies = row["qualified_at"] is None and scored.points >= config.lead.threshold
    await conversations.save_turn(
        tx,
        conversation_id,
        said=said.message,
        reply=reply,
        state=state.stored(),
        email=state.facts.email,
        score=scored.points,
        qualified_at=now if qualifies else row["qualified_at"],
        named=named_in(said.message) | {*filter(None, [new])},
        leads=changes,
        outgoing=outgoing,
    )
    if new and withdraws:
        stopped = await steps.stop(tx, steps.of_address(new), enrolment.UNSUBSCRIBED)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
    if is_lost:
        stopped = await steps.stop(tx, steps.of_conversation(conversation_id), LOST)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
    if new:  # no follow-ups without an e-mail
        # Without an earlier e-mail address nothing can be enrolled yet.
        enrolled = await enrolment.replied(tx, config, conversation_id, now) if old else ()
        is_wanted = (
            (qualifies or grants)
            and state.consent != "refused"
            and state.barred is None
            and not is_lost
        )
        if is_wanted and enrolment.DEFAULT_SEQUENCE not in enrolled:
            due = config.due_times(enrolment.DEFAULT_SEQUENCE, now)
            request_id = logs.request_id.get()
            await steps.enrol(
                tx, conversation_id, new, enrolment.DEFAULT_SEQUENCE, due, "chat", request_id
            )
    metrics.TURNS.labels(state.language).inc()
    return Reply(conversation_id, reply, scored.points, said.message, state)


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
