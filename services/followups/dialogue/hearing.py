"""What a message or a tap means in its conversation: facts, routes, and what else it says."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Literal, NamedTuple

from services.followups.dialogue import firm
from services.followups.dialogue.state import ABOUT_WORKS, SAID_LENGTH, State
from services.followups.dialogue.taps import Tapped, Taps, only
from services.followups.reading import (
    addresses,
    amounts,
    area,
    consent_answer,
    ids,
    numbers,
    phone,
    small_talk,
    starts,
    understand,
)
from services.followups.reading.consent_answer import Answer, says_yes
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
PARTS: Mapping[OfWorks, tuple[str, ...]] = {
    "area": ("area", "area_from"),
    "budget": ("budget", "currency", "budget_from"),
    "start": ("start",),
}
"""What is known together with a fact."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_CALLS = {"call", "call_times"}
_LIMITS = {"call_times", "call_another", "no_calls"}
_PERSON = Route("person", then="contact")
"""Holds a conversation in a language without a form: a person answers."""


class Heard:
    """One event of a conversation: a message, or a tap, which says nothing but what it stands for.

    It is read in steps, each of which uses what those before it have found.
    """

    def __init__(
        self,
        state: State,
        message: str,
        taps: Taps,
        today: date,
        passed: Facts | None = None,
        given: str | None = None,
        tap: Tapped | None = None,
        hint: Hint = NO_HINT,
    ) -> None:
        """:param passed: the website's own fields
        :param given: the language of the website
        :param hint: taken as read, if the message is unclear
        """
        self.corrects = bool(tap and tap.forgets and getattr(state.facts, tap.forgets))
        """Whether the tap replaces a fact."""
        if tap and tap.forgets:
            state = state._replace(facts=state.facts._replace(**{tap.forgets: None}))
        self.state, self.taps, self.tap = state, taps, tap
        self.message = "" if tap else message
        is_open = state.asking is not None or state.consent is not None
        # A yes or no may be about mails, which no one asked now.
        self._is_done = bool(state.wording or state.closed) and not is_open
        self._match()
        self._understand(today, given)
        self._speak(given)
        self._hold()
        self._answer()
        self._read(passed)
        self._say()
        self._learn(hint, today)
        self._judge()

    def _match(self) -> None:
        """Find the routes that are meant, and those that only offer one."""
        state, routes, facts = self.state, self.taps.routes, self.state.facts
        if self.tap:
            self._found, self._offered = [self.tap.route] if self.tap.route else [], []
            return
        held = routes.named(state.route)
        is_held = held is not None and held.topic != "privacy"  # `Proszę go usunąć` goes on
        is_form = is_held or facts.area or facts.budget or facts.start
        # `Awaria`, by itself or tapped: what happened follows.
        begun = f"{held.words[0]}. " if held and held.first and held.alone else ""
        before, urgent = "" if is_form else state.last_said or "", bool(held and held.first)
        found = routes.find(begun + self.message, before, urgent=urgent)
        if not found and state.answered in {"price", "duration"} and says(self.message, "asks too"):
            found = [each for each in [routes.named(state.answered)] if each]  # `a kuchnia?`
        self._found = [route for route in found if not route.offers]
        # Who has said what they want describes it: `ściany są popękane` does not complain.
        may_offer = [] if is_form or facts.wish else [route for route in found if route.offers]
        self._offered = [route for route in may_offer if route.name not in state.asked]
        if offered := routes.named(state.offered):
            confirms, meant = small_talk.confirms(self.message), routes.named(offered.offers)
            if meant and confirms:
                self._found = [meant, *(each for each in self._found if each is not meant)]
                self._offered = []
            elif confirms is None and state.asked.get(offered.name, 0) < _TIMES_OFFERED:
                self._offered.append(offered)

    # --- Its words --------------------------------------------------------------------------------

    def _understand(self, today: date, given: str | None) -> None:
        state, tap, joined = self.state, self.tap, self._joined()
        self._corrects = self._corrected()
        self.understood = understand(
            joined or self.message,
            asked=self._corrects or self._may_answer(),
            language=state.spoken
            or state.language
            or (tap and given)  # a tap is in no language but the page's
            or self.taps.default_language,
            begun=state.language is not None,
            agreed=state.consent == "given" and state.asking is None,
            today=today,
            works=self.taps.works,
        )
        if tap:
            self.understood = self.understood._replace(facts=tap.facts, answer=tap.answer)
        self._facts = self.understood.facts
        # A piece of a number goes on in the next message.
        self.words = ((self.understood.phone_piece and joined) or self.message)[:SAID_LENGTH]

    def _joined(self) -> str | None:
        """Return the message with the part of its address or number that was given before."""
        state, message, known = self.state, self.message, self.state.facts
        doubted = bool(state.doubt)
        if known.email and (whole := addresses.completed(message, known.email, doubted=doubted)):
            return whole
        if known.phone is not None:
            return phone.corrected(known.phone, message, state.asking)
        return phone.joined(state.last_said, message, state.asking) if state.last_said else None

    def _may_answer(self) -> Question | None:
        """Return what the message may answer with a bare word or number."""
        state, message = self.state, self.message
        if self._is_done:  # the question that was left open may still be answered
            agrees = state.wording and says(message, "ads in_full") and says_yes(message, "pl")
            is_about_it = state.wording or says(message, "agrees itself")
            language = state.language or self.taps.default_language
            if agrees or (is_about_it and consent_answer.says_no(message, language)):
                return "consent"
        is_other = state.asking == "wish" and (self._found or small_talk.asks(message))
        return None if is_other else state.asking

    def _corrected(self) -> Question | None:
        """Return what `64, nie 46` or `jednak 61` corrects: the fact that was about as large."""
        facts, message = self.state.facts, self.message
        thousands = (facts.budget or 0) / 1000
        known: dict[Question, float] = {"area": facts.area or 0, "budget": thousands}
        if not (any(known.values()) and numbers.HAS_DIGIT.search(numbers.in_digits(message))):
            return None
        said = amounts.read(message)
        if self.state.asking == "budget" and any(
            each.unit not in {None, *amounts.AREAS} for each in said.numbers
        ):
            return None  # `100k, 110 tops`
        at = said.amended
        number = None if at is None else said.value(at)
        number = number / 1000 if number and number >= 1000 else number  # `jednak 25 000`
        near = {
            name: abs(value - number)
            for name, value in known.items()
            if number is not None and value / 2 <= number <= value * 2 and value != number
        }
        return min(near, key=lambda name: near[name], default=None)

    def _speak(self, given: str | None) -> None:
        """Find the language the person writes in, and that of the form and of mails."""
        language, texts, default = (
            self.understood.language,
            self.taps.texts,
            self.taps.default_language,
        )
        is_ours = language in texts or language in self.taps.handover
        self.spoken = language if is_ours else default
        spoken = self.spoken if self.spoken in texts else None
        is_urgent = any(route.first for route in self._found)
        first, then = (spoken, given) if is_urgent else (given, spoken)  # the website's
        self.language = first or then or self.state.language or default
        is_about_it = "asks of_it" if self.state.facts.email else "mails of"
        is_yes = self._is_done and says(self.message, is_about_it)
        rest, facts = self.understood.rest, self.state.facts
        # `Wyrażam zgodę`, and nothing else, of who left a number: it is of the call.
        is_of_call = facts.phone and not (facts.email or small_talk.word_count(rest))
        self._agrees_to_mails = self.state.asking != "consent" and bool(
            (is_yes and says_yes(self.message, self.language))
            or (not is_of_call and consent_answer.offers(rest, self.language))
        )

    # --- Its routes -------------------------------------------------------------------------------

    def _is_idle(self, route: Route) -> bool:
        """Return whether it is a goodbye that says more, no question, or a refusal of a contact by
        who gives another.
        """
        read, facts, state = self.understood, self._facts, self.state
        held = self.taps.routes.named(state.route)
        is_more = read.answer or facts != NO_FACTS or small_talk.says(read.rest)
        return bool(
            (route.alone and is_more)
            or (route.then in {"close", "nothing"} and self.puts_off)
            or (route.name == "call_later" and state.asking in ABOUT_WORKS)
            or (route.name == "scope" and facts.tells_of_works)  # `Toruń, ulica Lotto, 70 m2`
            or (route.name == "unsubscribe" and (state.wording or state.facts.tells_of_works))
            or ("contact" in route.skips and (facts.email or facts.phone))
            or (route.asks and not (route.first or small_talk.asks(self.message, read.language)))
            or (route.action == "misread" and not (held and held.first == route.first))
            or self._is_undone(route.action)
        )

    @property
    def puts_off(self) -> bool:
        """Whether it puts the consent off, and not the works: `muszę się zastanowić`."""
        return self.state.asking == "consent" and says(self.message, "postpones yes")

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
                return answer == "no" and (consent_answer.takes_back(self.message) or is_only_no)
            case "drop_email":  # another one replaces it, or it is the only contact
                has_other = state.facts.email is not None or number is None
                return self._facts.email is not None and has_other
            case "drop_phone":
                return bool(is_replaced) or (state.facts.phone is None and number is None)
            case "mails":
                return bool(answer) or is_asked or self._agrees_to_mails
        return False

    def _hold(self) -> None:
        """Find the route that holds the conversation: the current one, or one that precedes it.

        An ended conversation starts again when a lead gives new facts.
        """
        state, facts, routes = self.state, self._facts, self.taps.routes
        hours = routes.with_action("call_times")[:1] if self.understood.has_hours else []
        found = self._found + [route for route in hours if route not in self._found]
        self._matched = [route for route in found if not self._is_idle(route)]
        self.actions = {route.action for route in self._matched if route.action}
        if "no_calls" in self.actions:  # nor do they ask for one: `do not ring me`
            self._matched = [r for r in self._matched if r.topic or r.action not in _CALLS]
        if "call" in self.actions:
            offered = facts.phone or self._agrees_to_mails
            by_mail = not offered and says(self.understood.rest, "by_mail")
            self.actions -= {"call"} if by_mail or "no_calls" in self.actions else set()
        held = None if "misread" in self.actions else routes.named(state.route)
        if held and held.then == "end":
            # Name, town and contact go with the end that asked: `numer, na który było zapytanie`.
            is_more = facts.tells_of_works if held.ask else facts != NO_FACTS
            if (held.lead and is_more) or "resume" in self.actions:
                held = None
        new = next((route for route in self._matched if route.holds), None)
        if new is not None and (held is None or routes.comes_before(new, held)):
            held = new
        self.held = held
        # The contact says whose request is over; before it, staff could do nothing.
        if held and held.action == "lost" and not state.reachable and (facts.email or facts.phone):
            self.actions.add("lost")
        if self._turns_to_works():  # sales are told as well
            self._matched += routes.with_action("quote")
            self.actions.add("quote")
        self.wants_quote = state.wants_quote or ("quote" in self.actions and held is not None)
        self._is_of_sales = held is None or held.lead or self.wants_quote
        if self.tap and self.tap.route and held and not state.said:
            self.words = self.tap.text

    def _turns_to_works(self) -> bool:
        """Return whether a complaint or the like turns to works."""
        held, facts = self.held, self._facts
        is_other = held is not None and held.then == "contact" and not (held.lead or held.first)
        closes = any(route.then == "close" for route in self._matched)
        where = facts.city if held not in self._matched else None  # `łazienka w Łodzi przecieka`
        tells = facts.area is not None and (where or facts.budget or facts.start)
        return is_other and not closes and bool(tells)

    def _answer(self) -> None:
        """Find the routes to answer: in an emergency nothing else, on a route no other one."""
        held, state, tells = self.held, self.state, self._facts.tells_of_works

        def is_due(route: Route) -> bool:
            if route.action == "quote" and (held is None or held.lead):  # a lead anyway
                return False
            if route.holds:
                return route is held
            if held is None or route.first or route.always:
                return True
            is_of_form = "budget" in (*route.skips, *route.later) or route.then == "contact_first"
            is_of_form = is_of_form or route.asks
            return route.lead and not held.first and (held.lead or not is_of_form)

        due = [route for route in self._matched if route.answer and is_due(route)]
        urgent = [route for route in due if route.first]
        # A person answers: the language has no form.
        self.by_person = self.spoken in self.taps.handover and all(
            self.spoken in each.answer for each in urgent
        )
        self.of_reply = self.spoken if self.by_person else self.language
        self.answers = tuple(route for route in due if self.of_reply in route.answer)
        has_texts = held is not None and self.spoken in held.answer
        self.route = _PERSON if self.by_person and not has_texts else held
        is_open = (
            held is None and state.asking in _OF_THE_FORM and not says(self.message, "thanks yes")
        )
        is_read = is_open and small_talk.acknowledges(self.message)  # `super`: the form goes on
        self.closes = any(route.then == "close" for route in self._matched) and not is_read
        # Another topic, or a wish not to be asked: nothing is asked this time.
        self.is_off_topic = any(
            each.then == "nothing" and not (each.lead and tells) for each in self._matched
        )
        counting = (each for each in self._matched if each in due or not each.answer)
        self.skips: tuple[Question, ...] = tuple(q for route in counting for q in route.skips)
        self.skips += self.tap.skips if self.tap else ()
        self.later = tuple(q for route in self.answers for q in route.later)

    # --- Its facts --------------------------------------------------------------------------------

    def _read(self, passed: Facts | None) -> None:
        """Find the facts of the message and of the website's fields of which a rule is sure."""
        state, facts = self.state, self._facts
        if state.doubt and says_yes(self.message, self.language):
            facts = facts._replace(email=state.doubt)
        if facts.budget and not (self.tap or amounts.read(self.message).currency):
            facts = facts._replace(currency=state.facts.currency or facts.currency)
        known, both = state.facts.known().items(), self.understood.either
        either = [each for each in dict.fromkeys(both) if each.known().items() - known]
        if len(either) == 1:  # `sorry 28, 32 to z balkonem`, of who said 32
            facts = facts.learn(either[0])
        fields = passed.known() if passed else {}
        new = {name: each for name, each in fields.items() if each != state.passed.get(name)}
        read = facts.learn(Facts(**new))
        if self.is_off_topic or not self._is_of_sales:
            read = Facts(email=read.email, phone=read.phone, name=read.name, city=read.city)
        less = [name for name in PARTS if not self._may_learn(name, read)]
        self.read = read._replace(**{part: None for name in less for part in PARTS[name]})
        two = [name for name in PARTS if len(either) == 2 and getattr(either[0], name)]
        self.which = next((name for name in two if self._may_learn(name, either[0])), None)
        """The fact of which it says two values."""

    def _may_learn(self, name: OfWorks, read: Facts) -> bool:
        """Return whether a fact of the message counts. A known one changes by a tap, a correction
        or a number within its band. An answer, a word that says so, and a message that says nothing
        else change it too, but not to a part of it: one room, the day of the keys.

        `5 mm na dwóch metrach`, `oglądać 9 grudnia` and `117 tysięcy to za dużo` change nothing.
        """
        known, new = getattr(self.state.facts, name), getattr(read, name)
        if name == "start" and (self._is_done or _DAY.match(new or "")) and self.actions & _CALLS:
            return False  # the day of the call
        if name == "start" != self.state.asking and self.held and says(self.message, "asks when"):
            return False  # `kiedy ktoś zadzwoni, za tydzień?`
        least = getattr(self.state.facts, f"{name}_from", None)
        is_within = None not in {known, new, least} and least <= new <= known
        if self.tap or None in {known, new} or is_within or name == self._corrects:
            return True
        is_part = name == "area" and area.is_of_pieces(self.message)  # staff read it
        if name == "start" and known != "asap":
            is_part = starts.of_handover(new) and not starts.of_handover(known)
        is_said = says(self.message, "changes fact") or says(self.message, f"changes {name}")
        is_meant = name == self.state.asking or is_said or not small_talk.says(self.understood.rest)
        return is_meant and not is_part

    # --- What else it says ------------------------------------------------------------------------

    def _say(self) -> None:
        held, rest, answer = self.held, self.understood.rest, self.understood.answer
        # `A ile to kosztuje?` is none about consent, nor is a supplier's `wyrażają Państwo zgodę?`
        is_of_end = held is not None and held.then == "end" and not held.lead
        is_other = answer == "question" and (self.answers or is_of_end or (held and held.first))
        self.answer: Answer | None = None if is_other else answer
        self.asks_of_record = says(self.message, "asks_of_record")
        is_said = small_talk.says(rest, least=1) and not self.asks_of_record
        asked = rest.lstrip(" ,?")  # `kwiecień? wcześniej nie dam rady` only gives a fact
        self.is_question = bool(is_said and small_talk.asks(asked, self.spoken))
        self.asks_when = self.is_question and says(self.message, "asks when")
        is_other = "call_another" in self.actions  # whom to call is said, without the number
        is_noted = self.read._replace(wish=None) != NO_FACTS
        is_said = is_other or self.is_question or not is_noted
        of = re.sub(r"( ?,)+", ",", rest) if is_other else self.message
        quoted = small_talk.quoted(of, asks=self.is_question) if is_said else None
        times = small_talk.when(self.message) if "call_times" in self.actions else None
        self.quoted = (quoted or "") if times is None else times
        is_limited = self.understood.wants_reply_only
        self._has_limits = is_limited or not self.actions.isdisjoint(_LIMITS)
        # On a route, even `na piśmie` matters, and so does a single name: `Zabierzów`.
        least = 1 if held or self.is_question or rest[:1].isupper() else 2
        is_more = self.understood.has_ids or self._has_limits
        self.says = is_more or small_talk.says(rest, least=least)
        self.asked = firm.NOTHING
        if held is None:
            has_wish = (self.state.facts.wish or self.read.wish) is not None
            works, towns = self.taps.works, self.taps.towns
            self.asked = firm.asked(self.message, works, towns, has_wish=has_wish)
        each = small_talk.questions(self.message) if held is None and self.answer is None else []
        left = [one for one in each if not self._is_answered(one)] if len(each) > 1 else []
        self.left = small_talk.quoted(left[-1], asks=True) if 0 < len(left) < len(each) else None
        self.quoted = self.left or self.quoted
        # A wish for mails or a yes to them, before the wording was shown: it grants nothing.
        wants_mails = self._agrees_to_mails or "mails" in self.actions
        may_offer_here = held is None or may_offer(held)
        self.offers_consent = may_offer_here and self.answer is None and wants_mails

    def _is_answered(self, question: str) -> bool:
        is_of_firm = any(firm.asked(question, self.taps.works, self.taps.towns, has_wish=True))
        return is_of_firm or any(each in self.answers for each in self.taps.routes.find(question))

    def _learn(self, hint: Hint, today: date) -> None:
        """Add what a model read, if no rule knows what the message says."""
        state, read, rest = self.state, self.read, self.understood.rest
        is_read = self.held or self.answers or self.answer or any(self.asked) or self.closes
        self.is_unclear = (
            not (is_read or self.actions or self._offered or self.offers_consent or self.which)
            and self.says
            and read._replace(wish=None) == NO_FACTS
            # A wish is read where none was asked for.
            and (read == NO_FACTS or state.asking in {"area", "budget", "start"})
            and state.asking != "consent"
            and not self.by_person
            and self.understood.barred is None
        )
        self.unclear = rest if self.is_unclear else None
        adds = not (self.is_question and state.facts.wish) or says(self.message, "desires")
        self.news = read if adds else read._replace(wish=None)  # `ile trwa taka łazienka?`
        asks = self._offered
        if self.is_unclear:
            for name, quote in hint.quotes:
                if re.search(rf"(?<!\w){re.escape(quote)}(?!\w)", rest):
                    works = self.taps.works
                    found = understand(quote, today=today, asked=name, works=works).facts
                    self.news = self.news.learn(only(found, name))
            hinted = self.taps.routes.offering(hint.kind)
            asks = asks + [route for route in hinted if route.name not in state.asked]
        self._is_of_works = state.facts.tells_of_works or self.news.tells_of_works
        # `Asap, the shower is broken` only says when.
        is_when = state.asking == "start" and read.start and self._is_of_works
        self.offer = None if self.held or is_when else next(iter(asks), None)
        is_number = self.news.phone or self.news.email or self.news.budget
        piece = self.understood.phone_piece or phone.mistyped(ids.without(self.message, None))
        self.mistyped_phone = None if is_number else piece

    def _judge(self) -> None:
        """Find whom it concerns: sales, an adviser, or staff who read it."""
        state, held = self.state, self.held
        # They want no mails and have wanted nothing else here.
        refuses = self.answer == "no" or state.consent == "refused"
        is_other = held or self.understood.wants_reply_only or state.asked or state.said
        only_withdraws = refuses and not (is_other or self._is_of_works)
        wants_mails = held is None and (state.wants_mails or "mails" in self.actions)
        has_wanted = state.lead or state.wants_call or self._is_of_works
        self.is_about_lead = bool(
            self._is_of_sales and not only_withdraws and (has_wanted or not wants_mails)
        )
        self.defers = self.is_about_lead and held is None and self._is_for_adviser()
        self.is_worth_telling = bool(self.tap and self.words) or (
            not only_withdraws and self.words != state.last_said and self._tells()
        )

    def _is_for_adviser(self) -> bool:
        """Return whether only an adviser can answer, or it insists: on a price, or on photos."""
        if self.is_question and self.answer is None and not self.answers:
            if any(self.asked):
                return bool(self.asked.others) or (self.asked.area and not self.taps.towns)
            return self._facts == NO_FACTS or small_talk.word_count(self.understood.rest) >= 2
        return any(
            route.then == "contact_first" or (route.later and route.name == self.state.answered)
            for route in self.answers
        )

    def _tells(self) -> bool:
        """Return whether it says something that staff should read."""
        state, news = self.state, self.news
        # A contact alone is told later.
        is_contact_only = state.facts.is_contact_only and news.is_contact_only
        tells_more = bool(state.said) or not is_contact_only
        if not (self.says or (news.name is not None and tells_more)):
            return False
        if self.answer is None or self._has_limits or self._facts.has_contact:
            return True
        if (self.held is None and not tells_more) or self.answer == "question":
            return False
        return any(
            small_talk.says(part)
            for part in consent_answer.beside_answer(self.message, self.language)
        )


def may_offer(held: Route) -> bool:
    """Return whether a yes to mails is followed up: not in an emergency, or amid an erasure."""
    return held.then == "contact" and not held.first and held.topic != "privacy"
