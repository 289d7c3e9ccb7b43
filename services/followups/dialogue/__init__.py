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
    tap = None if tap and tap.is_typed else tap
    heard = Heard(state, readable(message), taps, today, passed, language, tap, hint)
    known, agrees = memory.remember(heard, passed, agreed)
    script = taps.handover[heard.spoken] if heard.by_person else taps.texts[heard.language]
    if tap and tap.asks:
        known, said = ask_again(known, tap.asks, script)
    elif tap and tap.grants and taps.open(known):  # the others have their own chips
        said = script["consent_each"].format(facts=tap.text)
    else:
        reply = Reply(known, heard, script)
        said = reply.text(agrees=agrees, greets=not (tap or greeted)) or script["thanks"]
        known = reply.state
    if (last := digest(said)[:16]) == state.last_reply:
        held = heard.held
        must_be_read = held is not None and (held.first or held.topic == "privacy")
        if heard.closes or said in {script["thanks"], script["added"]}:
            said = script["added_too" if said == script["added"] else "thanks_again"]
        elif must_be_read or known.asking == "consent":
            said = script["as_before"] + said
        elif heard.asks_when and (route := taps.routes.named("when_call")):
            said = route.answer.get(heard.of_reply, said)
        else:
            said = script["insists"]
        last = digest(said)[:16]
    return Turn(known._replace(replies=state.replies + 1, last_reply=last), said, heard)
