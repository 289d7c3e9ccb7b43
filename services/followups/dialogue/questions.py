"""What a reply asks next, or how it closes: one question at most, and no promise in vain."""

from services.followups.dialogue.hearing import Heard, may_offer
from services.followups.dialogue.memory import TIMES_ASKED, refuses_contact
from services.followups.dialogue.state import State
from services.followups.dialogue.texts import ABOUT_WORKS, Script
from services.followups.reading import small_talk
from services.followups.reading.routing import Route
from services.followups.rules.fact_texts import describe_phone
from services.followups.rules.facts import NO_FACTS, Question

Reply = tuple[State, list[str]]
"""The state after the reply, and the parts of the reply."""


def go_on(state: State, heard: Heard, script: Script) -> Reply:
    """Continue after what the message itself was answered."""
    if doubt := state.doubt:  # the only question: a yes must not also answer one such as consent
        return state._replace(asking=None), [script["email_doubt"].format(address=doubt)]
    if number := heard.mistyped_phone:
        doubt = script["phone_doubt"].format(number=number)
        return state._replace(asking="contact"), [doubt]
    if heard.held is not None:
        return _held(heard.held, state, heard, script)
    wants_now = heard.offers_consent and state.consent is None
    if state.wants_mails and state.barred is None and (wants_now or not heard.is_about_lead):
        return _on_mails(state, heard, script)
    if not heard.is_about_lead or (heard.is_off_topic and heard.news == NO_FACTS):
        return state._replace(asking=None), []
    return _in_the_form(state, heard, script)


def again(route: Route, state: State, script: Script, language: str, *, asks: bool) -> list[str]:
    """Reply to a later message on a route; promise nothing until staff can be notified."""
    is_told = route.then != "contact" or route.at_once or state.reachable
    if language not in route.again or not is_told:
        return []
    passes = asks and route.then == "contact" and route.topic != "privacy"  # which says by when
    return [route.again[language], *([_passed_on(state, script)] if passes else [])]


def _passed_on(state: State, script: Script) -> str:
    return script["question_kept" if refuses_contact(state) else "question_passed"]


def contact_of(state: State) -> str:
    """Return where we will get in touch, for people to read."""
    facts = state.facts
    by_phone = facts.phone and not (facts.email and state.no_calls)
    return describe_phone(str(facts.phone)) if by_phone else str(facts.email)


def _held(route: Route, state: State, heard: Heard, script: Script) -> Reply:
    """Ask amid a route for a consent to mails that were wished for, else continue on it."""
    is_due = heard.offers_consent or heard.news.email or state.asking == "consent"
    if state.wants_mails and is_due and may_offer(route) and _needs_consent(state, heard):
        return _ask_in_the_form(state, "consent", heard, script)
    state, parts = _on_the_route(route, state, heard, script)
    if heard.offers_consent and state.reachable and state.facts.email is None:
        state, more = _on_mails(state, heard, script)
        parts = [part for part in parts if part != script["thanks"]] + more
    return state, parts


def _on_the_route(route: Route, state: State, heard: Heard, script: Script) -> Reply:
    """Continue on a route, where the only question is for a contact."""
    language = heard.language
    is_said = heard.says and (heard.is_worth_telling or heard.answer is None)
    is_due = not heard.answers and (is_said or route.then == "end")
    later = again(route, state, script, language, asks=heard.is_question) if is_due else []
    times = state.asked.get("contact", 0)
    # Staff know of a topic `at_once`, and can do nothing without a number.
    may_ask = route.then == "contact" and not refuses_contact(state)
    may_ask = may_ask and (route.first or times < TIMES_ASKED or "call" in heard.actions)
    if may_ask and not heard.closes and not state.reachable:
        text = _ask_on(route, times, heard, script)
        state, parts = _ask(state, "contact", script, text, notifies=not route.first)
        # Before staff know, a route that is named again says nothing.
        is_answered = heard.asks_of_record or any(
            each is not route or route.at_once or not times for each in heard.answers
        )
        if not (later or is_answered):
            is_heard = times > 0 and heard.is_worth_telling and heard.says
            name = "question_passed" if heard.is_question else "heard" if is_heard else None
            later = [script[name]] if name else []
        return state, later + parts
    state = state._replace(asking=None)
    if route.then == "end" and language in route.ask and not state.closed:
        return _on_the_end(route, state, heard, script)
    if route.then == "end":
        return state._replace(closed=True), (later or [script["thanks"]]) if state.closed else []
    if state.closed and heard.news.email is not None and language in route.told_without_email:
        later = [route.told[language]]  # they were told that it was missing
    if later and (state.closed or not state.reachable):
        return state, later
    if heard.answers and refuses_contact(state):
        return state, []
    told = route.told.get(language, script["passed_on"])
    if state.facts.email is None:
        told = route.told_without_email.get(language, told)
    state, parts = _close(state, heard, script, told=told)
    if heard.is_question and not heard.answers:
        parts.insert(int(state.reachable), _passed_on(state, script))
    return state, parts


