"""What a message means in its conversation: its facts, its routes, and what else it says."""

import re
from collections.abc import Collection, Sequence
from datetime import date
from typing import NamedTuple

from services.followups.dialogue import firm
from services.followups.dialogue.state import SAID_LENGTH, State
from services.followups.dialogue.taps import Tapped
from services.followups.dialogue.texts import ABOUT_WORKS
from services.followups.reading import (
    Understood,
    addresses,
    amounts,
    area,
    corrections,
    numbers,
    phone,
    place,
    small_talk,
    starts,
    understand,
)
from services.followups.reading.amounts import Amounts
from services.followups.reading.consent_answer import (
    Answer,
    beside_answer,
    consents_in_full,
    offers,
    says_yes,
    takes_back,
)
from services.followups.reading.routing import Action, Route, Routes
from services.followups.rules.facts import NO_FACTS, Facts, Question

_TIMES_OFFERED = 2
_OF_THE_FORM = {*ABOUT_WORKS, "contact"}
_EACH_ROOM = re.compile(r"\bka[żz]d\w{1,3}(?:\s+[^\W\d_]+)?\s+(?:po|ma)\s", re.IGNORECASE)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class Heard(NamedTuple):
    message: str
    words: str
    """Its beginning, as staff get it."""
    understood: Understood
    news: Facts
    """The facts of the message and of the website's fields."""
    answer: Answer | None
    """The meaning for consent."""
    language: str
    """The language of the reply, if it has the form."""
    spoken: str
    """The language the person writes in."""
    held: Route | None
    """The route that holds the conversation from now on."""
    answers: tuple[Route, ...]
    """The routes whose answer is due."""
    actions: frozenset[Action]
    closes: bool
    """A goodbye: ask nothing more."""
    is_about_lead: bool
    is_off_topic: bool
    """Another topic, or a wish not to be asked: there is no question this time."""
    wants_quote: bool
    says: bool
    """It says more than facts and courtesy."""
    is_question: bool
    asks_of_record: bool
    """It asks what is noted of it here."""
    skips: tuple[Question, ...]
    """What it makes needless to ask, as its routes say."""
    asked: firm.Asked
    """Its questions that the firm's own facts answer."""
    defers: bool
    """It asks what only an adviser can answer."""
    offers_consent: bool
    """A wish for mails or a yes to them, before the wording was shown: it grants nothing."""
    is_worth_telling: bool
    """Staff should read these words."""
    is_tap: bool
    area_from: int | None
    """The lower end of a tapped band."""
    offer: Route | None
    """A route that it may mean: it is asked about, not guessed."""

    @property
    def names_place(self) -> bool:
        """It says where the works were."""
        return self.understood.has_ids or place.names_street(self.message)

    @property
    def mistyped_phone(self) -> str | None:
        is_number = self.news.phone or self.news.email or self.news.budget
        return None if is_number else self.understood.phone_piece or phone.mistyped(self.message)

    @property
    def urgent(self) -> list[Route]:
        return [route for route in self.answers if route.first]


