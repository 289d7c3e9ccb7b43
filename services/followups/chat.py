"""One chat turn: the message, the reply and all its effects, in one transaction."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.domain.email_address import MalformedEmail, normalise
from services.followups import dialogue, metrics
from services.followups.config import LANGUAGES, Config
from services.followups.dialogue.hearing import NO_HINT, Hint
from services.followups.dialogue.state import State
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
    hint: Hint | None = NO_HINT,
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
    is_old = tapped is None or (tapped.asks and not is_last) if said.tap else not is_last
    if is_old:
        await tx.rollback()  # nothing changes
        score = lead_score.score(known.facts.known(), config.rules).points
        return Reply(row["id"], config.taps.again(known), score, "", known)
    if tapped is not None:
        is_consent = tapped.answer or tapped.grants
        language = known.language if is_consent else said.language  # that of the wording
        said, hint = said._replace(message=tapped.text, language=language), NO_HINT
    turn = dialogue.turn(
        before,
        said.message,
        taps=config.taps,
        language=said.language,
        today=config.today(now),
        passed=said.passed,
        agreed=said.agreed,
        tap=tapped,
        greeted=said.greeted,
        hint=hint or NO_HINT,
    )
    if turn.heard.unclear and hint is None:
        await tx.rollback()
        return Reply(row["id"], "", 0, "", before, turn.heard.unclear)
    return await _store(tx, config, link, said, now, row, before, turn)


async def _store(
    tx: AsyncConnection,
    config: Config,
    link: staff.Link,
    said: enrolment.Said,
    now: datetime,
    row: Mapping[str, Any],
    before: State,
    turn: dialogue.Turn,
) -> Reply:
    """:param row: the conversation, and `before` its state"""
    conversation_id: uuid.UUID = row["id"]
    state, reply = turn.state, config.said(turn.reply, turn.heard.of_reply, now)
    state = state._replace(facts=_normal(state.facts, before.facts))
    scored = lead_score.score(state.facts.known(), config.rules)

    # Emergencies, complaints and requests about personal data reach staff all the same.
    is_lost = "lost" in turn.heard.actions and turn.heard.is_about_lead
    # Lock order: contacts and the lead before the address.
    heard = staff.Notice(
        conversation_id=conversation_id,
        session_id=said.session_id,
        before=before,
        state=state,
        is_about_lead=turn.heard.is_about_lead,
        is_lost=is_lost,
        now=now,
        agrees=state.consent == "given" and state.facts.email not in {None, state.granted_to},
    )
    outgoing: list[outbox.Outgoing] = []
    changes: list[Change] = []
    state = await staff.record(tx, config, link, heard, outgoing, changes)
    old, new, number = before.facts.email, state.facts.email, state.facts.phone
    outgoing += enrolment.undone(said, before, state, now)
    if old and old != new:
        state = await enrolment.leave(tx, conversation_id, before, state)
    grants = state.consent == "given" and state.granted_to is None and new
    if grants:
        state = state._replace(granted_to=new)
        outgoing.append(enrolment.grant(said, state, str(new), now))
    for purpose, who in state.grants.items() - before.grants.items():
        outgoing.append(enrolment.grant(said, state, who, now, purpose))
    # A later address is refused as well, and a number in answer to the question whom not to write
    # to. Another later number is given to be called.
    refuses, erases = state.consent == "refused", state.wants_erasure
    is_said = turn.heard.answer == "no" or before.consent != "refused"
    is_named = number != before.facts.phone and not (turn.heard.is_about_lead or state.route)
    withdraws = refuses and (is_said or erases or state.withdrawn_from != new)
    if number and refuses and (is_said or is_named):
        outgoing.append(enrolment.withdrawal(said, number, now, language=state.language))
    if new and withdraws:
        outgoing.append(enrolment.withdrawal(said, new, now, language=state.language, erase=erases))
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
        commits=not (is_lost or (new and (old or withdraws or qualifies or grants))),
    )
    stopped = []
    if new and withdraws:
        stopped += await steps.stop(tx, enrolment.UNSUBSCRIBED, email=new)
    if is_lost:
        stopped += await steps.stop(tx, LOST, conversation_id)
    metrics.ENDED.labels("cancelled").inc(len(stopped))
    if new:  # no follow-ups without an e-mail
        is_barred = state.consent == "refused" or state.barred or is_lost
        starts = enrolment.DEFAULT_SEQUENCE if (qualifies or grants) and not is_barred else None
        await enrolment.go_on(
            tx, config, conversation_id, new, now, again=bool(old), starts=starts, by="chat"
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
