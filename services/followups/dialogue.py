"""The scripted intake dialogue: merge what a message says, then ask at most one question.

Texts come from followups.toml. Consent counts only as a clear yes to the configured wording that
was shown. Anything else is asked once more and then dropped.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from services.followups import small_talk
from services.followups.fact_texts import describe
from services.followups.facts import Facts, Question
from services.followups.routing import Action, Route, Routes, fold
from services.followups.state import State
from services.followups.understanding import Understood, corrections, understand
from services.followups.understanding.addresses import suggestion
from services.followups.understanding.consent_answer import Answer, says_yes, takes_back

NO_ROUTES = Routes(())
NO_HANDOVER: Mapping[str, Mapping[str, str]] = {}
HANDOVER_TEXTS = frozenset(
    {
        "greeting",
        "notice",
        "ask_contact",
        "ask_again",
        "ask_still",
        "added",
        "passed_on",
        "consent_refused",
        "withdraw_where",
    }
)
"""The texts of a language in which the form does not exist."""
TIMES_ASKED = 2
ABOUT_WORKS = ("wish", "area", "budget", "start")
SAID, SAID_LENGTH = 6, 400
"""Messages kept until staff are notified, and the characters kept of each."""

TEXTS = frozenset({
    "greeting", "noted", "heard", "question", "question_unreachable", "question_another",
    "question_passed", "notice", "ask_wish", "ask_area", "ask_budget", "ask_start", "ask_contact",
    "ask_contact_for_call", "ask_consent", "ask_consent_again", "consent_given", "consent_left",
    "consent_refused", "consent_help", "withdraw_where", "ask_contact_again", "email_doubt",
    "closing", "closing_unreachable", "passed_on", "added", "thanks", "we_do", "call_noted",
})  # fmt: skip

PLACES = {
    "noted": "facts", "ask_again": "facts", "ask_still": "facts", "email_doubt": "address",
    "closing": "contact", "passed_on": "contact",
}  # fmt: skip
"""The placeholder of a text, besides those for the company's data."""

_FIRM_YES = re.compile(r"\b(?:tak|zgod\w+|zgadzam\w*|yes|agree)\b")


@dataclass(frozen=True, slots=True)
class Turn:
    state: State
    reply: str
    answer: Answer | None
    """The meaning of the message for consent."""
    is_about_lead: bool
    """False while the conversation does not concern sales."""
    actions: frozenset[Action]
    is_fixed: bool
    """Use the configured words unchanged; the model must not reword them."""