def hear(
    state: State,
    message: str,
    *,
    today: date,
    passed: Facts | None,
    works: tuple[str, ...],
    routes: Routes,
    towns: tuple[str, ...],
    given_language: str | None,
    default_language: str,
    forms: Collection[str],
    handovers: Collection[str],
    tap: Tapped | None = None,
) -> Heard:
    """Read a message, or nothing but a tap.

    :param towns: where we work; empty: that is not configured
    :param given_language: that of the website
    :param forms: languages that have the form
    :param handovers: languages in which a person is asked to answer
    """
    if tap is not None:  # it goes on with nothing that was said before
        message, state = "", state._replace(last_said=None, email_just_given=False)
    matched, offers = _routes(routes, state, message, tap)
    joined = _joined(state, message)
    corrected = _corrected(message, state.facts, state.asking)
    understood = _for_all(
        understand(
            joined or message,
            asked=corrected or _asked(state, message, matched),
            language=state.spoken
            or state.language
            or (tap and given_language)  # a tap is in no language but the page's
            or default_language,
            begun=state.language is not None,
            email_just_given=state.email_just_given,
            agreed=state.consent == "given" and state.asking is None,
            today=today,
            works=works,
        ),
        state,
        message,
    )
    if tap is not None:
        understood = understood._replace(
            facts=tap.facts,
            answer=tap.answer,
            budget_from=tap.least if tap.facts.budget else None,
        )
    is_ours = understood.language in forms or understood.language in handovers
    spoken = understood.language if is_ours else default_language
    language = (
        _of_the_form(state, given_language, spoken if spoken in forms else None, matched)
        or default_language
    )
    agrees = state.doubt is not None and says_yes(message, language)
    if understood.has_hours and not any(route.action == "call_times" for route in matched):
        matched = [*matched, *routes.with_action("call_times")]
    offered = _offers(state, message, understood, language)
    matched = _that_count(
        matched, state, message, understood, works, agrees=agrees, offered=offered
    )
    actions = _actions(matched, understood, offered=offered)
    held = _held(routes, matched, state, understood.facts, actions)
    actions |= _of_an_end(held, state, understood.facts)
    if not state.wants_quote and (
        _describes_works(held, matched, understood.facts) or _wanted_works(state, held)
    ):
        matched, actions = [*matched, *routes.with_action("quote")], actions | {"quote"}
    wants_quote = state.wants_quote or ("quote" in actions and held is not None)
    written = _confirmed(understood.facts, state, message, agrees=agrees)
    is_off_topic = any(
        route.then == "nothing" and not (route.lead and understood.facts.tells_of_works)
        for route in matched
    )
    is_of_sales = held is None or held.lead or wants_quote
    news = _news(written, passed, state, only_contact=is_off_topic or not is_of_sales)
    if tap is None:
        news = _that_stand(news, state, message, actions, corrected)
    answers = _answers(matched, held)
    answer = understood.answer
    # `A ile to kosztuje?` is none about consent, nor is a supplier's `wyrażają Państwo zgodę?`
    if answer == "question" and (
        answers
        or (held and held.then == "end" and not held.lead)
        or small_talk.asks_of_works(message, works)
    ):
        answer = None
    # A number that still is not whole goes on in the next message.
    words = (joined if joined and understood.phone_piece else message)[:SAID_LENGTH]
    words = tap.text if tap and tap.route and held and not state.said else words
    # On a route, even a short answer matters: `na piśmie`, `nie mam maila`.
    # So does a single name: `Zabierzów`.
    continues = (
        small_talk.asks_more(message, state.last_said)
        and understood.facts._replace(city=None) == NO_FACTS
    )
    is_question = (
        not small_talk.asks_of_record(message)
        and small_talk.has_words(understood.rest)
        and (continues or small_talk.asks(understood.rest, spoken))
        and not (state.asked and small_talk.answers_itself(message))
    )
    least = 1 if held or is_question or understood.rest[:1].isupper() else 2
    has_limits = not actions.isdisjoint({"call_times", "no_calls"}) or understood.wants_reply_only
    says = understood.has_ids or has_limits or small_talk.says(understood.rest, least=least)
    asked = firm.NOTHING
    if held is None:
        before = state.last_said if continues else None
        has_wish = (state.facts.wish or news.wish) is not None
        asked = firm.asked(message, works, towns, has_wish=has_wish, before=before)
    wishes = offered or ("mails" in actions and state.asking != "consent")
    offers_consent = answer is None and may_offer(held) and wishes
    wants_mails = held is None and (state.wants_mails or "mails" in actions)
    withdraws = held is None and _only_withdraws(state, understood, news, answer)
    is_about_lead = (
        is_of_sales and not withdraws and not (wants_mails and _only_wants_mails(state, news))
    )
    return Heard(
        message=message,
        words=words,
        understood=understood,
        news=news,
        answer=answer,
        language=language,
        spoken=spoken,
        held=held,
        answers=answers,
        actions=actions,
        closes=any(route.then == "close" for route in matched)
        or (held is None and state.asking in _OF_THE_FORM and small_talk.acknowledges(message)),
        is_about_lead=is_about_lead,
        is_off_topic=is_off_topic,
        wants_quote=wants_quote,
        says=says,
        is_question=is_question,
        asks_of_record=small_talk.asks_of_record(message),
        skips=_skips(matched, answers, understood) + (tap.skips if tap else ()),
        asked=asked,
        defers=is_about_lead
        and held is None
        and (
            _only_adviser_can_tell(asked, understood)
            if is_question and answer is None and not answers
            else _insists(state, answers)
        ),
        offers_consent=offers_consent,
        is_worth_telling=bool(tap and words)
        or (
            words != state.last_said
            and not withdraws
            and (says or (news.name is not None and _tells_more(state, news)))
            and (
                answer is None
                or has_limits
                or understood.facts.has_contact
                or (
                    (held is not None or _tells_more(state, news))
                    and _says_more(answer, message, language)
                )
            )
        ),
        is_tap=tap is not None,
        area_from=tap.least if tap and tap.facts.area else None,
        offer=None if held else next(iter(offers), None),
    )


