"""What a conversation remembers of a message: its facts, its consent, and what was asked."""

import re
from collections.abc import Mapping

from services.followups.dialogue.hearing import Heard
from services.followups.dialogue.state import SAID, State
from services.followups.dialogue.texts import ABOUT_WORKS
from services.followups.reading import small_talk
from services.followups.reading.addresses import suggestion
from services.followups.reading.consent_answer import postpones, says_yes
from services.followups.reading.phrases import fold
from services.followups.rules.facts import NO_FACTS, Facts

TIMES_ASKED = 2
CALL_TIME = 200
_OF_CONSENT = {"consent", "shown"}


def refuses_contact(state: State) -> bool:
    """Return whether the person left no contact on purpose: nothing is asked any more."""
    return bool(state.asked.get("refused")) and not state.reachable


def remember(
    state: State, heard: Heard, passed: Facts | None, agreed: str | None
) -> tuple[State, bool]:
    """Return the new state, and whether the words of this message granted consent."""
    known, agrees = _consent(_learn(state, heard), heard, agreed)
    if heard.offers_consent and known.consent != "given":  # it is asked anew, also after a refusal
        asked = {name: times for name, times in known.asked.items() if name not in _OF_CONSENT}
        known = known._replace(consent=None, wording=None, asked=asked)
    news, held, actions = heard.news, heard.held, heard.actions
    known = known._replace(
        asked=_asked(known, state, heard),
        spoken=heard.spoken,
        doubt=suggestion(news.email) if news.email and news.email != state.facts.email else None,
        city_asked=None,
        passed_email=(passed and passed.email) or known.passed_email,
        passed_phone=(passed and passed.phone) or known.passed_phone,
        passed_name=(passed and passed.name) or known.passed_name,
        passed_consent=agreed is not None,
        route=held.name if held else None,
        # The form's closing does not count for a route.
        closed=known.closed and (held.name if held else None) == state.route,
        answered=_answered(state, heard),
        said=(*known.said, heard.words)[-SAID:] if heard.is_worth_telling else known.said,
        last_said=heard.words,
        budget_from=heard.understood.budget_from if news.budget else known.budget_from,
        area_from=heard.area_from if news.area else known.area_from,
        call_time=heard.words[:CALL_TIME] if "call_times" in actions else known.call_time,
        by_email=False,
        offered=None,
        wants_call="call" in actions or (known.wants_call and "no_calls" not in actions),
        no_calls=(known.no_calls or "no_calls" in actions) and "call" not in actions,
        wants_erasure=known.wants_erasure or "erasure" in actions,
        wants_quote=heard.wants_quote,
        wants_mails=known.wants_mails or heard.offers_consent,
    )
    return known, agrees


def _answered(state: State, heard: Heard) -> str | None:
    """An apology or the like amid a route does not make the route answer anew."""
    held = heard.held
    goes_on = held and held.name == state.answered and held not in heard.answers
    return heard.answers[0].name if heard.answers and not goes_on else state.answered


def _learn(state: State, heard: Heard) -> State:
    """Merge new facts. Consent does not carry over to another address; it is asked for again."""
    understood, news = heard.understood, heard.news
    before = state.facts.email
    barred = understood.barred
    if before and barred == "another" and understood.facts.email:
        news, barred = news._replace(email=None), None  # someone else's; the person's own is known
    facts = state.facts.learn(news)
    if understood.district and facts.city is None and heard.is_about_lead:  # a hint for staff
        facts = facts._replace(city="{} ({}?)".format(*understood.district))
    # `516 229` was taken for a budget, and `041` went on with it.
    is_part = news.phone is not None and news.phone.startswith(f"+48{facts.budget}")
    if is_part and re.sub(r"\D", "", state.last_said or "") == f"{facts.budget}":
        facts = facts._replace(budget=None, currency=None)
    if understood.disowns_email or ("drop_email" in heard.actions and news.email is None):
        facts = facts._replace(email=None)
    email_given = news.email is not None
    # What was said of an address holds for the next one only if that was still to come.
    is_other = email_given and (before is not None or understood.calls_email_own)
    if state.barred == "child" or not (barred or is_other):
        barred = state.barred or barred
    known = state._replace(
        facts=facts, language=heard.language, barred=barred, email_just_given=email_given
    )
    if before and (facts.email or "").lower() != before.lower():
        asked = {name: count for name, count in state.asked.items() if name != "consent"}
        kept = state.consent if state.consent == "refused" else None
        known = known._replace(consent=kept, wording=None, asked=asked)
    return known


def _consent(state: State, heard: Heard, agreed: str | None) -> tuple[State, bool]:
    if heard.answer == "no" or (state.barred and state.consent == "given"):
        return state._replace(consent="refused"), False
    is_repeated = state.passed_consent and state.consent == "refused"
    undone = state.consent != "given" and state.granted_to == state.facts.email is not None
    if agreed is not None and not (undone or is_repeated) and state.barred is None:
        return state._replace(consent="given", wording=agreed), False
    may_agree = state.consent is None and state.wording is not None and state.barred is None
    is_clear = heard.is_tap or not _only_acknowledges(state, heard.message)
    if heard.answer == "yes" and may_agree and is_clear:
        return state._replace(consent="given", granted_to=None), True
    return state, False


def _only_acknowledges(state: State, message: str) -> bool:
    """`Ok` to the first question agrees to it. Once the wording was shown again, after an
    explanation or a plea for one word, it may as well say that this was read.
    """
    is_bare = not fold(message) or small_talk.acknowledges(message)
    return is_bare and state.asked.get("shown", 0) > 1


def _asked(known: State, before: State, heard: Heard) -> Mapping[str, int]:
    """Count the questions asked: one that the person declines to answer is not asked again.

    Another route asks for a contact in its own words.
    A yes after the consent question was dropped grants nothing; consent is asked for once more.
    """
    question, message = before.asking, heard.message
    if (
        question is None
        and gives_up_on_consent(known)
        and not small_talk.acknowledges(message)
        and says_yes(message, str(known.language))
    ):
        return {**known.asked, "consent": TIMES_ASKED - 1}
    if heard.held is not None and heard.held.name != before.route:
        return {**known.asked, "contact": 0, "refused": 0}
    if heard.skips:
        refused = {"refused": 1} if "contact" in heard.skips else {}
        # A route that closes says once more how to be reached; the others have said it.
        times = TIMES_ASKED + (not heard.closes)
        return {**known.asked, **refused, **dict.fromkeys(heard.skips, times)}
    is_other = heard.answer or heard.news != NO_FACTS
    if question == "consent" and not is_other and postpones(message):
        return {**known.asked, "consent": TIMES_ASKED}
    if question == "contact" and heard.held is None and small_talk.declines(message):
        return {**known.asked, "refused": 1, "contact": TIMES_ASKED}
    is_due = question in ABOUT_WORKS and getattr(known.facts, str(question)) is None
    # `Pytam o cenę, a nie o metraż`
    declines = is_due and (
        (small_talk.speaks_of(str(question), message) and not small_talk.answers_itself(message))
        or ("?" not in message and small_talk.declines(message))
    )
    return {**known.asked, str(question): TIMES_ASKED} if declines else known.asked


def gives_up_on_consent(state: State) -> bool:
    asked = state.asked.get("consent", 0) if "shown" in state.asked else 0
    return state.consent is None and state.facts.email is not None and asked >= TIMES_ASKED


def refused_for(state: State) -> str | None:
    """Return the address that gets no mails."""
    return state.facts.email if state.consent == "refused" else None
