"""The reply in a language that has the form."""

from collections.abc import Sequence

from services.followups.dialogue import questions
from services.followups.dialogue.hearing import Heard
from services.followups.dialogue.memory import (
    TIMES_ASKED,
    gives_up_on_consent,
    refused_for,
    refuses_contact,
)
from services.followups.dialogue.questions import Reply
from services.followups.dialogue.state import State
from services.followups.dialogue.texts import Script
from services.followups.reading import small_talk
from services.followups.reading.routing import Route
from services.followups.rules.fact_texts import describe
from services.followups.rules.facts import NO_FACTS


def reply(
    state: State, before: State, heard: Heard, script: Script, *, agrees: bool, greets: bool
) -> Reply:
    """Answer the message, say what was understood, and ask the next question.

    :param agrees: the words of the message granted consent
    :param greets: False if the page shows the opening
    """
    own = _of_the_firm(heard, script)
    parts = opening(
        heard.answers[:2],
        before,
        script,
        heard.language,
        asks=heard.is_question,
        greets=greets,
        own=own,
    )
    parts += _on_consent(state, before, heard, script, agrees=agrees)
    state, reactions = _reactions(state, heard, script)
    reactions = [each for each in reactions if each not in parts]
    is_answered = parts or reactions or heard.held or heard.asks_of_record or heard.offers_consent
    if (
        heard.is_worth_telling
        and before.asking != "consent"
        and not is_answered
        and heard.news._replace(wish=None) == NO_FACTS
    ):
        reactions.append(script["heard"])
    if script["notice"] in " ".join(parts + reactions):
        state = state._replace(noticed=True)
    if "erasure" in heard.actions:
        state = state._replace(consent="refused")
    rest: list[str] = []
    if script["withdraw_where"] in parts:
        state = state._replace(asking=None)
    else:
        state, rest = questions.go_on(state, heard, script)
    is_left = before.asking == "consent" != state.asking and heard.news == NO_FACTS
    if is_left and gives_up_on_consent(state):
        reactions.append(script["consent_left"])
    if heard.asks_of_record and before.closed:
        rest = []
    is_answered = heard.is_question and all(route.then == "form" for route in heard.answers)
    if heard.answers and before.closed and (heard.held or is_answered):
        rest = [part for part in rest if part not in {script["added"], script["thanks"]}]
    if heard.defers and not heard.answers:  # which says that it is passed on
        rest = [part for part in rest if part != script["added"]]
    noted = _noted(state, heard, script, rest)
    if (hint := heard.understood.district) and "{} ({}?)".format(*hint) in " ".join(noted):
        state = state._replace(city_asked=hint[1])
    return state, [*parts, *noted, *reactions, *rest] or [script["thanks"]]


def opening(
    answers: Sequence[Route],
    before: State,
    script: Script,
    language: str,
    *,
    asks: bool,
    greets: bool = True,
    own: Sequence[str] = (),
) -> list[str]:
    """Return the greeting and the answers of the routes; in an emergency they come first.

    :param greets: False if the page shows the opening
    :param own: what the firm's own facts answer
    """
    parts = list(own)
    for route in sorted(answers, key=lambda each: each.name == before.answered):
        if route.name == before.answered and route.again:
            parts += questions.again(route, before, script, language, asks=asks)
        else:
            parts.append(route.answer[language])
    if before.language is not None or not greets:
        return parts
    if answers and answers[0].first:
        return [*parts, script["greeting_in_emergency"]]
    return [script["greeting"], *parts]


def _of_the_firm(heard: Heard, script: Script) -> list[str]:
    """Answer what the configuration knows of the firm: whether it does this, and where it works."""
    asked = heard.asked
    if not asked.is_answered:
        return []
    ours = [town for town in asked.there if town in asked.towns]
    others = [town for town in asked.there if town not in asked.towns]
    parts = [script["we_do"]] if asked.works else []
    for name, found in (("town_ours", ours), ("town_other", others)):
        parts += [script[name].format(town=", ".join(found))] if found else []
    if asked.towns and not ours and (asked.area or others):
        parts.append(script["our_towns"].format(towns=", ".join(asked.towns)))
    return parts