def _routes(
    routes: Routes, state: State, message: str, tap: Tapped | None
) -> tuple[list[Route], list[Route]]:
    """Return the routes that are meant, and those that only offer one."""
    if tap is not None:
        return [tap.route] if tap.route else [], []
    found = routes.find(message, before=_before(state))
    offered = routes.named(state.offered)
    meant = routes.named(offered.offers) if offered else None
    matched = [route for route in found if not route.offers]
    confirms = small_talk.confirms(message) if offered else False
    if meant and confirms:
        return [meant, *(route for route in matched if route is not meant)], []
    offers = [route for route in found if route.offers and route.name not in state.asked]
    if offered and confirms is None and state.asked.get(offered.name, 0) < _TIMES_OFFERED:
        offers.append(offered)
    return matched, offers


def _confirmed(facts: Facts, state: State, message: str, *, agrees: bool) -> Facts:
    """Add the address or the city that the last reply asked about."""
    if agrees:
        facts = facts._replace(email=state.doubt)
    # A yes after another question is to that.
    is_of_city = state.city_asked and not (state.doubt or state.asking == "consent")
    if is_of_city and facts.city is None and small_talk.confirms(message):
        return facts._replace(city=state.city_asked)
    return facts


def _says_more(answer: Answer | None, message: str, language: str) -> bool:
    """Return whether an answer about consent says something else as well, for staff to read."""
    return answer in {"yes", "no"} and any(
        small_talk.says(part) for part in beside_answer(message, language)
    )


def _joined(state: State, message: str) -> str | None:
    """Return the message with the part of its address or number that was given before."""
    given = state.facts.email if state.email_just_given else None
    if given and (whole := addresses.completed(message, given, doubted=bool(state.doubt))):
        return whole
    if state.facts.phone is not None:
        return phone.corrected(state.facts.phone, message, state.asking)
    return phone.joined(state.last_said or "", message, state.asking) if state.last_said else None


def _before(state: State) -> str:
    """Return the previous message, if the conversation may still become a request to staff."""
    facts = state.facts
    is_form = state.route or facts.area or facts.budget or facts.start
    return "" if is_form else state.last_said or ""


def _asked(state: State, message: str, matched: Sequence[Route]) -> Question | None:
    """Return what the message may answer with a bare word or number."""
    if _is_done(state) and (
        _REFUSES.fullmatch(message)
        or (state.wording and (_BARE_NO.fullmatch(message) or consents_in_full(message)))
    ):
        return "consent"
    is_other = state.asking == "wish" and (matched or small_talk.asks(message))
    return None if is_other else state.asking


def _corrected(message: str, facts: Facts, asking: Question | None) -> Question | None:
    """Return which fact `64, nie 46` or `łazienka ma 5, a kuchnia 9` corrects."""
    if numbers.HAS_DIGIT.search(message) and area.corrects_rooms(message):
        return "area"
    if facts.area is None and facts.budget is None:
        return None
    if not numbers.HAS_DIGIT.search(numbers.in_digits(message)):
        return None
    said = amounts.read(message, "corrections")
    new = said.amended()
    if new is not None and (amended := _amended(said, new, facts, asking)):
        return amended
    wrong = corrections.rejected(message)
    if wrong is not None and wrong == facts.area:
        return "area"
    return "budget" if wrong is not None and facts.budget in {wrong, 1000 * wrong} else None


