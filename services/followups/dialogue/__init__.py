"""The scripted intake dialogue: merge what a message says, then ask at most one question.

Consent counts only as a clear yes to the configured wording that
was shown. Anything else is asked once more and then dropped.
"""

from datetime import date
from typing import NamedTuple

from services.followups.dialogue import memory
from services.followups.dialogue.hearing import NO_HINT, Heard, Hint
from services.followups.dialogue.replies import Reply
from services.followups.dialogue.state import State
from services.followups.dialogue.taps import SKIP, Tapped, Taps, ask_again, digest
from services.followups.reading.text import readable
from services.followups.rules.facts import Facts

__all__ = ("SKIP", "Taps", "Turn", "turn")


class Turn(NamedTuple):
    state: State
    reply: str
    heard: Heard


def turn(
    state: State,
    message: str,
    *,
    taps: Taps,
    today: date,
    language: str | None = None,
    passed: Facts | None = None,
    agreed: str | None = None,
    tap: Tapped | None = None,
    greeted: bool = False,
    hint: Hint = NO_HINT,
) -> Turn:
    """Answer one message, or a tap.

    :param passed: facts from the website's own fields; they override the text
    :param agreed: wording of a consent that was given on the website with this message
    :param greeted: the page shows the greeting
    :param hint: what a model read, of a message that was unclear
    """
    if tap is not None and tap.forgets:
        state = state._replace(facts=state.facts._replace(**{tap.forgets: None}))
    heard = Heard(state, readable(message), taps, today, passed, language, tap, hint)
    sure = heard.read.known()
    known, agrees = memory.remember(state, heard, passed, agreed)
    doubts = [*state.unsure, *heard.news.known()]
    known = known._replace(unsure=tuple(dict.fromkeys(each for each in doubts if each not in sure)))
    script = taps.handover[heard.spoken] if heard.by_person else taps.texts[heard.language]
    if tap is not None and tap.asks:
        known, text = ask_again(known, tap.asks, script)
        parts = [text]
    elif tap is not None and tap.grants and taps.open(known):  # the others have their own chips
        parts = [script["consent_each"].format(facts=tap.text)]
    else:
        reply = Reply(known, state, heard, script)
        parts = reply.parts(agrees=agrees, greets=not (tap or greeted))
        known = reply.state
    said = " ".join(dict.fromkeys(parts or [script["thanks"]]))
    if (last := digest(said)[:16]) == state.last_reply:
        is_thanks = said == script["thanks"]
        said = script["thanks_again"] if is_thanks else script["as_before"] + said
        last = digest(said)[:16]
    return Turn(known._replace(replies=state.replies + 1, last_reply=last), said, heard)