def turn(
    state: State,
    message: str,
    *,
    texts: Mapping[str, Mapping[str, str]],
    default_language: str,
    today: date,
    language: str | None = None,
    passed: Facts | None = None,
    agreed: str | None = None,
    works: tuple[str, ...] = (),
    routes: Routes = NO_ROUTES,
    handover: Mapping[str, Mapping[str, str]] = NO_HANDOVER,
) -> Turn:
    """Answer one message.

    :param passed: facts from the website's own fields; they override the text
    :param agreed: wording of a consent that was given on the website with this message
    """
    first = state.language is None
    matched = routes.find(message, before=_before(state))
    heard = understand(
        message,
        asked=_corrected(message, state.facts)
        or (None if state.asking == "wish" and matched else state.asking),
        language=state.spoken or state.language or default_language,
        email_just_given=state.email_just_given,
        agreed=state.consent == "given" and state.asking is None,
        today=today,
        works=works,
    )
    spoken = heard.language if heard.language in {*texts, *handover} else default_language
    language = _of_the_form(state, language, spoken if spoken in texts else None, matched)
    script = texts[language := language or default_language]
    agrees = state.doubt is not None and says_yes(message, language)
    is_empty = heard.answer is None and not (
        heard.facts.known() or agrees or small_talk.says(heard.rest)
    )
    # `Rezygnuję` in answer to the consent question declines consent, not the works.
    declines = heard.answer == "no" and (
        takes_back(message) or (state.asking == "consent" and not small_talk.says(heard.rest))
    )
    matched = [
        route
        for route in matched
        if (is_empty or not route.alone) and not (declines and route.action == "lost")
    ]
    actions = frozenset(route.action for route in matched if route.action)
    held = _held(routes, matched, state, heard.facts, actions)
    wants_quote = state.wants_quote or ("quote" in actions and held is not None)
    written = replace(heard.facts, email=state.doubt) if agrees else heard.facts
    is_off_topic = any(
        route.then == "nothing"
        and (not route.lead or heard.facts.known().keys().isdisjoint(ABOUT_WORKS))
        for route in matched
    )
    is_none_of_sales = is_off_topic or (held is not None and not held.lead and not wants_quote)
    news = _news(written, passed, state, only_contact=is_none_of_sales)
    known, agreed_now = _consent(_learn(state, heard, news, language), heard, agreed)
    words = message[:SAID_LENGTH]
    # On a route, even a short answer matters: `na piśmie`, `nie mam maila`.
    says = small_talk.says(heard.rest, least=1 if held else 2)
    is_worth_telling = heard.answer is None and words != state.last_said and says
    said = (*known.said, words)[-SAID:] if is_worth_telling else known.said
    answers = [
        route
        for route in matched
        if route.answer and (route is held or not (route.holds or (held and not route.lead)))
    ]
    known = replace(
        known,
        asked=_asked(known, state, message, held, answers),
        spoken=spoken,
        doubt=suggestion(news.email) if news.email and news.email != state.facts.email else None,
        passed_email=passed.email if passed and passed.email else known.passed_email,
        route=held.name if held else None,
        # The form's closing does not count for a route.
        closed=known.closed and (held is None or held.name == state.route),
        answered=answers[0].name if answers else state.answered,
        said=said,
        last_said=words,
        wants_call=known.wants_call or "call" in actions,
        no_calls=(known.no_calls or "no_calls" in actions) and "call" not in actions,
        wants_erasure=known.wants_erasure or "erasure" in actions,
        wants_quote=wants_quote,
    )
    is_about_lead = held is None or held.lead or wants_quote
    if spoken in handover and all(spoken in route.answer for route in answers if route.first):
        known, reply = _hand_over(known, state, heard, handover[spoken], answers, held, news)
        return Turn(known, reply, heard.answer, is_about_lead, actions, is_fixed=True)
    is_question = small_talk.asks(heard.rest)
    parts = _opening(answers[:2], state, script, language, is_question=is_question)
    if agreed_now:
        parts.append(script["consent_given"])
    refuses = heard.answer == "no" or _refused_for(known) != _refused_for(state)
    if refuses and not state.wants_erasure:  # an erasure includes the withdrawal
        parts.append(script["consent_refused" if known.facts.email else "withdraw_where"])
    if (noted := describe(news, language)) and not (held and held.then == "end"):
        parts.append(script["noted"].format(facts=noted))
    reacts = _reactions(heard, known, works, held, actions, is_answered=bool(answers or held))
    parts += [script[name] for name in reacts if script[name] not in parts]
    if is_worth_telling and state.asking != "consent" and not (parts or held):
        parts.append(script["heard"])
    if state.asking == "consent" and _gives_up_on_consent(known):
        parts.append(script["consent_left"])
    if script["notice"] in " ".join(parts):
        known = replace(known, noticed=True)
    if "erasure" in actions:
        known = replace(known, consent="refused")
    known, rest = _go_on(
        known,
        script,
        held,
        stops=is_off_topic and not news.known(),
        closes=any(route.then == "close" for route in matched),
        says_more=not answers and says,
        is_question=is_question,
        is_new=is_worth_telling or bool(news.known()),
        asks_back=heard.answer == "question",
        asks_address=script["withdraw_where"] in parts,
    )
    by_route = (script["added"], script["thanks"])
    parts += [part for part in rest if not (answers and held and part in by_route)]
    return Turn(
        known,
        " ".join(parts),
        heard.answer,
        is_about_lead=is_about_lead,
        actions=actions,
        is_fixed=first
        or bool(answers)
        or known.asking not in ABOUT_WORKS
        or known.noticed != state.noticed,
    )


def _before(state: State) -> str:
    """Return the previous message, if the conversation may still become a request to staff."""
    facts = state.facts
    is_form = state.route or facts.area or facts.budget or facts.start
    return "" if is_form else state.last_said or ""


def _corrected(message: str, facts: Facts) -> Question | None:
    """Return which fact `64, nie 46` corrects."""
    wrong = corrections.rejected(message)
    if wrong is not None and wrong == facts.area:
        return "area"
    if wrong is not None and facts.budget in {wrong, 1000 * wrong}:
        return "budget"
    return None


def _of_the_form(
    state: State, given: str | None, spoken: str | None, matched: Sequence[Route]
) -> str | None:
    """Return the language of the reply: the website's, but in an emergency the person's."""
    if any(route.first for route in matched):
        given = spoken or given
    return given or spoken or state.language