def _amended(said: Amounts, at: int, facts: Facts, asking: Question | None) -> Question | None:
    """Return which fact `jednak 61` replaces: one that was about as large."""
    number, in_metres = said.value(at), said.unit(at) is not None
    may_be_area = facts.area is not None and (in_metres or 0.5 <= number / facts.area <= 2)
    may_be_budget = facts.budget is not None and 0.5 <= 1000 * number / facts.budget <= 2
    if in_metres or not may_be_budget:
        return "area" if may_be_area else None
    return "budget" if not may_be_area or asking == "start" else None  # the budget was said last


def _of_the_form(
    state: State, given: str | None, spoken: str | None, matched: Sequence[Route]
) -> str | None:
    """Return the language of the reply: the website's, but in an emergency the person's."""
    if any(route.first for route in matched):
        given = spoken or given
    return given or spoken or state.language


def _that_count(
    matched: Sequence[Route],
    state: State,
    message: str,
    understood: Understood,
    works: tuple[str, ...],
    *,
    agrees: bool,
    offered: bool,
) -> list[Route]:
    """Leave out a goodbye that says more, an end of the lead that only declines mails, a refusal
    of one contact or its erasure by who gives another, an interest in mails that is one in works,
    and a price on which a consent depends.
    """
    if not matched:
        return []
    is_empty = (
        understood.answer is None
        and understood.facts == NO_FACTS
        and not (agrees or small_talk.says(understood.rest))
    )
    # `Rezygnuję` in answer to the consent question declines consent, not the works.
    declines = understood.answer == "no" and (
        takes_back(message) or (state.asking == "consent" and not small_talk.says(understood.rest))
    )
    gives_contact = understood.facts.email or understood.facts.phone
    is_other = offered or state.asking == "consent"
    names_place = understood.district is not None or understood.facts.city is not None
    answers = state.asking in ABOUT_WORKS and (
        names_place or getattr(understood.facts, state.asking) is not None
    )
    said = "" if "?" in message else message.lower()
    describes = understood.facts.area is not None and small_talk.names_works(message, works)
    accepts = offered or understood.answer == "yes"  # to mails: `maile tak, telefony nie`
    is_replaced = state.facts.phone and understood.facts.phone not in {None, state.facts.phone}
    return [
        route
        for route in matched
        if (is_empty or not route.alone)
        and (not route.asks or small_talk.asks(message))
        and not (route.name == "scope" and (answers or describes))  # `Szczecin, Pogodno, 70 m2`
        and not (declines and route.action == "lost")
        and not (gives_contact and "contact" in route.skips)
        and not (is_replaced and small_talk.is_of_number(message, route.action))
        and not (route.action == "no_calls" and state.wants_call and accepts)
        # `zgodzę się, jak poznam cennik`
        and not ("budget" in route.skips and "wish" not in route.skips and "zgod" in said)
        and not (
            route.action == "mails"
            and (understood.answer or is_other or small_talk.names_works(message, works))
        )
    ]


def _offers(state: State, message: str, understood: Understood, language: str) -> bool:
    """Return whether it agrees to mails of its own accord."""
    if state.asking == "consent":
        return False
    agrees = _is_done(state) and _CONSENTS.search(message) and says_yes(message, language)
    return bool(agrees) or offers(understood.rest, language)