def _on_the_end(route: Route, state: State, heard: Heard, script: Script) -> Reply:
    """Ask which request has ended, and say who knows of it only when someone does."""
    times = state.asked.get("contact", 0)
    if state.reachable:
        return _close(state, heard, script, told=route.told[heard.language])
    if times >= TIMES_ASKED or heard.closes or refuses_contact(state):
        return state, [] if heard.answers else [script["thanks"]]
    return _ask(state, "contact", script, route.ask[heard.language])


def _ask_on(route: Route, times: int, heard: Heard, script: Script) -> str:
    """Return the question for a contact, the second time in other words if there are any."""
    if times and not route.first:
        return script["again_contact"]
    if route.at_once and not route.first and heard.names_place:  # or it asks where that was
        return script["ask_contact_for_call"]
    return route.ask.get(heard.language, script["ask_contact_for_call"])


def _in_the_form(state: State, heard: Heard, script: Script) -> Reply:
    # They were handed over in another language, and a few Polish words start no form.
    is_handed_over = state.closed and state.asked.keys() <= {"handover"} and not heard.news.known()
    is_over = heard.closes or state.asked.get("refused") or is_handed_over
    if heard.offer and not (is_over or heard.answers):
        times = state.asked.get(heard.offer.name, 0)
        asked = {**state.asked, heard.offer.name: times + 1}
        state = state._replace(asking=None, offered=heard.offer.name, asked=asked)
        return state, [heard.offer.answer[heard.language]]
    question = None if is_over else _next_question(state, heard)
    if question is None:
        state = state._replace(asking=None)
        if refuses_contact(state) and not heard.closes and (heard.answers or heard.is_question):
            return state, []
        return _close(state, heard, script, told=script["closing"])
    told: list[str] = []
    if state.reachable and not state.closed:  # first of all, who wrote must know that it arrived
        state, told = _close(state, heard, script, told=script["received"])
    state, parts = _ask_in_the_form(state, question, heard, script)
    # The wording of the consent has the privacy notice in it.
    return state, [part for part in told if part not in parts[-1]] + parts


def _on_mails(state: State, heard: Heard, script: Script) -> Reply:
    """Ask for what a consent to mails needs, and for nothing else."""
    if state.consent is not None or not _may_ask_for_consent(state, heard):
        return state._replace(asking=None), [script["thanks"]]
    if state.facts.email is not None:
        return _ask_in_the_form(state, "consent", heard, script)
    times = state.asked.get("mails", 0)
    if times >= TIMES_ASKED:
        return state._replace(asking=None), [script["thanks"]]
    state = state._replace(asked={**state.asked, "mails": times + 1})
    return _ask(state, "contact", script, script["ask_email"], counts=False)


def _ask_in_the_form(state: State, question: Question, heard: Heard, script: Script) -> Reply:
    times = state.asked.get(question, 0)
    own = next((each.ask for each in heard.answers if heard.language in each.ask), None)
    if question == "contact" and own:
        return _ask(state, question, script, own[heard.language])
    if question == "contact" and heard.defers and not times:
        return _ask(state, question, script, script["ask_contact_to_answer"])
    if question != "consent":
        return _ask(state, question, script, script[f"{'again' if times else 'ask'}_{question}"])
    is_above = state.wording == script["consent_wording"]  # for this address, in this language
    shown = state.asked.get("shown", 0)
    # It was shown twice, or a moment ago, and the answer was another fact: a yes is one to it.
    if is_above and (shown >= TIMES_ASKED or (shown and times and heard.news != NO_FACTS)):
        return _ask(state, question, script, script["ask_consent_short"])
    asks_back = heard.answer == "question" or heard.is_question
    is_early = (heard.offers_consent or state.wants_mails) and "shown" not in state.asked
    again = "ask_consent_early" if is_early else "ask_consent"
    text = script["ask_consent_again" if times and not asks_back else again]
    return _ask(state, question, script, text, counts=not asks_back)


