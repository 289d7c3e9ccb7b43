"""What a conversation remembers of a message: its facts, its consent, and what was asked."""

from collections.abc import Mapping

from libs.domain.mistyped import suggestion
from services.followups.dialogue.hearing import PARTS, Heard
from services.followups.dialogue.state import ABOUT_WORKS, SAID, State
from services.followups.reading import small_talk
from services.followups.reading.consent_answer import says_yes
from services.followups.reading.phrases import fold
from services.followups.reading.speech import says
from services.followups.rules.facts import NO_FACTS, Facts, Question

TIMES_ASKED = 2
_OF_CONSENT = ("consent", "shown", "explained")
CALL_TIME = 200
_HOW_TO_CALL = {"call_times", "call_another"}
"""Actions whose words tell staff when to call, or whom."""
_FORGETS = {
    "drop_email": ("email",),
    "drop_phone": ("phone",),
    "drop_budget": PARTS["budget"],
    "drop_start": PARTS["start"],
}


def refuses_contact(state: State) -> bool:
    """Return whether the person left no contact on purpose: nothing is asked any more."""
    return bool(state.asked.get("refused")) and not state.reachable


def gives_up_on_consent(state: State) -> bool:
    asked = state.asked.get("consent", 0) if "shown" in state.asked else 0
    return state.consent is None and state.facts.email is not None and asked >= TIMES_ASKED


def refused_for(state: State) -> str | None:
    """Return the address that gets no mails."""
    return state.facts.email if state.consent == "refused" else None


def remember(heard: Heard, passed: Facts | None, agreed: str | None) -> tuple[State, bool]:
    """Return the new state, and whether the words of this message granted consent."""
    state, tap, actions, news = heard.state, heard.tap, heard.actions, heard.news
    known, agrees = _consent(_learn(heard), heard, agreed)
    owned = {known.facts.email, known.facts.phone}
    grants = {each: who for each, who in known.grants.items() if who in owned}
    if tap and tap.grants and not tap.answer:
        grants, agrees = grants | {tap.grants: heard.taps.open(known)[tap.grants]}, True
    if heard.offers_consent and known.consent != "given":  # it is asked anew, also after a refusal
        known = _unasked(known, *_OF_CONSENT)._replace(consent=None, wording=None)
    route = heard.held.name if heard.held else None
    doubts = dict.fromkeys((*state.unsure, *news.known()))
    known = known._replace(
        asked=_asked(known, heard),
        grants={} if known.consent == "refused" else grants,
        spoken=heard.spoken,
        doubt=suggestion(news.email) if news.email and news.email != state.facts.email else None,
        passed={**known.passed, **(passed.known() if passed else {})},
        passed_consent=agreed is not None,
        route=route,
        closed=known.closed and route == state.route,  # the form's does not count for a route
        answered=heard.answers[0].name if heard.answers else state.answered,
        said=(*known.said, heard.words)[-SAID:] if heard.is_worth_telling else known.said,
        last_said=heard.words,
        call_time=_call_time(heard) if actions & _HOW_TO_CALL else known.call_time,
        offered=None,
        either=tuple(each.known() for each in heard.understood.either if heard.which),
        unsure=tuple(each for each in doubts if each not in heard.read.known()),
        wants_call="call" in actions or (known.wants_call and "no_calls" not in actions),
        no_calls="call" not in actions
        and ("no_calls" in actions or (known.no_calls and "may_call" not in actions)),
        wants_erasure=known.wants_erasure or "erasure" in actions,
        wants_quote=heard.wants_quote,
        wants_mails=known.wants_mails or heard.offers_consent,
    )
    return known, agrees