_CONSENTS = re.compile(
    r"\b(?:zg(?:od|adz)|wyra[żz]am|agree|consent|(?:wy|przy)s[ył]|dostawa|s[łl]a[ćc]|[śs]lij|pisa[ćc])",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"(?:nie[\s,]+){1,2}(?:zgadzam(?:y)?\s+si[ęe]|wyra[żz]am|udzielam)(?:dzi[ęe]k\w*+|[śs]licznie|bardzo|prosz[ęe]|[\s,.!])*",
    re.IGNORECASE,
)
"""`Nie, nie zgadzam się, dziękuję`"""
_BARE_NO = re.compile(
    r"(?:(?:to|no|raczej|jednak)\s+)*(?:nie|no)(?:dzi[ęe]k\w*+|bardzo|thank\w*+|you|[\s,.!])*",
    re.IGNORECASE,
)
"""`To nie, dziękuję`: an answer to a consent question that was left open before."""


def _is_done(state: State) -> bool:
    """Return whether nothing is asked: a yes or no may be about mails, which no one asked now."""
    is_over = state.wording or (state.closed and (state.route is None or state.wants_call))
    return bool(is_over) and state.asking is None and state.consent is None


def _actions(
    matched: Sequence[Route], understood: Understood, *, offered: bool
) -> frozenset[Action]:
    actions = frozenset(route.action for route in matched if route.action)
    if "call" not in actions:
        return actions
    by_mail = not understood.facts.phone and not offered and small_talk.by_mail(understood.rest)
    # `proszę o kontakt mailowy`
    return actions - {"call"} if by_mail or "no_calls" in actions else actions


def _of_an_end(held: Route | None, state: State, told: Facts) -> frozenset[Action]:
    """The contact says whose request is over; before it, staff could do nothing."""
    is_new = held and held.action == "lost" and not state.reachable and (told.email or told.phone)
    return frozenset(["lost"]) if is_new else frozenset()


def may_offer(held: Route | None) -> bool:
    """Return whether a yes to mails is followed up on the route: not in an emergency, or amid an
    erasure.
    """
    if held is None:
        return True
    return held.then == "contact" and not held.first and held.topic != "privacy"


def _held(
    routes: Routes,
    matched: Sequence[Route],
    state: State,
    facts: Facts,
    actions: frozenset[Action],
) -> Route | None:
    """Return the route that holds the conversation: the current one, or one that precedes it.

    An ended conversation starts again when a lead gives new facts.
    """
    held = routes.named(state.route)
    if held and held.then == "end":
        # Name, town and contact go with the end that asked: `numer, na który było zapytanie`.
        is_more = facts.tells_of_works if held.ask else facts != NO_FACTS
        if (held.lead and is_more) or "resume" in actions:
            held = None
    new = next((route for route in matched if route.holds), None)
    if new is not None and (held is None or routes.comes_before(new, held)):
        return new
    return held


def _describes_works(held: Route | None, matched: Sequence[Route], facts: Facts) -> bool:
    """Return whether a complaint or the like turns to works: sales are told as well."""
    if held is None or held.lead or held.first or held.then != "contact" or held in matched:
        return False
    postpones = any(route.then == "close" for route in matched)
    return (
        facts.area is not None and not postpones and bool(facts.city or facts.budget or facts.start)
    )


def _wanted_works(state: State, held: Route | None) -> bool:
    """Return whether what sounds like a complaint ends an enquiry that sales do not know yet."""
    facts = state.facts
    is_new = state.route is None and state.lead is None and held and held.topic == "complaint"
    return bool(is_new and facts.area and (facts.budget or facts.start))


def _answers(matched: Sequence[Route], held: Route | None) -> tuple[Route, ...]:
    """Return the routes to answer: in an emergency nothing else, on a route no other one."""

    def is_due(route: Route) -> bool:
        if route.action == "quote" and (held is None or held.lead):  # a lead anyway
            return False
        if route is held or route.holds:
            return route is held
        if held is None or route.first or route.always:
            return True
        is_of_sales = "budget" in route.skips or route.then == "contact_first"
        is_of_form = is_of_sales or (route.skips and held.then == "end")
        return route.lead and not held.first and (held.lead or not (is_of_form or route.asks))

    return tuple(route for route in matched if route.answer and is_due(route))


