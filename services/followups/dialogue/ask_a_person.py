"""The reply in a language without a form: a person will answer, and a contact is asked for.

Consent is not requested, because there is no approved wording in this language. A withdrawal counts
in any language.
"""

from services.followups.dialogue import questions, replies
from services.followups.dialogue.hearing import Heard
from services.followups.dialogue.questions import Reply
from services.followups.dialogue.state import State
from services.followups.dialogue.texts import Script
from services.followups.reading import small_talk
from services.followups.reading.routing import Route
from services.followups.reading.speech import heard as words
from services.followups.rules.fact_texts import describe
from services.followups.rules.facts import Question


def reply(state: State, before: State, heard: Heard, script: Script) -> Reply:
    language = heard.spoken
    # Emergencies, complaints and the like have words of their own in this language.
    own = heard.held if heard.held and language in heard.held.answer else None
    is_emergency = heard.held is not None and heard.held.first
    answers = [route for route in heard.answers if language in route.answer]
    parts = replies.opening(answers, before, script, language, asks=False)
    if heard.is_question and before.language is not None and not answers and not is_emergency:
        parts.append(script["question"])
    goes_on = own and not heard.answers and (own.first or not state.reachable)
    if own and goes_on and small_talk.says(heard.understood.rest):
        parts += questions.again(own, state, script, language, asks=False)
    if replies.refuses(state, before, heard):
        where = replies.asks_where(state, heard)
        parts.append(script["withdraw_where" if where else "consent_refused"])
    elif _agrees_to_mails(heard.message):
        parts.append(script["no_consent_here"])
    if not state.reachable and not replies.refuses(state, before, heard):
        state, ask = _ask(state, before, heard, script, own)
        parts.append(ask)
    if state.reachable:
        parts.append(_told(state, before, heard, script, own))
        state = state._replace(closed=True)
    notifies = not before.noticed and (state.reachable or not is_emergency)
    if notifies:
        parts.append(script["notice"])
    asking: Question | None = None if state.reachable else "contact"
    return state._replace(asking=asking, noticed=before.noticed or notifies), parts


def _agrees_to_mails(message: str) -> bool:
    said = words(message, "firm")
    agrees = said.is_said("agrees yes") and said.is_said("of_mails yes")
    return agrees and not said.is_said("refuses yes")


_ASKS_IN_TURN = ("ask_again", "ask_still", "unreachable")


def _ask(
    state: State, before: State, heard: Heard, script: Script, own: Route | None
) -> tuple[State, str]:
    """Ask for a contact; after some times only say what it is for, except in an emergency."""
    times = state.asked.get("handover", 0)
    if own and (own.first or own in heard.answers or times == 0):
        asked = {**state.asked, "handover": times + 1}
        return state._replace(asked=asked), own.ask.get(heard.spoken, script["ask_contact"])
    if not before.noticed:
        return state, script["ask_contact"]
    noted = describe(heard.news, heard.spoken)
    last = len(_ASKS_IN_TURN) - 1
    text = script[_ASKS_IN_TURN[last if "no_calls" in heard.actions else min(times, last)]]
    asked = {**state.asked, "handover": times + 1}
    return state._replace(asked=asked), text.format(facts=f": {noted}" if noted else "")


def _told(state: State, before: State, heard: Heard, script: Script, own: Route | None) -> str:
    gives_contact = heard.news.phone or heard.news.email
    is_told = before.closed and questions.is_new(heard) and not gives_contact
    text = script["added" if is_told else "passed_on"]
    if own:
        texts = own.again if is_told and not own.first else own.told
        text = texts.get(heard.spoken, text)
    return text.replace("{contact}", questions.contact_of(state))