def _news(written: Facts, passed: Facts | None, state: State, *, only_contact: bool) -> Facts:
    if passed and passed.email == state.passed_email:
        passed = replace(passed, email=None)
    news = written.learn(passed) if passed else written
    if only_contact:
        return Facts(email=news.email, phone=news.phone, name=news.name)
    return news


def _hand_over(
    state: State,
    before: State,
    heard: Understood,
    script: Mapping[str, str],
    answers: Sequence[Route],
    held: Route | None,
    news: Facts,
) -> tuple[State, str]:
    """Reply in a language without a form: a person will answer, or ask for a contact.

    Consent is not requested, because there is no approved wording in this language. A withdrawal
    counts in any language.

    :param held: an emergency has its own words in this language; other routes have none
    """
    language = str(state.spoken)
    emergency = held if held and held.first else None
    urgent = [route for route in answers if route.first]
    parts = _opening(urgent, before, script, language, is_question=False)
    if emergency and not urgent and small_talk.says(heard.rest):
        parts += _again(emergency, state, script, language, is_question=False)
    if heard.answer == "no" or _refused_for(state) != _refused_for(before):
        parts.append(script["consent_refused" if state.facts.email else "withdraw_where"])
    elif emergency and not state.reachable:
        parts.append(emergency.ask.get(language, script["ask_again"]))
    elif not state.reachable:
        state, ask = _ask_in_turns(state, script, news) if before.noticed else (state, None)
        parts.append(ask or script["ask_contact"])
    if state.reachable:
        told = emergency.told.get(language) if emergency else None
        contact = str(state.facts.phone or state.facts.email)
        is_told = before.closed and not (told or news.phone or news.email)
        parts.append(
            (told or script["added" if is_told else "passed_on"]).replace("{contact}", contact)
        )
        state = replace(state, closed=True)
    notifies = not before.noticed and (state.reachable or emergency is None)
    parts += [script["notice"]] if notifies else []
    asking: Question | None = None if state.reachable else "contact"
    return replace(state, asking=asking, noticed=before.noticed or notifies), " ".join(parts)


def _ask_in_turns(state: State, script: Mapping[str, str], news: Facts) -> tuple[State, str]:
    """Ask again for a contact in one of two wordings, with the facts that need no translation."""
    times = state.asked.get("handover", 0)
    start = None if news.start == "asap" else news.start
    noted = describe(replace(news, start=start), str(state.spoken))
    text = script["ask_still" if times % 2 else "ask_again"]
    asked = {**state.asked, "handover": times + 1}
    return replace(state, asked=asked), text.format(facts=f": {noted}" if noted else "")


def _held(
    routes: Routes, matched: Sequence[Route], state: State, facts: Facts, actions: frozenset[Action]
) -> Route | None:
    """Return the route that holds the conversation: the current one, or one that precedes it.

    An ended conversation starts again when a lead gives new facts.
    """
    held = routes.named(state.route)
    if held and held.then == "end" and ((held.lead and facts.known()) or "resume" in actions):
        held = None
    new = next((route for route in matched if route.holds), None)
    if new is not None and (held is None or routes.comes_before(new, held)):
        return new
    return held


def _asked(
    known: State, before: State, message: str, held: Route | None, answers: Sequence[Route]
) -> Mapping[str, int]:
    """Count the questions asked: one that the person declines to answer is not asked again.

    Another route asks for a contact in its own words.
    A yes after the consent question was dropped grants nothing; consent is asked for once more.
    """
    question = before.asking
    if (
        question is None
        and _gives_up_on_consent(known)
        and _FIRM_YES.search(" ".join(fold(message)))
        and says_yes(message, str(known.language))
    ):
        return {**known.asked, "consent": TIMES_ASKED - 1}
    if held is not None and held.name != before.route:
        return {**known.asked, "contact": 0}
    if skipped := next((route.skips for route in answers if route.skips), None):
        return {**known.asked, skipped: TIMES_ASKED + 1}
    if question not in ABOUT_WORKS or getattr(known.facts, question) is not None or "?" in message:
        return known.asked
    declines = small_talk.declines(message)
    return {**known.asked, question: TIMES_ASKED} if declines else known.asked


