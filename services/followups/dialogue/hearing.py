"""What a message means in its conversation: its facts, its routes, and what else it says."""

import re
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Literal, NamedTuple

from services.followups.dialogue import firm
from services.followups.dialogue.state import ABOUT_WORKS, SAID_LENGTH, State
from services.followups.dialogue.taps import Tapped, Taps, only
from services.followups.reading import (
    Understood,
    addresses,
    amounts,
    area,
    numbers,
    phone,
    small_talk,
    starts,
    understand,
)
from services.followups.reading.consent_answer import (
    Answer,
    beside_answer,
    offers,
    says_no,
    says_yes,
    takes_back,
)
from services.followups.reading.phrases import fold
from services.followups.reading.routing import Action, Route
from services.followups.reading.speech import says
from services.followups.rules.facts import NO_FACTS, Facts, Question

OfWorks = Literal["wish", "area", "budget", "start"]


class Hint(NamedTuple):
    """What a model read in a message of which no rule is sure (decision 62): none of it is known.

    It is asked neither for a contact nor for consent. A fact is what our own reader finds in the
    words that it quotes, and a kind is only asked about.
    """

    kind: str | None = None
    """The name of a route that may be meant."""
    quotes: tuple[tuple[OfWorks, str], ...] = ()
    """Names of facts, each with the words of the message that say it."""


NO_HINT = Hint()
_TIMES_OFFERED = 2
_OF_THE_FORM = {*ABOUT_WORKS, "contact"}
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_PERSON = Route("person", then="contact")
"""Holds a conversation in a language without a form: a person answers."""


