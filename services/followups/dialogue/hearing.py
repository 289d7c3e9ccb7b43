"""What a message means in its conversation: its facts, its routes, and what else it says."""

import re
from collections.abc import Collection, Sequence
from copy import copy
from datetime import date
from functools import cached_property

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


class Heard:
    """A message, or nothing but a tap, in its conversation."""

    def __init__(
        self,
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
    ) -> None:
        """:param towns: where we work; empty: that is not configured
        :param given_language: that of the website
        :param forms: languages that have the form
        :param handovers: languages in which a person is asked to answer
        """
        if tap is not None:  # it goes on with nothing that was said before
            message, state = "", state._replace(last_said=None, email_just_given=False)
        self.message, self.tap, self.is_tap = message, tap, tap is not None
        self._state, self._today, self._passed = state, today, passed
        self._works, self._towns, self._routes = works, towns, routes
        self._given, self._default = given_language, default_language
        self._forms, self._handovers = forms, handovers
        self._found, self._offered_routes = self._match()
        self.understood = self._understand()
        self._facts = self.understood.facts
        matched = self._that_count()
        self.held, self.actions = self._hold(matched)
        self._matched = matched
        if self._turns_to_works(matched):  # sales are told as well
            self._matched = [*matched, *routes.with_action("quote")]
            self.actions |= {"quote"}
        self.wants_quote = state.wants_quote or ("quote" in self.actions and self.held is not None)
        self.answers = self._answers()

    # --- Its words --------------------------------------------------------------------------------

    @cached_property
    def _joined(self) -> str | None:
        """The message with the part of its address or number that was given before."""
        state, message = self._state, self.message
        given = state.facts.email if state.email_just_given else None
        if given and (whole := addresses.completed(message, given, doubted=bool(state.doubt))):
            return whole
        if state.facts.phone is not None:
            return phone.corrected(state.facts.phone, message, state.asking)
        before = state.last_said
        return phone.joined(before, message, state.asking) if before else None

    def _understand(self) -> Understood:
        state, tap = self._state, self.tap
        understood = understand(
            self._joined or self.message,
            asked=self._corrected or self._asked(),
            language=state.spoken
            or state.language
            or (tap and self._given)  # a tap is in no language but the page's
            or self._default,
            begun=state.language is not None,
            email_just_given=state.email_just_given,
            agreed=state.consent == "given" and state.asking is None,
            today=self._today,
            works=self._works,
        )
        if understood.is_each:  # the budget of each of several flats is made that of all
            count = amounts.flats(f"{self._said_before} {self.message}")
            least, most = understood.budget_from, understood.facts.budget
            facts = understood.facts._replace(budget=most and most * count)
            understood = understood._replace(facts=facts, budget_from=least and least * count)
        if tap is None:
            return understood
        least = tap.least if tap.facts.budget else None
        return understood._replace(facts=tap.facts, answer=tap.answer, budget_from=least)

    @cached_property
    def _said_before(self) -> str:
        state = self._state
        return " ".join((*state.said, state.last_said or "", state.facts.wish or ""))

    def _asked(self) -> Question | None:
        """Return what the message may answer with a bare word or number."""
        state, message = self._state, self.message
        if self._is_done and (
            _REFUSES.fullmatch(message)
            or (state.wording and (_BARE_NO.fullmatch(message) or consents_in_full(message)))
        ):
            return "consent"
        is_other = state.asking == "wish" and (self._found or small_talk.asks(message))
        return None if is_other else state.asking

    @cached_property
    def _is_done(self) -> bool:
        """Whether nothing is asked: a yes or no may be about mails, which no one asked now."""
        state = self._state
        is_over = state.wording or (state.closed and (state.route is None or state.wants_call))
        return bool(is_over) and state.asking is None and state.consent is None

    @cached_property
    def _corrected(self) -> Question | None:
        """Which fact `64, nie 46` or `łazienka ma 5, a kuchnia 9` corrects."""
        message, facts = self.message, self._state.facts
        if not numbers.HAS_DIGIT.search(numbers.in_digits(message)):
            return None
        if numbers.HAS_DIGIT.search(message) and area.corrects_rooms(message):
            return "area"
        if facts.area is None and facts.budget is None:
            return None
        new = amounts.read(message, "corrections").amended()
        if new is not None and (amended := self._amended(new)):
            return amended
        wrong = corrections.rejected(message)
        if wrong is not None and wrong == facts.area:
            return "area"
        return "budget" if wrong is not None and facts.budget in {wrong, 1000 * wrong} else None

    def _amended(self, at: int) -> Question | None:
        """Return which fact `jednak 61` replaces: one that was about as large."""
        said, facts = amounts.read(self.message, "corrections"), self._state.facts
        number, in_metres = said.value(at), said.unit(at) is not None
        may_be_area = facts.area is not None and (in_metres or 0.5 <= number / facts.area <= 2)
        may_be_budget = facts.budget is not None and 0.5 <= 1000 * number / facts.budget <= 2
        if in_metres or not may_be_budget:
            return "area" if may_be_area else None
        is_last = self._state.asking == "start"  # the budget was said last
        return "budget" if not may_be_area or is_last else None

    @cached_property
    def words(self) -> str:
        """Its beginning, as staff get it. A piece of a number goes on in the next message."""
        if self.tap and self.tap.route and self.held and not self._state.said:
            return self.tap.text
        joined = self._joined if self.understood.phone_piece else None
        return (joined or self.message)[:SAID_LENGTH]

    @cached_property
    def spoken(self) -> str:
        """The language the person writes in."""
        language = self.understood.language
        is_ours = language in self._forms or language in self._handovers
        return language if is_ours else self._default

    @cached_property
    def language(self) -> str:
        """That of the reply, if it has the form: the website's; in an emergency the person's."""
        spoken = self.spoken if self.spoken in self._forms else None
        given = self._given
        if any(route.first for route in self._found):
            given = spoken or given
        return given or spoken or self._state.language or self._default

    # --- Its routes -------------------------------------------------------------------------------

    def _match(self) -> tuple[list[Route], list[Route]]:
        """Return the routes that are meant, and those that only offer one."""
        state, message, tap = self._state, self.message, self.tap
        if tap is not None:
            return [tap.route] if tap.route else [], []
        facts = state.facts
        is_form = state.route or facts.area or facts.budget or facts.start
        found = self._routes.find(message, before="" if is_form else state.last_said or "")
        offered = self._routes.named(state.offered)
        meant = self._routes.named(offered.offers) if offered else None
        matched = [route for route in found if not route.offers]
        confirms = small_talk.confirms(message) if offered else False
        if meant and confirms:
            return [meant, *(route for route in matched if route is not meant)], []
        offers = [route for route in found if route.offers and route.name not in state.asked]
        if offered and confirms is None and state.asked.get(offered.name, 0) < _TIMES_OFFERED:
            offers.append(offered)
        return matched, offers

    @cached_property
    def _agrees(self) -> bool:
        """Whether it agrees to the address that the last reply suggested."""
        return self._state.doubt is not None and says_yes(self.message, self.language)

    @cached_property
    def _agrees_to_mails(self) -> bool:
        """Whether it agrees to mails of its own accord."""
        if self._state.asking == "consent":
            return False
        agrees = self._is_done and _CONSENTS.search(self.message)
        is_yes = bool(agrees) and says_yes(self.message, self.language)
        return is_yes or offers(self.understood.rest, self.language)

    def _that_count(self) -> list[Route]:
        found = self._found
        if self.understood.has_hours and all(each.action != "call_times" for each in found):
            found = [*found, *self._routes.with_action("call_times")]
        return [route for route in found if not self._is_idle(route)]

    def _is_idle(self, route: Route) -> bool:
        """Return whether it is a goodbye that says more, no question, a refusal of a contact by who
        gives another, or a price on which a consent depends.
        """
        message, understood, facts = self.message, self.understood, self._facts
        is_more = understood.answer or facts != NO_FACTS or self._agrees
        if route.alone and (is_more or small_talk.says(understood.rest)):
            return True
        if route.name == "scope" and self._is_ours():
            return True
        if "contact" in route.skips and (facts.email or facts.phone):
            return True
        if "budget" in route.skips and "wish" not in route.skips:  # `zgodzę się, jak poznam cennik`
            return "zgod" in message.lower() and "?" not in message
        return (route.asks and not small_talk.asks(message)) or self._is_undone(route.action)

    def _is_ours(self) -> bool:
        """`Szczecin, Pogodno, 70 m2`"""
        asking, facts = self._state.asking, self._facts
        if facts.area is not None and small_talk.names_works(self.message, self._works):
            return True
        names_place = self.understood.district is not None or facts.city is not None
        return asking in ABOUT_WORKS and (names_place or getattr(facts, str(asking)) is not None)

    def _is_undone(self, action: Action | None) -> bool:
        """Return whether an action is only of mails, or of the number that another replaces."""
        state, answer, phone = self._state, self.understood.answer, self._facts.phone
        is_asked = state.asking == "consent"
        is_replaced = state.facts.phone and phone not in {None, state.facts.phone}
        if is_replaced and small_talk.is_of_number(self.message, action):
            return True
        match action:
            case "lost":  # `Rezygnuję` to the consent question declines consent, not the works
                is_only_no = is_asked and not small_talk.says(self.understood.rest)
                return answer == "no" and (takes_back(self.message) or is_only_no)
            case "no_calls":  # `maile tak, telefony nie`
                return state.wants_call and (self._agrees_to_mails or answer == "yes")
            case "mails":
                is_other = bool(answer) or self._agrees_to_mails or is_asked
                return is_other or small_talk.names_works(self.message, self._works)
        return False

    def _hold(self, matched: Sequence[Route]) -> tuple[Route | None, frozenset[Action]]:
        """Return the route that holds the conversation: the current one, or one that precedes it.

        An ended conversation starts again when a lead gives new facts.
        """
        state, facts = self._state, self._facts
        actions = frozenset(route.action for route in matched if route.action)
        if "call" in actions:
            offered = facts.phone or self._agrees_to_mails
            by_mail = not offered and small_talk.by_mail(self.understood.rest)
            actions -= {"call"} if by_mail or "no_calls" in actions else set()
        held = self._routes.named(state.route)
        if held and held.then == "end":
            # Name, town and contact go with the end that asked: `numer, na który było zapytanie`.
            is_more = facts.tells_of_works if held.ask else facts != NO_FACTS
            if (held.lead and is_more) or "resume" in actions:
                held = None
        new = next((route for route in matched if route.holds), None)
        if new is not None and (held is None or self._routes.comes_before(new, held)):
            held = new
        # The contact says whose request is over; before it, staff could do nothing.
        if held and held.action == "lost" and not state.reachable and (facts.email or facts.phone):
            actions |= {"lost"}
        return held, actions

    def _turns_to_works(self, matched: Sequence[Route]) -> bool:
        """Return whether a complaint or the like turns to works, or ends an enquiry that is new."""
        state, held = self._state, self.held
        if held is None or state.wants_quote:
            return False
        is_new = state.route is None and state.lead is None and held.topic == "complaint"
        if is_new and state.facts.area and (state.facts.budget or state.facts.start):
            return True
        if held.lead or held.first or held.then != "contact" or held in matched:
            return False
        if any(route.then == "close" for route in matched):
            return False
        facts = self._facts
        return facts.area is not None and bool(facts.city or facts.budget or facts.start)

    def _answers(self) -> tuple[Route, ...]:
        """Return the routes to answer: in an emergency nothing else, on a route no other one."""
        held = self.held

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

        return tuple(route for route in self._matched if route.answer and is_due(route))

    @property
    def urgent(self) -> list[Route]:
        return [route for route in self.answers if route.first]

    @cached_property
    def closes(self) -> bool:
        """A goodbye: ask nothing more."""
        is_read = self.held is None and self._state.asking in _OF_THE_FORM
        return any(route.then == "close" for route in self._matched) or (
            is_read and small_talk.acknowledges(self.message)
        )

    @cached_property
    def is_off_topic(self) -> bool:
        """Another topic, or a wish not to be asked: there is no question this time."""
        return any(
            route.then == "nothing" and not (route.lead and self._facts.tells_of_works)
            for route in self._matched
        )

    @cached_property
    def skips(self) -> tuple[Question, ...]:
        """What it makes needless to ask, as its routes say."""
        counting = (each for each in self._matched if each in self.answers or not each.answer)
        skips = tuple(question for route in counting for question in route.skips)
        skips += ("area",) if self.understood.in_several else ()
        return skips + (self.tap.skips if self.tap else ())

    @cached_property
    def offer(self) -> Route | None:
        """A route that it may mean: it is asked about, not guessed."""
        return None if self.held else next(iter(self._offered_routes), None)

    def hinted(self, news: Facts, offer: Route | None) -> "Heard":
        """Return it with what a model read."""
        hinted = copy(self)
        vars(hinted).update(news=news, offer=offer)
        return hinted

    # --- Its facts --------------------------------------------------------------------------------

    @cached_property
    def _is_of_sales(self) -> bool:
        return self.held is None or self.held.lead or self.wants_quote

    @cached_property
    def news(self) -> Facts:
        """The facts of the message and of the website's fields."""
        state = self._state
        fields = self._passed.known() if self._passed else {}
        new = {
            name: each for name, each in fields.items() if each != getattr(state, f"passed_{name}")
        }
        news = self._confirmed().learn(Facts(**new))
        if self.is_off_topic or not self._is_of_sales:
            news = Facts(email=news.email, phone=news.phone, name=news.name, city=news.city)
        return news if self.is_tap else self._that_stand(news)

    def _confirmed(self) -> Facts:
        """Add the address or the city that the last reply asked about."""
        state, facts = self._state, self._facts
        if self._agrees:
            facts = facts._replace(email=state.doubt)
        # A yes after another question is to that.
        is_of_city = state.city_asked and not (state.doubt or state.asking == "consent")
        if is_of_city and facts.city is None and small_talk.confirms(self.message):
            return facts._replace(city=state.city_asked)
        return facts

    def _that_stand(self, news: Facts) -> Facts:
        """Leave out what is said of something else: of a visit, a later stage, or other rooms."""
        message, known = self.message, self._state.facts
        if news.area and _EACH_ROOM.search(message) and amounts.flats(message) == 1:
            news = news._replace(area=news.area * amounts.flats(self._said_before))
        was = news.area
        if known.area and self._corrected is None:
            said = ". ".join(dict.fromkeys((*self._state.said, self._state.last_said or "")))
            earlier = said, known.wish or ""
            news = news._replace(area=area.with_earlier(earlier, message, known.area, was))
        if (news.area or news.budget) and news.area == was and corrections.adds(message):
            # `I jeszcze garaż 36 m2`: staff read it.
            if known.area:
                news = news._replace(area=None)
            if known.budget:
                news = news._replace(budget=None, currency=None)
        is_stale = news.start is not None and self._is_of_another_time(news.start)
        return news._replace(start=None) if is_stale else news

    def _is_of_another_time(self, start: str) -> bool:
        message, known = self.message, self._state.facts
        calls = not self.actions.isdisjoint({"call", "call_times"})
        if calls and _DAY.match(start) and not starts.is_said(message):
            return True
        if known.start and (
            corrections.is_later_stage(message)
            or starts.of_handover(start) > starts.of_handover(known.start)
        ):
            return True
        return corrections.is_aside(message, known.wish or "")

    @property
    def area_from(self) -> int | None:
        """The lower end of a tapped band."""
        return self.tap.least if self.tap and self.tap.facts.area else None

    @property
    def names_place(self) -> bool:
        """It says where the works were."""
        return self.understood.has_ids or place.names_street(self.message)

    @property
    def mistyped_phone(self) -> str | None:
        is_number = self.news.phone or self.news.email or self.news.budget
        return None if is_number else self.understood.phone_piece or phone.mistyped(self.message)

    # --- What else it says ------------------------------------------------------------------------

    @cached_property
    def answer(self) -> Answer | None:
        """The meaning for consent.

        `A ile to kosztuje?` is none about consent, nor is a supplier's `wyrażają Państwo zgodę?`
        """
        answer, held = self.understood.answer, self.held
        is_other = answer == "question" and (
            self.answers
            or (held and held.then == "end" and not held.lead)
            or small_talk.asks_of_works(self.message, self._works)
        )
        return None if is_other else answer

    @cached_property
    def _continues(self) -> bool:
        """Whether a few words continue the question before."""
        is_more = small_talk.asks_more(self.message, self._state.last_said)
        return is_more and self._facts._replace(city=None) == NO_FACTS

    @cached_property
    def asks_of_record(self) -> bool:
        """It asks what is noted of it here."""
        return small_talk.asks_of_record(self.message)

    @cached_property
    def is_question(self) -> bool:
        rest = self.understood.rest
        return (
            not self.asks_of_record
            and small_talk.has_words(rest)
            and (self._continues or small_talk.asks(rest, self.spoken))
            and not (self._state.asked and small_talk.answers_itself(self.message))
        )

    @cached_property
    def _has_limits(self) -> bool:
        is_limited = not self.actions.isdisjoint({"call_times", "no_calls"})
        return is_limited or self.understood.wants_reply_only

    @cached_property
    def says(self) -> bool:
        """It says more than facts and courtesy.

        On a route, even `na piśmie` matters, and so does a single name: `Zabierzów`.
        """
        rest = self.understood.rest
        least = 1 if self.held or self.is_question or rest[:1].isupper() else 2
        is_more = self.understood.has_ids or self._has_limits
        return is_more or small_talk.says(rest, least=least)

    @cached_property
    def asked(self) -> firm.Asked:
        """Its questions that the firm's own facts answer."""
        if self.held is not None:
            return firm.NOTHING
        before = self._state.last_said if self._continues else None
        has_wish = (self._state.facts.wish or self.news.wish) is not None
        return firm.asked(self.message, self._works, self._towns, has_wish=has_wish, before=before)

    @cached_property
    def offers_consent(self) -> bool:
        """A wish for mails or a yes to them, before the wording was shown: it grants nothing."""
        if self.held and not may_offer(self.held):
            return False
        wishes = "mails" in self.actions and self._state.asking != "consent"
        return self.answer is None and (self._agrees_to_mails or wishes)

    @cached_property
    def _only_withdraws(self) -> bool:
        """Whether the person wants no mails and has wanted nothing else here."""
        state = self._state
        refuses = self.answer == "no" or state.consent == "refused"
        if (
            self.held
            or self.understood.wants_reply_only
            or not refuses
            or state.asked
            or state.said
        ):
            return False
        return not (state.facts.tells_of_works or self.news.tells_of_works)

    @cached_property
    def is_about_lead(self) -> bool:
        state = self._state
        wants_mails = self.held is None and (state.wants_mails or "mails" in self.actions)
        is_of_works = state.facts.tells_of_works or self.news.tells_of_works
        only_mails = wants_mails and state.lead is None and not (state.wants_call or is_of_works)
        return self._is_of_sales and not self._only_withdraws and not only_mails

    @cached_property
    def defers(self) -> bool:
        """It asks what only an adviser can answer, or insists: on a price, or on photos."""
        if not self.is_about_lead or self.held is not None:
            return False
        if self.is_question and self.answer is None and not self.answers:
            if self.asked.is_answered:
                return self.asked.needs_adviser
            return self._facts == NO_FACTS or small_talk.word_count(self.understood.rest) >= 2
        return any(
            route.then == "contact_first"
            or ("budget" in route.skips and route.name == self._state.answered)
            for route in self.answers
        )

    @cached_property
    def _tells_more(self) -> bool:
        """Whether staff get more than a contact, which alone they are notified of later."""
        state = self._state
        is_contact_only = state.facts.is_contact_only and self.news.is_contact_only
        return not is_contact_only or bool(state.said) or state.wants_call

    @cached_property
    def is_worth_telling(self) -> bool:
        """Staff should read these words."""
        if self.is_tap and self.words:
            return True
        says = self.says or (self.news.name is not None and self._tells_more)
        if self.words == self._state.last_said or self._only_withdraws or not says:
            return False
        if self.answer is None or self._has_limits or self._facts.has_contact:
            return True
        if (self.held is None and not self._tells_more) or self.answer == "question":
            return False
        beside = beside_answer(self.message, self.language)
        return any(small_talk.says(part) for part in beside)


def may_offer(held: Route) -> bool:
    """Return whether a yes to mails is followed up: not in an emergency, or amid an erasure."""
    return held.then == "contact" and not held.first and held.topic != "privacy"