def _go_on(
    state: State,
    script: Mapping[str, str],
    held: Route | None,
    *,
    stops: bool,
    closes: bool,
    says_more: bool,
    is_question: bool,
    is_new: bool,
    asks_back: bool,
    asks_address: bool,
) -> tuple[State, list[str]]:
    if asks_address:
        return replace(state, asking=None), []
    if state.doubt:  # the only question: a yes must not also answer another one, such as consent
        return replace(state, asking=None), [script["email_doubt"].format(address=state.doubt)]
    if held is not None:
        language = str(state.language)
        again = _again(held, state, script, language, is_question=is_question)
        again = again if says_more else []
        return _go_on_with(held, state, script, again, is_new=is_new, closes=closes)
    if stops:
        return replace(state, asking=None), []
    return _go_on_with_the_form(state, script, is_new=is_new, asks_back=asks_back, closes=closes)


def _opening(
    answers: Sequence[Route],
    state: State,
    script: Mapping[str, str],
    language: str,
    *,
    is_question: bool,
) -> list[str]:
    greeting = [script["greeting"]] if state.language is None else []
    parts: list[str] = []
    for route in answers:
        is_again = bool(route.name == state.answered and route.again)
        again = _again(route, state, script, language, is_question=is_question)
        parts += again if is_again else [route.answer[language]]
    return parts + greeting if answers and answers[0].first else greeting + parts


def _again(
    route: Route, state: State, script: Mapping[str, str], language: str, *, is_question: bool
) -> list[str]:
    """Reply to a later message on a route; promise nothing until staff can be notified."""
    is_told = route.then != "contact" or route.at_once or state.reachable
    if language not in route.again or not is_told:
        return []
    passes = is_question and route.then == "contact" and not route.first
    return [route.again[language], *([script["question_passed"]] if passes else [])]


def _go_on_with(
    route: Route,
    state: State,
    script: Mapping[str, str],
    again: list[str],
    *,
    is_new: bool,
    closes: bool,
) -> tuple[State, list[str]]:
    """Continue on a route, where the only question is for a contact."""
    language = str(state.language)
    times = state.asked.get("contact", 0)
    # Staff know of a topic `at_once`, and can do nothing without a number.
    asks = route.then == "contact" and (route.at_once or times < TIMES_ASKED) and not closes
    if asks and not state.reachable:
        ask = script["ask_contact_for_call"]
        varies = times and route.at_once and not route.first
        ask = ask if varies else route.ask.get(language, ask)
        state, parts = _ask(state, "contact", script, ask, notifies=not route.first)
        return state, (again or [script["heard"]] * (times > 0 and is_new)) + parts
    state = replace(state, asking=None)
    if route.then == "end":
        thanks = again or [script["thanks"]]
        return replace(state, closed=True), thanks if state.closed else []
    if again and (state.closed or not state.reachable):
        return state, again
    told = route.told.get(language, script["passed_on"])
    if state.facts.email is None:
        told = route.told_without_email.get(language, told)
    return _close(state, script, is_new=is_new, told=told)


def _go_on_with_the_form(
    state: State, script: Mapping[str, str], *, is_new: bool, asks_back: bool, closes: bool
) -> tuple[State, list[str]]:
    question = None if closes else _next_question(state)
    if question is not None:
        again = question == "consent" and asks_back
        text = f"ask_{question}"
        if question == "consent" and state.asked.get(question) and not again:
            text = "ask_consent_again"
        return _ask(state, question, script, script[text], counts=not again)
    return _close(replace(state, asking=None), script, is_new=is_new, told=script["closing"])


def _ask(
    state: State,
    question: Question,
    script: Mapping[str, str],
    text: str,
    *,
    counts: bool = True,
    notifies: bool = True,
) -> tuple[State, list[str]]:
    """:param notifies: False in an emergency: the privacy notice follows with the contact"""
    state, parts = _notice(state, script, asks=question == "contact") if notifies else (state, [])
    asked = {**state.asked, question: state.asked.get(question, 0) + counts}
    state = replace(state, asking=question, asked=asked)
    parts.append(text)
    if question == "consent":
        state = replace(state, wording=script["consent_wording"])
        parts = [part for part in parts if part not in script["consent_wording"]]
        parts.append(script["consent_wording"])
    return state, parts


def _notice(state: State, script: Mapping[str, str], *, asks: bool) -> tuple[State, list[str]]:
    """Add the privacy notice (GDPR art. 13) once, when contact data is asked for or was given."""
    if state.noticed or not (asks or state.reachable):
        return state, []
    return replace(state, noticed=True), [script["notice"]]