def _news(written: Facts, passed: Facts | None, state: State, *, only_contact: bool) -> Facts:
    fields = passed.known() if passed else {}
    new = {name: each for name, each in fields.items() if each != getattr(state, f"passed_{name}")}
    news = written.learn(Facts(**new))
    if only_contact:
        return Facts(email=news.email, phone=news.phone, name=news.name, city=news.city)
    return news


def _for_all(understood: Understood, state: State, message: str) -> Understood:
    """Make the budget of each of several flats that of all."""
    if not understood.is_each:
        return understood
    count = amounts.flats(
        " ".join((*state.said, state.last_said or "", state.facts.wish or "", message))
    )
    least, most = understood.budget_from, understood.facts.budget
    facts = understood.facts._replace(budget=most and most * count)
    return understood._replace(facts=facts, budget_from=least and least * count)


def _that_stand(
    news: Facts,
    state: State,
    message: str,
    actions: frozenset[Action],
    corrected: Question | None,
) -> Facts:
    """Leave out what is said of something else: of a visit, a later stage, or other rooms."""
    is_read_again = False
    if news.area and _EACH_ROOM.search(message) and amounts.flats(message) == 1:
        told = " ".join((*state.said, state.last_said or "", state.facts.wish or ""))
        news = news._replace(area=news.area * amounts.flats(told))
    if state.facts.area and corrected is None:
        messages = ". ".join(dict.fromkeys((*state.said, state.last_said or "")))
        earlier = (messages, state.facts.wish or "")
        new = area.with_earlier(earlier, message, state.facts.area, news.area)
        if new != news.area:
            is_read_again, news = True, news._replace(area=new)
    if (news.area or news.budget) and not is_read_again and corrections.adds(message):
        news = _without_parts(news, state.facts)
    known, start = state.facts.start, news.start
    if start is None:
        return news
    calls = not actions.isdisjoint({"call", "call_times"})
    is_visit = calls and _DAY.match(start) and not starts.is_said(message)
    is_later = known and corrections.is_later_stage(message)
    is_weaker = known and starts.of_handover(start) > starts.of_handover(known)
    if is_visit or is_later or is_weaker or corrections.is_aside(message, state.facts.wish or ""):
        return news._replace(start=None)
    return news


def _without_parts(news: Facts, known: Facts) -> Facts:
    """Leave out the area and price of what comes on top: `i jeszcze garaż 36 m2`. Staff read it."""
    return news._replace(
        area=None if known.area else news.area,
        budget=None if known.budget else news.budget,
        currency=None if known.budget else news.currency,
    )


def _only_adviser_can_tell(asked: firm.Asked, understood: Understood) -> bool:
    if asked.is_answered:
        return asked.needs_adviser
    return understood.facts == NO_FACTS or small_talk.word_count(understood.rest) >= 2


def _insists(state: State, answers: Sequence[Route]) -> bool:
    """Return whether only a person can help: a price asked for again, or photos."""
    return any(
        route.then == "contact_first" or ("budget" in route.skips and route.name == state.answered)
        for route in answers
    )


def _skips(
    matched: Sequence[Route], answers: Sequence[Route], understood: Understood
) -> tuple[Question, ...]:
    counting = (route for route in matched if route in answers or not route.answer)
    skips = tuple(question for route in counting for question in route.skips)
    return (*skips, "area") if understood.in_several else skips


def _tells_more(state: State, news: Facts) -> bool:
    """Return whether staff get more than a contact, which alone they are notified of later."""
    is_contact_only = state.facts.is_contact_only and news.is_contact_only
    return not is_contact_only or bool(state.said) or state.wants_call


def _only_wants_mails(state: State, news: Facts) -> bool:
    is_of_works = state.facts.tells_of_works or news.tells_of_works
    return state.lead is None and not state.wants_call and not is_of_works


def _only_withdraws(
    state: State, understood: Understood, news: Facts, answer: Answer | None
) -> bool:
    """Return whether the person wants no mails and has wanted nothing else here."""
    refuses = answer == "no" or state.consent == "refused"
    if understood.wants_reply_only or not refuses or state.asked or state.said:
        return False
    return not (state.facts.tells_of_works or news.tells_of_works)