def _ask(
    state: State,
    question: Question,
    script: Script,
    text: str,
    *,
    counts: bool = True,
    notifies: bool = True,
) -> Reply:
    """:param notifies: False in an emergency: the privacy notice follows with the contact"""
    state, parts = _notice(state, script, asks=question == "contact") if notifies else (state, [])
    asked = {**state.asked, question: state.asked.get(question, 0) + counts}
    wording = state.wording
    parts.append(text)
    if question == "consent" and text != script["ask_consent_short"]:
        asked["shown"] = asked.get("shown", 0) + 1
        wording = script["consent_wording"]
        parts = [part for part in parts if part not in script["consent_wording"]]
        parts.append(script["consent_wording"])
    by_email = text == script["ask_email"]
    return state._replace(asking=question, asked=asked, wording=wording, by_email=by_email), parts


def _notice(state: State, script: Script, *, asks: bool) -> Reply:
    """Add the privacy notice (GDPR art. 13) once, when contact data is asked for or was given."""
    if state.noticed or not (asks or state.reachable):
        return state, []
    return state._replace(noticed=True), [script["notice"]]


def _close(state: State, heard: Heard, script: Script, *, told: str) -> Reply:
    """Close without promising too much: staff are notified only if the person can be reached."""
    if not state.reachable:
        times = state.asked.get("contact", 0)
        if times > TIMES_ASKED:
            return state, [script["thanks"]] if heard.closes or heard.news == NO_FACTS else []
        asked = {**state.asked, "contact": times + 1} if times == TIMES_ASKED else state.asked
        return state._replace(asked=asked), [script["closing_unreachable"]]
    if state.closed:
        return state, [script["added" if is_new(heard) else "thanks"]]
    state, parts = _notice(state, script, asks=False)
    is_end = heard.held is not None and heard.held.then == "end"
    if state.facts.email is None and state.no_calls and "{contact}" in told and not is_end:
        told = script["added"]  # only a phone, and the person wants no calls
    return state._replace(closed=True), [told.replace("{contact}", contact_of(state)), *parts]


def is_new(heard: Heard) -> bool:
    """Return whether staff get anything of the message."""
    return heard.is_worth_telling or heard.news != NO_FACTS


def _times(question: Question, state: State, heard: Heard) -> int:
    """A person who gave a contact instead of an answer is not asked the same again, unless this
    message says more about the works.
    """
    if not state.reachable:
        return TIMES_ASKED
    news, message = heard.news, heard.message
    tells = state.asking != "consent" and (
        news.tells_of_works or not (news == NO_FACTS or news.phone or news.email)
    )
    declines = tells and small_talk.speaks_of(question, message) and small_talk.declines(message)
    return TIMES_ASKED if tells and not declines else 1


def _may_ask_for_consent(state: State, heard: Heard) -> bool:
    """Ask twice, and once more after a question about the consent itself."""
    return state.asked.get("consent", 0) < TIMES_ASKED + (heard.answer == "question")


def _needs_consent(state: State, heard: Heard) -> bool:
    is_open = state.facts.email is not None and state.consent is None and state.barred is None
    return is_open and _may_ask_for_consent(state, heard)


def _next_question(state: State, heard: Heard) -> Question | None:
    insists = heard.defers and heard.answers  # only a person can help: the contact comes first
    if insists and not state.reachable and state.asked.get("contact", 0) < TIMES_ASKED:
        return "contact"
    agrees = _needs_consent(state, heard)
    if state.wants_mails and agrees:
        return "consent"
    if state.asked.get("shown", 0) >= TIMES_ASKED and state.wording is None:
        agrees = False  # another address, for which the wording would be shown a third time
    asked = state.asked if state.reachable else {}  # what was not asked yet comes first
    for question in sorted(ABOUT_WORKS, key=lambda each: asked.get(each, 0)):
        is_missing = getattr(state.facts, question) is None
        if is_missing and state.asked.get(question, 0) < _times(question, state, heard):
            return question
    if not state.reachable and state.asked.get("contact", 0) < TIMES_ASKED:
        return "contact"
    return "consent" if agrees else None