def _close(
    state: State, script: Mapping[str, str], *, is_new: bool, told: str
) -> tuple[State, list[str]]:
    """Close without promising too much: staff are notified only if the person can be reached."""
    if not state.reachable:
        times = state.asked.get("contact", 0)
        if times > TIMES_ASKED:
            return state, [script["thanks"]]
        asked = {**state.asked, "contact": times + 1} if times == TIMES_ASKED else state.asked
        return replace(state, asked=asked), [script["closing_unreachable"]]
    if state.closed:
        return state, [script["added" if is_new else "thanks"]]
    state, parts = _notice(state, script, asks=False)
    facts = state.facts
    contact = facts.email if facts.phone is None or state.no_calls else facts.phone
    if contact is None and "{contact}" in told:  # only a phone, and the person wants no calls
        told = script["added"]
    return replace(state, closed=True), [told.replace("{contact}", str(contact)), *parts]


def _learn(state: State, heard: Understood, news: Facts, language: str) -> State:
    """Merge new facts. Consent does not carry over to another address; it is asked for again."""
    before = state.facts.email
    barred = heard.barred
    if before and barred == "another" and heard.facts.email:
        news, barred = replace(news, email=None), None  # someone else's; the person's own is known
    facts = state.facts.learn(news)
    if heard.disowns_email:
        facts = replace(facts, email=None)
    email_given = news.email is not None
    # What was said of an address holds for the next one only if that was still to come.
    is_other = email_given and (before is not None or heard.calls_email_own)
    if state.barred == "child" or not (barred or is_other):
        barred = state.barred or barred
    known = replace(
        state, facts=facts, language=language, barred=barred, email_just_given=email_given
    )
    if before and (facts.email or "").lower() != before.lower():
        asked = {name: count for name, count in state.asked.items() if name != "consent"}
        kept = state.consent if state.consent == "refused" else None
        known = replace(known, consent=kept, wording=None, asked=asked)
    return known


def _consent(state: State, heard: Understood, agreed: str | None) -> tuple[State, bool]:
    """Return the new state, and whether the words of this message granted consent."""
    if heard.answer == "no" or (state.barred and state.consent == "given"):
        return replace(state, consent="refused"), False
    undone = state.consent == "refused" and state.granted_to == state.facts.email is not None
    if agreed is not None and not undone and state.barred is None:
        return replace(state, consent="given", wording=agreed), False
    may_agree = state.consent is None and state.wording is not None and state.barred is None
    if heard.answer == "yes" and may_agree:
        return replace(state, consent="given"), True
    return state, False


def _refused_for(state: State) -> str | None:
    return state.facts.email if state.consent == "refused" else None


def _reactions(
    heard: Understood,
    state: State,
    works: tuple[str, ...],
    held: Route | None,
    actions: frozenset[Action],
    *,
    is_answered: bool,
) -> list[str]:
    """Return the names of the texts that answer what is neither a fact nor the route's matter."""
    reaction = _reaction(heard, state, works, is_answered=is_answered)
    calls = held and held.then == "contact" and held.action != "call" and "call" in actions
    return [name for name in (reaction, "call_noted" if calls else None) if name]


def _reaction(
    heard: Understood, state: State, works: tuple[str, ...], *, is_answered: bool
) -> str | None:
    """Return the text that answers what is neither a fact nor a route."""
    if heard.answer == "question":
        return "consent_help"
    if heard.disowns_email and not is_answered:
        return "ask_contact_again"
    is_question = small_talk.asks(heard.rest) and (
        not heard.facts.known() or small_talk.word_count(heard.rest) >= 2
    )
    if is_question and not is_answered:
        if heard.facts.known().keys() == {"wish"} and small_talk.asks_for_works(heard.rest, works):
            return "we_do"
        is_another = any(map(small_talk.asks, state.said[:-1]))
        unreachable = "question_another" if is_another else "question_unreachable"
        return "question" if state.reachable else unreachable
    return None


def _gives_up_on_consent(state: State) -> bool:
    asked = state.asked.get("consent", 0)
    return state.consent is None and state.facts.email is not None and asked >= TIMES_ASKED


def _times(question: Question, state: State) -> int:
    """A person who gave a contact instead of an answer is not asked the same again."""
    return 1 if question in ABOUT_WORKS and state.reachable else TIMES_ASKED


def _next_question(state: State) -> Question | None:
    facts = state.facts
    missing: dict[Question, bool] = {
        "wish": facts.wish is None,
        "area": facts.area is None,
        "budget": facts.budget is None,
        "start": facts.start is None,
        "contact": not state.reachable,
        "consent": facts.email is not None and state.consent is None and state.barred is None,
    }
    return next(
        (
            question
            for question, is_missing in missing.items()
            if is_missing and state.asked.get(question, 0) < _times(question, state)
        ),
        None,
    )
