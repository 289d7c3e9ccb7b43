"""The reply in a language without a form: a person will answer, and a contact is asked for.

Consent is not requested, because there is no approved wording in this language. A withdrawal counts
in any language.
"""

from dataclasses import replace

from services.followups import small_talk
from services.followups.dialogue import questions, replies
from services.followups.dialogue.hearing import Heard
from services.followups.dialogue.questions import Reply
from services.followups.dialogue.texts import Script
from services.followups.fact_texts import describe
from services.followups.facts import Question
from services.followups.routing import Route
from services.followups.state import State


def reply(state: State, before: State, heard: Heard, script: Script) -> Reply:
    language = heard.spoken
    # An emergency has its own words in this language; other routes have none.
    emergency = heard.held if heard.held and heard.held.first else None
    answers = [route for route in heard.answers if language in route.answer]
    parts = replies.opening(answers, before, script, language, asks=False)
    if heard.is_question and before.language is not None and not answers and not emergency:
        parts.append(script["question"])
    if emergency and not heard.urgent and small_talk.says(heard.understood.rest):
        parts += questions.again(emergency, state, script, language, asks=False)
    if replies.refuses(state, before, heard):
        where = replies.asks_where(state, heard)
        parts.append(script["withdraw_where" if where else "consent_refused"])
    elif emergency and not state.reachable:
        parts.append(emergency.ask.get(language, script["ask_again"]))
    elif not state.reachable:
        state, ask = _ask(state, before, heard, script)
        parts.append(ask)
    if state.reachable:
        parts.append(_told(state, before, heard, script, emergency))
        state = replace(state, closed=True)
    notifies = not before.noticed and (state.reachable or emergency is None)
    if notifies:
        parts.append(script["notice"])
    asking: Question | None = None if state.reachable else "contact"
    return replace(state, asking=asking, noticed=before.noticed or notifies), parts


def _ask(state: State, before: State, heard: Heard, script: Script) -> tuple[State, str]:
    """Ask for a contact, later in one of two wordings."""
    if not before.noticed:
        return state, script["ask_contact"]
    times = state.asked.get("handover", 0)
    noted = describe(heard.news, heard.spoken)
    text = script["ask_still" if times % 2 else "ask_again"]
    asked = {**state.asked, "handover": times + 1}
    return replace(state, asked=asked), text.format(facts=f": {noted}" if noted else "")


def _told(
    state: State, before: State, heard: Heard, script: Script, emergency: Route | None
) -> str:
    told = emergency.told.get(heard.spoken) if emergency else None
    is_told = before.closed and not (told or heard.news.phone or heard.news.email)
    text = told or script["added" if is_told else "passed_on"]
    return text.replace("{contact}", questions.contact_of(state))