def refuses(state: State, before: State, heard: Heard) -> bool:
    """Return whether mails are stopped by this message."""
    is_new = before.consent != "refused" and state.consent == "refused"
    is_other = state.consent == "refused" and refused_for(state) != refused_for(before)
    is_other = is_other and not heard.is_about_lead
    return heard.answer == "no" or is_new or is_other


def _on_consent(
    state: State, before: State, heard: Heard, script: Script, *, agrees: bool
) -> list[str]:
    withdrew = state.withdrawn_from is not None and state.withdrawn_from == state.facts.email
    given = "consent_to_confirm" if withdrew else "consent_given"
    parts = [script[given]] if agrees else []
    # An erasure includes the withdrawal; a withdrawal of calls is answered as such.
    is_of_calls = (
        not heard.actions.isdisjoint({"no_calls", "lost"})
        and (state.facts.email, state.facts.phone is None) == (None, False)
        and not small_talk.names_mails(heard.message)
    )
    is_told = before.wants_erasure or is_of_calls or "drop_email" in heard.actions
    if refuses(state, before, heard) and not is_told:
        parts.append(script["withdraw_where" if asks_where(state, heard) else "consent_refused"])
    return parts


def asks_where(state: State, heard: Heard) -> bool:
    """Return whether a withdrawal needs an address: a lead without one must unsubscribe plainly."""
    facts = state.facts
    is_lead = facts.phone is not None or facts.tells_of_works
    return facts.email is None and not (is_lead and not small_talk.unsubscribes(heard.message))


def _noted(state: State, heard: Heard, script: Script, rest: list[str]) -> list[str]:
    """Say what was understood, so that it can be corrected; a contact only once."""
    is_end = heard.held is not None and heard.held.then == "end"
    if is_end or (heard.held is None and not heard.is_about_lead and not state.wants_mails):
        return []
    news = heard.news
    if news.email != state.facts.email:  # another person's
        news = news._replace(email=None)
    if (news.phone or news.email) and questions.contact_of(state) in " ".join(rest):
        is_phone = news.phone and questions.contact_of(state) != news.email
        news = news._replace(phone=None) if is_phone else news._replace(email=None)
    if heard.held and heard.held.first:
        news = news._replace(city=None)
    noted = describe(
        news,
        heard.language,
        budget_from=heard.understood.budget_from,
        area_from=heard.area_from,
    )
    if heard.asks_of_record:
        facts = describe(state.facts, heard.language)
        told = script["record" if state.reachable else "record_none"].format(facts=facts)
        return [told]
    hint = heard.understood.district
    if hint and news.city is None and state.facts.city in {None, "{} ({}?)".format(*hint)}:
        district, city = hint
        asks = "" if state.asking == "consent" else "?"  # a yes would answer both questions
        noted = ", ".join(filter(None, (f"{district} ({city}{asks})", noted)))
    return [script["noted"].format(facts=noted)] if noted else []


def _reactions(state: State, heard: Heard, script: Script) -> Reply:
    """Answer what is neither a fact nor the route's matter."""
    state, reaction = _reaction(state, heard)
    held = heard.held
    calls = held and held.then == "contact" and held.action != "call" and "call" in heard.actions
    whole = "noted_whole" if heard.understood.in_several else None
    past = "start_past" if heard.understood.past_start and heard.is_about_lead else None
    names = (reaction, whole, past, "call_noted" if calls else None)
    return state, [script[name] for name in names if name]


def _reaction(state: State, heard: Heard) -> tuple[State, str | None]:
    understood = heard.understood
    is_answered = bool(heard.answers or heard.held)
    if heard.answer == "question":
        return state, "consent_help"
    if understood.disowns_email and not is_answered:
        return state, "email_struck"
    if state.consent == "refused" and small_talk.asks_for_more_mails(heard.message):
        return state, "no_more_mails"
    if not heard.defers or is_answered or (heard.asked.there and not heard.asked.other):
        return state, None
    return _on_question(state)


def _on_question(state: State) -> tuple[State, str]:
    was_asked = state.asked.get("contact", 0) > TIMES_ASKED  # and is asked no more
    if refuses_contact(state) or (was_asked and not state.reachable):
        return state, "question_kept"
    times = state.asked.get("question", 0)
    state = state._replace(asked={**state.asked, "question": times + 1})
    first = "question" if state.reachable else "question_unreachable"
    return state, "question_another" if times else first