def _call_time(heard: Heard) -> str:
    """Return the last part of the message that says when to call, or whom; else its beginning."""
    said, find = heard.message or heard.words, heard.taps.routes.find
    first = said[:CALL_TIME]
    if first == said:
        return said.strip()
    parts = [said[at : at + CALL_TIME] for at in range(0, len(said), CALL_TIME // 2)]
    meant = (each for each in reversed(parts) if {one.action for one in find(each)} & _HOW_TO_CALL)
    return next(meant, first).strip()


def _unasked(state: State, *questions: str) -> State:
    left = {each: times for each, times in state.asked.items() if each not in questions}
    return state._replace(asked=left)


def _learn(heard: Heard) -> State:
    """Merge new facts. Consent does not carry over to another address; it is asked for again."""
    state, understood, news, before = heard.state, heard.understood, heard.news, heard.state.facts
    barred = understood.barred
    if before.email and barred == "another" and understood.facts.email:
        news, barred = news._replace(email=None), None  # someone else's; the person's own is known
    if before.phone and "call_another" in heard.actions:  # staff get that number in `call_time`
        news = news._replace(phone=None)
    facts = before.learn(news)
    for action in _FORGETS.keys() & heard.actions:
        facts = facts._replace(**dict.fromkeys(_FORGETS[action]))
    # What was said of an address holds for the next one only if that was still to come.
    is_other = news.email is not None and (before.email or understood.calls_email_own)
    if state.barred == "child" or not (barred or is_other):
        barred = state.barred or barred
    known = state._replace(facts=facts, language=heard.language, barred=barred)
    if before.email and (facts.email or "").lower() != before.email.lower():
        kept = state.consent if state.consent == "refused" else None
        return _unasked(known, "consent", "explained")._replace(consent=kept, wording=None)
    return known


def _consent(state: State, heard: Heard, agreed: str | None) -> tuple[State, bool]:
    refuses = heard.answer == "no" or "erasure" in heard.actions
    if refuses or (state.barred and state.consent == "given"):
        return state._replace(consent="refused"), False
    if state.barred:
        return state, False
    is_repeated = state.passed_consent and state.consent == "refused"
    undone = state.consent != "given" and state.granted_to == state.facts.email is not None
    if agreed is not None and not (undone or is_repeated):
        return state._replace(consent="given", wording=agreed), False
    is_one = heard.tap or len(heard.taps.grants) == 1  # else nobody knows which are meant
    # `Ok` to the first question agrees to it. After an explanation or a plea for one word it may
    # as well say that this was read.
    is_bare = not fold(heard.message) or small_talk.acknowledges(heard.message)
    is_read = is_bare and not heard.tap and "explained" in state.asked
    may_agree = is_one and state.consent is None and state.wording and not is_read
    if heard.answer != "yes" or not may_agree:
        return state, False
    return state._replace(consent="given", granted_to=None), True


def _asked(known: State, heard: Heard) -> Mapping[str, int]:
    """Count the questions asked: one that the person declines to answer is not asked again.

    Another route asks for a contact in its own words.
    A yes after the consent question was dropped grants nothing; consent is asked for once more.
    """
    question, message = heard.state.asking, heard.message
    if (
        question is None
        and gives_up_on_consent(known)
        and not small_talk.acknowledges(message)
        and says_yes(message, str(known.language))
    ):
        return {**known.asked, "consent": TIMES_ASKED - 1}
    held, last = heard.held, heard.taps.routes.named(heard.state.route)
    if held is not None and held is not last:
        is_call = bool(last and last.action == held.action == "call")
        left = known.asked.get("refused", 0) if is_call else 0
        return {**known.asked, "contact": 0, "refused": left}
    skips, times = heard.skips, TIMES_ASKED
    later: dict[str, int] = {each: max(1, known.asked.get(each, 0)) for each in heard.later}
    if skips:  # a route that closes says once more how to be reached; the others have said it
        times += not heard.closes
    elif question and _declines(question, known, heard):
        skips = (question,)
    refused = {"refused": 1} if "contact" in skips else {}
    return {**known.asked, **later, **refused, **dict.fromkeys(skips, times)}


def _declines(question: Question, known: State, heard: Heard) -> bool:
    """Return whether the question is left unanswered on purpose."""
    message = heard.message
    if question == "consent":
        is_answered = heard.answer in {"yes", "no"} or heard.news != NO_FACTS
        return not is_answered and heard.puts_off
    is_due = question in ABOUT_WORKS and getattr(known.facts, question) is None
    # `Pytam o cenę, a nie o metraż`
    if is_due and says(message, f"names {question}"):
        return True
    is_of_form = is_due or (question == "contact" and heard.held is None)
    return is_of_form and "?" not in message and says(message, "declines yes")