@dataclass(eq=False)
class Heard:
    """A message, or nothing but a tap, in its conversation."""

    state: State
    message: str
    taps: Taps
    today: date
    passed: Facts | None
    """The website's own fields."""
    given: str | None
    """The language of the website."""
    tap: Tapped | None = None
    hint: Hint = NO_HINT
    """If the message is unclear, it is taken as read."""

    def __post_init__(self) -> None:
        routes = self.taps.routes
        if self.tap is not None:
            self.message = ""
        self._found, self._offered_routes = self._match()
        self.understood = self._understand()
        self._facts = self.understood.facts
        hours = routes.with_action("call_times") if self.understood.has_hours else []
        found = self._found + [route for route in hours if route not in self._found]
        self._matched = [route for route in found if not self._is_idle(route)]
        self.held, self.actions = self._hold()
        if self._turns_to_works():  # sales are told as well
            self._matched += routes.with_action("quote")
            self.actions |= {"quote"}
        is_for_sales = "quote" in self.actions and self.held is not None
        self.wants_quote = self.state.wants_quote or is_for_sales
        self.answers = self._answers()

    # --- Its words --------------------------------------------------------------------------------

    @cached_property
    def _joined(self) -> str | None:
        """The message with the part of its address or number that was given before."""
        state, message, known = self.state, self.message, self.state.facts
        doubted = bool(state.doubt)
        if known.email and (whole := addresses.completed(message, known.email, doubted=doubted)):
            return whole
        if known.phone is not None:
            return phone.corrected(known.phone, message, state.asking)
        before = state.last_said
        return phone.joined(before, message, state.asking) if before else None

    def _understand(self) -> Understood:
        state, tap = self.state, self.tap
        understood = understand(
            self._joined or self.message,
            asked=self._corrected or self._asked(),
            language=state.spoken
            or state.language
            or (tap and self.given)  # a tap is in no language but the page's
            or self.taps.default_language,
            begun=state.language is not None,
            agreed=state.consent == "given" and state.asking is None,
            today=self.today,
            works=self.taps.works,
        )
        if tap is not None:
            return understood._replace(facts=tap.facts, answer=tap.answer)
        return understood

    def _asked(self) -> Question | None:
        """Return what the message may answer with a bare word or number."""
        state, message = self.state, self.message
        if self._is_done:  # the question that was left open may still be answered
            refuses = says_no(message, state.language or self.taps.default_language)
            if refuses and (state.wording or says(message, "agrees itself")):
                return "consent"
            if state.wording and self._consents_in_full:
                return "consent"
        is_other = state.asking == "wish" and (self._found or small_talk.asks(message))
        return None if is_other else state.asking

    @property
    def _consents_in_full(self) -> bool:
        return says(self.message, "ads in_full") and says_yes(self.message, "pl")

    @property
    def _is_done(self) -> bool:
        """Whether nothing is asked: a yes or no may be about mails, which no one asked now."""
        state = self.state
        is_open = state.asking is not None or state.consent is not None
        return bool(state.wording or state.closed) and not is_open

    @cached_property
    def _corrected(self) -> Question | None:
        """Which fact `64, nie 46` or `jednak 61` corrects: the one that was about as large."""
        facts = self.state.facts
        thousands = (facts.budget or 0) / 1000
        known: dict[Question, float] = {"area": facts.area or 0, "budget": thousands}
        if not (any(known.values()) and numbers.HAS_DIGIT.search(numbers.in_digits(self.message))):
            return None
        said = amounts.read(self.message)
        at = said.amended()
        number = amounts.rejected(self.message) if at is None else said.value(at)
        near = {
            name: abs(value - number)
            for name, value in known.items()
            if number is not None and value / 2 <= number <= value * 2
        }
        return min(near, key=lambda name: near[name], default=None)

    @cached_property
    def words(self) -> str:
        """Its beginning, as staff get it. A piece of a number goes on in the next message."""
        if self.tap and self.tap.route and self.held and not self.state.said:
            return self.tap.text
        joined = self._joined if self.understood.phone_piece else None
        return (joined or self.message)[:SAID_LENGTH]

    @property
    def spoken(self) -> str:
        """The language the person writes in."""
        language = self.understood.language
        is_ours = language in self.taps.texts or language in self.taps.handover
        return language if is_ours else self.taps.default_language

    @cached_property
    def language(self) -> str:
        """That of the form and of mails: the website's; in an emergency the person's."""
        spoken = self.spoken if self.spoken in self.taps.texts else None
        is_urgent = any(route.first for route in self._found)
        first, then = (spoken, self.given) if is_urgent else (self.given, spoken)
        return first or then or self.state.language or self.taps.default_language

    @cached_property
    def by_person(self) -> bool:
        """Whether a person answers, as there is no form in the language."""
        spoken, urgent = self.spoken, [route for route in self.answers if route.first]
        return spoken in self.taps.handover and all(spoken in each.answer for each in urgent)

    @property
    def of_reply(self) -> str:
        """The language of the reply."""
        return self.spoken if self.by_person else self.language

    # --- Its routes -------------------------------------------------------------------------------

    def _match(self) -> tuple[list[Route], list[Route]]:
        """Return the routes that are meant, and those that only offer one."""
        state, message, tap, routes = self.state, self.message, self.tap, self.taps.routes
        if tap is not None:
            return [tap.route] if tap.route else [], []
        facts = state.facts
        is_form = state.route or facts.area or facts.budget or facts.start
        found = routes.find(message, before="" if is_form else state.last_said or "")
        matched = [route for route in found if not route.offers]
        offers = [route for route in found if route.offers and route.name not in state.asked]
        if offered := routes.named(state.offered):
            confirms, meant = small_talk.confirms(message), routes.named(offered.offers)
            if meant and confirms:
                return [meant, *(route for route in matched if route is not meant)], []
            if confirms is None and state.asked.get(offered.name, 0) < _TIMES_OFFERED:
                offers.append(offered)
        return matched, offers

    @property
    def route(self) -> Route | None:
        """The route that the reply follows: a person's where the held one has no texts."""
        held = self.held
        return _PERSON if self.by_person and not (held and self.spoken in held.answer) else held

    @cached_property
    def _agrees_to_mails(self) -> bool:
        """Whether it agrees to mails of its own accord."""
        if self.state.asking == "consent":
            return False
        agrees = self._is_done and says(self.message, "asks of_it")
        is_yes = agrees and says_yes(self.message, self.language)
        return is_yes or offers(self.understood.rest, self.language)

    def _is_idle(self, route: Route) -> bool:
        """Return whether it is a goodbye that says more, no question, or a refusal of a contact by
        who gives another.
        """
        understood, facts = self.understood, self._facts
        is_more = understood.answer or facts != NO_FACTS or small_talk.says(understood.rest)
        return bool(
            (route.alone and is_more)
            or (route.name == "scope" and facts.tells_of_works)  # `Toruń, ulica Lotto, 70 m2`
            or ("contact" in route.skips and (facts.email or facts.phone))
            or (route.asks and not small_talk.asks(self.message))
            or self._is_undone(route.action)
        )

    def _is_undone(self, action: Action | None) -> bool:
        """Return whether an action is only of mails, or of the number that another replaces."""
        state, answer, number = self.state, self.understood.answer, self._facts.phone
        is_asked = state.asking == "consent"
        is_replaced = state.facts.phone and number not in {None, state.facts.phone}
        if is_replaced and says(self.message, f"only_number_{action}"):
            return True
        match action:
            case "lost":  # `Rezygnuję` to the consent question declines consent, not the works
                is_only_no = is_asked and not small_talk.says(self.understood.rest)
                return answer == "no" and (takes_back(self.message) or is_only_no)
            case "drop_email":  # another one replaces it, or it is the only contact
                has_other = state.facts.email is not None or number is None
                return self._facts.email is not None and has_other
            case "mails":
                return bool(answer) or is_asked or self._agrees_to_mails
        return False

    def _hold(self) -> tuple[Route | None, frozenset[Action]]:
        """Return the route that holds the conversation: the current one, or one that precedes it.

        An ended conversation starts again when a lead gives new facts.
        """
        state, facts, routes = self.state, self._facts, self.taps.routes
        actions = frozenset(route.action for route in self._matched if route.action)
        if "call" in actions:
            offered = facts.phone or self._agrees_to_mails
            by_mail = not offered and says(self.understood.rest, "by_mail")
            actions -= {"call"} if by_mail or "no_calls" in actions else set()
        held = routes.named(state.route)
        if held and held.then == "end":
            # Name, town and contact go with the end that asked: `numer, na który było zapytanie`.
            is_more = facts.tells_of_works if held.ask else facts != NO_FACTS
            if (held.lead and is_more) or "resume" in actions:
                held = None
        new = next((route for route in self._matched if route.holds), None)
        if new is not None and (held is None or routes.comes_before(new, held)):
            held = new
        # The contact says whose request is over; before it, staff could do nothing.
        if held and held.action == "lost" and not state.reachable and (facts.email or facts.phone):
            actions |= {"lost"}
        return held, actions

    def _turns_to_works(self) -> bool:
        """Return whether a complaint or the like turns to works."""
        held, facts = self.held, self._facts
        is_other = held is not None and held.then == "contact" and not (held.lead or held.first)
        closes = any(route.then == "close" for route in self._matched)
        tells = facts.area is not None and (facts.city or facts.budget or facts.start)
        return is_other and not closes and bool(tells)

    def _answers(self) -> tuple[Route, ...]:
        """Return the routes to answer: in an emergency nothing else, on a route no other one."""
        held = self.held

        def is_due(route: Route) -> bool:
            if route.action == "quote" and (held is None or held.lead):  # a lead anyway
                return False
            if route.holds:
                return route is held
            if held is None or route.first or route.always:
                return True
            is_of_form = "budget" in route.skips or route.then == "contact_first" or route.asks
            return route.lead and not held.first and (held.lead or not is_of_form)

        return tuple(route for route in self._matched if route.answer and is_due(route))

    @cached_property
    def closes(self) -> bool:
        """A goodbye: ask nothing more."""
        is_read = self.held is None and self.state.asking in _OF_THE_FORM
        return any(route.then == "close" for route in self._matched) or (
            is_read and small_talk.acknowledges(self.message)
        )

    @cached_property
    def is_off_topic(self) -> bool:
        """Another topic, or a wish not to be asked: there is no question this time."""
        tells = self._facts.tells_of_works
        return any(each.then == "nothing" and not (each.lead and tells) for each in self._matched)

    @cached_property
    def skips(self) -> tuple[Question, ...]:
        """What it makes needless to ask, as its routes say."""
        counting = (each for each in self._matched if each in self.answers or not each.answer)
        skips = tuple(question for route in counting for question in route.skips)
        return skips + (self.tap.skips if self.tap else ())

    @cached_property
    def offer(self) -> Route | None:
        """A route that it may mean: it is asked about, not guessed; `asap, the shower is broken`
        only says when.
        """
        kind = self.hint.kind if self.is_unclear else None
        hinted = self.taps.routes.offering(kind) if kind else []
        asks = [route for route in hinted if route.name not in self.state.asked]
        is_answer = self.state.asking == "start" and self.read.start and self._is_of_works
        return None if self.held or is_answer else next(iter(self._offered_routes + asks), None)

    @cached_property
    def is_unclear(self) -> bool:
        """Whether the message says something, and no rule knows what."""
        asking, read = self.state.asking, self.read
        is_read = self.held or self.answers or self.answer or any(self.asked) or self.closes
        return (
            not (is_read or self.actions or self._offered_routes or self.offers_consent)
            and self.says
            and read._replace(wish=None) == NO_FACTS
            # A wish is read where none was asked for.
            and (read == NO_FACTS or asking in {"area", "budget", "start"})
            and asking != "consent"
            and not self.by_person
            and self.understood.barred is None
        )

    @property
    def unclear(self) -> str | None:
        """The message, if no rule knows what it says: a model may."""
        return self.understood.rest if self.is_unclear else None

    # --- Its facts --------------------------------------------------------------------------------

    @property
    def _is_of_sales(self) -> bool:
        return self.held is None or self.held.lead or self.wants_quote

    @cached_property
    def news(self) -> Facts:
        """The facts of the message and of the website's fields."""
        news = self.read
        for name, quote in self.hint.quotes if self.is_unclear else ():
            if re.search(rf"(?<!\w){re.escape(quote)}(?!\w)", self.understood.rest):
                works = self.taps.works
                found = understand(quote, today=self.today, asked=name, works=works).facts
                news = news.learn(only(found, name))
        return news

    @cached_property
    def read(self) -> Facts:
        """Those of which a rule is sure."""
        state, facts = self.state, self._facts
        if state.doubt and says_yes(self.message, self.language):
            facts = facts._replace(email=state.doubt)
        fields = self.passed.known() if self.passed else {}
        new = {name: each for name, each in fields.items() if each != state.passed.get(name)}
        news = facts.learn(Facts(**new))
        if self.is_off_topic or not self._is_of_sales:
            news = Facts(email=news.email, phone=news.phone, name=news.name, city=news.city)
        if state.facts.area and self._corrected is None and area.is_of_pieces(self.message):
            news = news._replace(area=None, area_from=None)  # staff read it
        return news._replace(start=None) if self._is_of_another_time(news.start or "") else news

    def _is_of_another_time(self, start: str) -> bool:
        """Return whether a start is perhaps the day of the call, or that of the keys."""
        known = self.state.facts.start
        if _DAY.match(start) and not self.actions.isdisjoint({"call", "call_times"}):
            return True
        return bool(known) and starts.of_handover(start) and not starts.of_handover(str(known))

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
            self.answers or (held and held.then == "end" and not held.lead)
        )
        return None if is_other else answer

    @cached_property
    def asks_of_record(self) -> bool:
        """It asks what is noted of it here."""
        return says(self.message, "asks_of_record")

    @cached_property
    def is_question(self) -> bool:
        return (
            not self.asks_of_record
            and bool(fold(self.understood.rest))
            and small_talk.asks(self.understood.rest, self.spoken)
        )

    @property
    def _has_limits(self) -> bool:
        is_limited = not self.actions.isdisjoint({"call_times", "call_another", "no_calls"})
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
        has_wish = (self.state.facts.wish or self.read.wish) is not None
        return firm.asked(self.message, self.taps.works, self.taps.towns, has_wish=has_wish)

    @property
    def offers_consent(self) -> bool:
        """A wish for mails or a yes to them, before the wording was shown: it grants nothing."""
        if self.held and not may_offer(self.held):
            return False
        return self.answer is None and (self._agrees_to_mails or "mails" in self.actions)

    @property
    def _is_of_works(self) -> bool:
        return self.state.facts.tells_of_works or self.news.tells_of_works

    @property
    def _only_withdraws(self) -> bool:
        """Whether the person wants no mails and has wanted nothing else here."""
        state = self.state
        refuses = self.answer == "no" or state.consent == "refused"
        is_other = self.held or self.understood.wants_reply_only or state.asked or state.said
        return refuses and not (is_other or self._is_of_works)

    @cached_property
    def is_about_lead(self) -> bool:
        """False while the conversation does not concern sales."""
        state = self.state
        wants_mails = self.held is None and (state.wants_mails or "mails" in self.actions)
        is_other = state.lead or state.wants_call or self._is_of_works
        return (
            self._is_of_sales and not self._only_withdraws and (bool(is_other) or not wants_mails)
        )

    @cached_property
    def defers(self) -> bool:
        """It asks what only an adviser can answer, or insists: on a price, or on photos."""
        if not self.is_about_lead or self.held is not None:
            return False
        if self.is_question and self.answer is None and not self.answers:
            if any(self.asked):
                return bool(self.asked.others) or (self.asked.area and not self.taps.towns)
            return self._facts == NO_FACTS or small_talk.word_count(self.understood.rest) >= 2
        return any(
            route.then == "contact_first"
            or ("budget" in route.skips and route.name == self.state.answered)
            for route in self.answers
        )

    @cached_property
    def is_worth_telling(self) -> bool:
        """Staff should read these words."""
        state = self.state
        if self.tap and self.words:
            return True
        # A contact alone is told later.
        tells_more = bool(state.said) or not (
            state.facts.is_contact_only and self.news.is_contact_only
        )
        says = self.says or (self.news.name is not None and tells_more)
        if self.words == state.last_said or self._only_withdraws or not says:
            return False
        if self.answer is None or self._has_limits or self._facts.has_contact:
            return True
        if (self.held is None and not tells_more) or self.answer == "question":
            return False
        beside = beside_answer(self.message, self.language)
        return any(small_talk.says(part) for part in beside)


def may_offer(held: Route) -> bool:
    """Return whether a yes to mails is followed up: not in an emergency, or amid an erasure."""
    return held.then == "contact" and not held.first and held.topic != "privacy"
