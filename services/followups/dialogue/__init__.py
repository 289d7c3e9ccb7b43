"""The scripted intake dialogue: merge what a message says, then ask at most one question.

Consent counts only as a clear yes to the configured wording that
was shown. Anything else is asked once more and then dropped.
"""

import hashlib
from datetime import date
from typing import NamedTuple

from services.followups.dialogue import ask_a_person as handovers
from services.followups.dialogue import hints, memory, replies
from services.followups.dialogue.hearing import Heard
from services.followups.dialogue.hints import NOTHING, Hint
from services.followups.dialogue.state import State
from services.followups.dialogue.taps import SKIP, Tapped, Taps, ask_again
from services.followups.reading.consent_answer import Answer
from services.followups.reading.routing import Action
from services.followups.reading.text import readable
from services.followups.rules.facts import Facts

__all__ = ("SKIP", "Taps", "Turn", "turn")


class Turn(NamedTuple):
    state: State
    reply: str
    answer: Answer | None
    """The meaning of the message for consent."""
    unclear: str | None
    """The message, if no rule knows what it says: a model may."""
    is_about_lead: bool
    """False while the conversation does not concern sales."""
    actions: frozenset[Action]


def turn(
    state: State,
    message: str,
    *,
    taps: Taps,
    today: date,
    language: str | None = None,
    passed: Facts | None = None,
    agreed: str | None = None,
    works: tuple[str, ...] = (),
    towns: tuple[str, ...] = (),
    tap: Tapped | None = None,
    greeted: bool = False,
    hint: Hint = NOTHING,
) -> Turn:
    """Answer one message, or a tap.

    :param passed: facts from the website's own fields; they override the text
    :param agreed: wording of a consent that was given on the website with this message
    :param greeted: the page shows the greeting
    :param hint: what a model read, of a message that was unclear
    """
    if tap is not None and tap.forgets:
        state = state._replace(facts=state.facts._replace(**{tap.forgets: None}))
    heard = Heard(
        state,
        readable(message),
        today=today,
        passed=passed,
        works=works,
        routes=taps.routes,
        towns=towns,
        given_language=language,
        default_language=taps.default_language,
        forms=taps.texts.keys(),
        handovers=taps.handover.keys(),
        tap=tap,
    )
    unclear, sure = hints.is_unclear(heard, state), heard.news.known()
    if unclear:
        heard = hints.apply(heard, hint, state, taps.routes, today, works)
    known, agrees = memory.remember(state, heard, passed, agreed)
    doubts = [*(name for name in state.unsure if name not in sure), *heard.news.known()]
    known = known._replace(unsure=tuple(dict.fromkeys(each for each in doubts if each not in sure)))
    if tap is not None and tap.asks:
        known, text = ask_again(known, tap.asks, taps.script(heard.language, heard.spoken))
        parts = [text]
    elif heard.spoken in taps.handover and all(
        heard.spoken in each.answer for each in heard.urgent
    ):
        known, parts = handovers.reply(known, state, heard, taps.handover[heard.spoken])
    else:
        known, parts = replies.reply(
            known,
            state,
            heard,
            taps.texts[heard.language],
            agrees=agrees,
            greets=not (tap or greeted),
        )
    said, script = " ".join(parts), taps.script(heard.language, heard.spoken)
    if _hash(said) == state.last_reply:
        is_thanks = said == script["thanks"]
        said = script["thanks_again"] if is_thanks else script["as_before"] + said
    return Turn(
        known._replace(replies=state.replies + 1, last_reply=_hash(said)),
        said,
        heard.answer,
        unclear=heard.understood.rest if unclear else None,
        is_about_lead=heard.is_about_lead,
        actions=heard.actions,
    )


def _hash(reply: str) -> str:
    return hashlib.sha256(reply.encode()).hexdigest()[:16]
