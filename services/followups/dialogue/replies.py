"""The reply: answers to the message, what was understood, and one question at most.

It promises nothing in vain. A text that a language does not have is not said.
"""

from typing import Any

from services.followups.dialogue import firm
from services.followups.dialogue.hearing import Heard, may_offer
from services.followups.dialogue.memory import (
    TIMES_ASKED,
    gives_up_on_consent,
    refused_for,
    refuses_contact,
)
from services.followups.dialogue.state import ABOUT_WORKS, Script, State
from services.followups.dialogue.taps import digest
from services.followups.reading import small_talk
from services.followups.reading.routing import Route
from services.followups.reading.speech import says
from services.followups.rules.fact_texts import describe, describe_phone, filled
from services.followups.rules.facts import NO_FACTS, Facts, Question

_FAR = 3
_SKIPPED = 2


class Reply:
    def __init__(self, state: State, heard: Heard, script: Script) -> None:
        """:param state: after the message; `self.state` is after the reply"""
        self.state = state._replace(asking=None, by_email=False)
        self.before = heard.state
        self.heard, self.script = heard, script
        self.notice: list[str] = []

    def text(self, *, agrees: bool, greets: bool) -> str:
        parts = dict.fromkeys(self.parts(agrees=agrees, greets=greets))
        # What is new is said as it is noted.
        contact = _contact_of(self.before._replace(call_time=self.state.call_time))
        area, said = self.state.facts.area, {"said": self.heard.quoted, "contact": contact}
        lists = [each for each in ("prices", "durations") if f"{{{each}}}" in " ".join(parts)]
        given: dict[str, str | None] = {**said, **{one: self._listed(one, area) for one in lists}}
        at_their_hour = not self.heard.is_question and small_talk.when(self.state.call_time or "")
        by = self.script["by_call_time"] if at_their_hour else "{by}"
        texts = []
        for part in parts:
            texts.append(filled(part.replace("{by}", by), given))  # each value once is enough
            named = [each for each in given if f"{{{each}}}" in part]
            given |= {each: None if each in lists else "" for each in named}
        return " ".join(texts)

    def parts(self, *, agrees: bool, greets: bool) -> list[str]:
        """Answer the message, say what was understood, and ask the next question.

        :param agrees: the words of the message granted consent
        :param greets: False if the page shows the opening
        """
        before, heard, script = self.before, self.heard, self.script
        parts = self._opening(greets=greets) + self._on_consent(agrees=agrees)
        reactions = self._reactions()
        is_answered = {*parts, *reactions} - {script["greeting"], script.get("budget_low")}
        is_other = heard.asks_of_record or heard.offers_consent or heard.held or before.closed
        is_other = is_other or heard.closes
        is_plain = not (is_answered or is_other)
        is_begun = is_plain and heard.news.wish and before.facts.wish is None
        is_begun = is_begun and before.asking != "wish"
        welcome = self._say("welcome") if is_begun else []
        if is_plain and not (welcome or heard.route or heard.which):
            reactions = reactions or self._acknowledged()
        if script["notice"] in " ".join(parts):
            self._keep(noticed=True)
        if script["withdraw_where"] in parts:
            self._open("contact", by_email=True)
            return parts + reactions
        rest = self._go_on()
        is_left = before.asking == "consent" != self.state.asking and heard.news == NO_FACTS
        if is_left and gives_up_on_consent(self.state):
            reactions += self._say("consent_left")
            rest = [part for part in rest if part != script["added"]]
        if before.closed and heard.asks_of_record and self.state.asking is None:
            rest = []
        elif before.closed and (parts or reactions):
            is_told = heard.answers or heard.defers or any(heard.asked)
            idle = ["thanks", "added"] if is_told else ["thanks"]
            rest = [part for part in rest if part not in map(script.get, idle)]
        notice = [text for text in self.notice if text not in str(self.state.wording)]
        return [*parts, *welcome, *self._noted(rest), *reactions, *rest, *notice]

    def _say(self, name: str, **given: str) -> list[str]:
        text = self.script.get(name, "")
        for each, value in given.items():
            text = text.replace(f"{{{each}}}", value)
        return [text] if text else []

    def _way(self, name: str, **given: str) -> list[str]:
        """Say one of several ways, none of which comes twice in a row."""
        ways = self.script.get(name, "").split("|")
        way = ways[self.before.replies % len(ways)]
        return [way.format(**given)] if way else []

    def _acknowledged(self) -> list[str]:
        """Say that a message without a fact was read, or that it need not be answered."""
        heard, asking = self.heard, self.before.asking
        if heard.tap or asking == "consent" or heard.news._replace(wish=None) != NO_FACTS:
            return []
        if asking in ABOUT_WORKS and says(heard.message, "declines yes"):
            return self._way("tapped_skip")
        if not heard.is_worth_telling or heard.read.wish:
            return self._way("heard") if heard.is_worth_telling or asking == "wish" else []
        return self._way("heard_said" if self.state.reachable else "heard_noted")

    def _keep(self, **changes: Any) -> None:
        self.state = self.state._replace(**changes)

    def _times(self, of: str) -> int:
        return self.state.asked.get(of, 0)

    def _count(self, of: str) -> None:
        self._keep(asked={**self.state.asked, of: self._times(of) + 1})

    # --- Answers ----------------------------------------------------------------------------------

    def _opening(self, *, greets: bool) -> list[str]:
        """Return the greeting and the answers of the routes; in an emergency they come first."""
        before, heard, held = self.before, self.heard, self.heard.held
        parts = self._of_the_firm()
        answers = [each for each in heard.answers if each.name != before.answered] or heard.answers
        for route in answers[:2]:
            parts += self._answer(route)
            if held and held not in answers and route.asks and route.then == "nothing":
                parts += filter(None, [held.again.get(heard.of_reply)])
        if before.language is not None or not greets:
            return parts
        if answers and answers[0].first:
            return parts + self._say("greeting_in_emergency")
        return self._say("greeting") + parts

    def _answer(self, route: Route) -> list[str]:
        """Answer with a route; the second time with what else there is to say."""
        name, language = f"told_{route.name}", self.heard.of_reply
        is_again = self._times(name) or route.name == self.before.answered
        self._count(name)
        is_more = is_again and language in route.again
        return self._again(route) if is_more else [route.answer[language]]

    def _again(self, route: Route) -> list[str]:
        """Reply to a later message on a route, and shorter each further time."""
        heard = self.heard
        if not self._has_again(route):
            return []
        text = route.again[heard.of_reply]
        if route.then != "contact":
            return [text]
        if heard.asks_when and not (heard.held and heard.held.first):  # they are told each time
            told = route.told.get(heard.of_reply, "") if self.before.reachable else ""
            is_law, is_said = route.topic == "privacy", self._times(f"said_{digest(text)[:8]}")
            both = (told or text, text) if is_law and is_said else (text, told)
            if dated := [each for each in both if "{by}" in each or is_law]:
                self._count(f"said_{digest(dated[0])[:8]}")
                return dated[:1]
        others = ["question_passed"] if heard.is_question else ["added_too", "added"]
        once = self._once(text, *others)
        if not heard.is_question or route.topic == "privacy" or "{by}" in text:
            return [once]
        is_told = route.first and once == text
        if is_told and says(heard.message, "asks what_to_do"):
            return [text]
        return [text] * is_told + self._passed_on()

    def _has_again(self, route: Route) -> bool:
        """Return whether a route has more to say: no promise before staff can be notified."""
        is_told = route.then != "contact" or route.at_once or self.before.reachable
        return self.heard.of_reply in route.again and is_told

    def _once(self, text: str, *instead: str) -> str:
        """Return a text, or what is said instead of it each further time."""
        name = f"said_{digest(text)[:8]}"
        times = self._times(name)
        self._count(name)
        return self.script[instead[times % len(instead)]] if times else text

    @property
    def _is_answered(self) -> bool:
        """Whether it is answered beside the matter that holds the conversation."""
        heard = self.heard
        return any(heard.asked) or any(route is not heard.held for route in heard.answers)

    def _passed_on(self) -> list[str]:
        held = self.heard.held
        if refuses_contact(self.state):
            return self._say("question_kept")
        return self._say("question_urgent" if held and held.first else "question_passed")

    def _of_the_firm(self) -> list[str]:
        """Answer what the configuration knows: whether the firm does this, and where it works."""
        asked, towns = self.heard.asked, self.heard.taps.towns
        parts = self._say("we_do") if asked.works else []
        for name, found in (("town_ours", asked.ours), ("town_other", asked.others)):
            parts += self._say(name, town=", ".join(found)) if found else []
        if towns and not asked.ours and (asked.area or asked.others):
            parts += self._say("our_towns", towns=", ".join(towns))
        return parts

    def _on_consent(self, *, agrees: bool) -> list[str]:
        state, before, heard = self.state, self.before, self.heard
        facts = state.facts
        if agrees:
            withdrew = state.withdrawn_from is not None and state.withdrawn_from == facts.email
            name = "consent_to_confirm" if withdrew else "consent_given"
            return self._say(name, contact=str(facts.email))
        if heard.by_person and says(heard.message, "agrees_to_mails"):
            return self._say("no_consent_here")
        is_other = refused_for(state) != refused_for(before) and not heard.is_about_lead
        is_new = state.consent == "refused" and (before.consent != "refused" or is_other)
        # An erasure includes the withdrawal; a withdrawal of calls is answered as such.
        is_of_calls = (
            not heard.actions.isdisjoint({"no_calls", "lost"})
            and (facts.email, facts.phone is None) == (None, False)
            and not says(heard.message, "mails of")
        )
        is_erasing = "erasure" in heard.actions or (state.wants_erasure and not before.reachable)
        is_elsewhere = is_erasing or is_of_calls or "drop_email" in heard.actions
        if is_elsewhere or not (heard.answer == "no" or is_new):
            return []
        # A lead without an address must unsubscribe plainly to be asked for it; texts come to none.
        is_by_phone = any(says(heard.message, each) for each in ("mails sms", "mails phone"))
        is_lead = facts.phone or facts.tells_of_works or is_by_phone
        is_plain = not is_lead or says(heard.message, "unsubscribes")
        asks_where = facts.email is None and is_plain
        return self._say("withdraw_where" if asks_where else "consent_refused")

    def _noted(self, rest: list[str]) -> list[str]:
        """Say what was understood, so that it can be corrected; a contact only once."""
        state, before, heard = self.state, self.before, self.heard
        if heard.asks_of_record:
            facts = describe(state.facts, heard.language)
            none = "" if heard.answers else "record_none"  # `Przecież macie mój numer`
            return self._say("record" if state.reachable else none, facts=facts)
        is_end = heard.held is not None and heard.held.then == "end"
        is_idle = heard.held is None and not heard.is_about_lead and not state.wants_mails
        if heard.tap:  # it is on the card
            if heard.corrects or self._corrects(heard.news):
                return self._say("corrected", facts=heard.tap.text)
            tells = heard.tap.skips or heard.tap.facts != NO_FACTS or state.asking == "wish"
            goes_on = tells and state.closed == before.closed
            name = "tapped" if heard.tap.facts != NO_FACTS else "welcome"
            name = "tapped_skip" if heard.tap.skips else name
            return self._way(name, facts=heard.tap.text) if goes_on and not heard.held else []
        if is_end or is_idle:
            return []
        news, contact = heard.news, _contact_of(state)
        said = {"email": news.email, "phone": news.phone}
        is_said = contact in " ".join(rest)
        for name, value in said.items():
            known = getattr(state.facts, name)  # or another person's
            is_old = value != known or value == getattr(before.facts, name)
            if is_old or (is_said and contact in {value, describe_phone(str(value))}):
                news = news._replace(**{name: None})
        if news.city in heard.asked.ours + heard.asked.others:
            news = news._replace(city=None)
        noted = describe(news, heard.of_reply)
        name = "corrected" if self._corrects(news) else "noted"
        return self._say(name, facts=noted) if noted else []

    def _corrects(self, news: Facts) -> bool:
        known, said = self.before.facts.known(), news._replace(wish=None).known()
        return any(known.get(name, value) != value for name, value in said.items())

    def _reactions(self) -> list[str]:
        """Answer what is neither a fact nor the route's matter."""
        heard, held = self.heard, self.heard.held
        names = [self._reaction()]
        if heard.understood.past_start and heard.is_about_lead:
            names.append("start_past")
        if self._is_net:
            names.append("net")
        is_own = (held and held.first) or (held in heard.answers and held.action == "call")
        is_other = held and held.then == "contact" and not is_own
        wants_call = "call" in heard.actions and not heard.asks_when
        if is_other and wants_call:
            is_again = self._times("call_noted") and "call_noted_too" in self.script
            names.append("call_noted_too" if is_again else "call_noted")
            self._count("call_noted")
        said = [text for name in names if name for text in self._say(name)]
        return said + self._sum() + self._afar()

    def _sum(self) -> list[str]:
        """Say what the works cost by the area named after a question about prices, and once if the
        budget is lower.
        """
        heard, facts, asked = self.heard, self.state.facts, self._asked_prices
        is_compared = facts.currency == "PLN" and not self._is_net
        budget = heard.news.budget if is_compared else None
        if heard.answers or heard.held or not (budget or (asked and heard.news.area)):
            return []
        listed = self._listed("prices", facts.area)
        if asked:
            is_by_area = heard.news.area and self._listed("prices", None) != listed
            return self._say("prices") if is_by_area else []
        least = firm.least(listed)
        # Far below it, they want a part of such works: a new door, one wall.
        is_low = budget and least / _FAR < budget < least and not self._times("prices")
        if not is_low:
            return []
        self._count("prices")
        return self._say("budget_low")

    @property
    def _is_net(self) -> bool:
        """Whether the budget is net of VAT; listed prices are not compared to it."""
        return bool(self.heard.news.budget) and says(self.heard.message, "net yes")

    @property
    def _asked_prices(self) -> bool:
        named = self.heard.taps.routes.named
        told = (named(each.removeprefix("told_")) for each in self.before.asked)
        return any(route is not None and route.later for route in told)

    def _listed(self, name: str, area: float | None) -> str:
        heard, language = self.heard, self.heard.of_reply
        wish = (not heard.read.wish and self.state.facts.wish) or heard.message
        listed = getattr(heard.taps, name).get(language, "")
        return firm.of_the_list(listed, wish, area, language, heard.taps.works)

    def _afar(self) -> list[str]:
        """Say once of a town that is none of the firm's that an adviser tells."""
        heard, city = self.heard, self.heard.news.city
        towns, is_new = heard.taps.towns, city is not None and self.before.facts.city is None
        is_said = city in (*towns, *heard.asked.ours, *heard.asked.others)
        is_due = is_new and towns and not is_said and heard.held is None and heard.is_about_lead
        return self._say("town_other", town=str(city)) if is_due else []

    def _reaction(self) -> str | None:
        heard, state = self.heard, self.state
        if heard.answer == "question":
            return "consent_help"
        asks = "?" in heard.message and says(heard.message, "asks more_mails")
        if asks and state.consent == "refused":
            return "no_more_mails"
        if heard.left and heard.is_about_lead:
            return "question_another"
        if heard.answers or not heard.defers or heard.asked.ours or heard.asked.others:
            return None
        # Their contact was asked for, and is asked for no more.
        was_asked = self._times("contact") > TIMES_ASKED and not state.reachable
        if was_asked or refuses_contact(state):
            return None if heard.by_person else "question_kept"  # the route says it
        first = "question" if state.reachable else "question_unreachable"
        name = "question_another" if self._times("question") else first
        self._count("question")
        return name

    # --- What is asked next, or how it closes -----------------------------------------------------

    def _go_on(self) -> list[str]:
        """Continue after what the message itself was answered."""
        state, heard = self.state, self.heard
        if doubt := state.doubt:  # the only question: a yes must not also answer one as consent
            return self._say("email_doubt", address=doubt)
        if number := heard.mistyped_phone:
            self._keep(asking="contact")
            return self._say("phone_doubt", number=number)
        if heard.route is not None:
            return self._held(heard.route)
        wants_now = heard.offers_consent and state.consent is None
        if state.wants_mails and state.barred is None and (wants_now or not heard.is_about_lead):
            return self._on_mails()
        if not heard.is_about_lead or (heard.is_off_topic and heard.news == NO_FACTS):
            return []
        return self._in_the_form()

    def _held(self, route: Route) -> list[str]:
        """Ask amid a route for a consent to mails that were wished for, else continue on it."""
        heard, offers = self.heard, may_offer(route)
        is_due = heard.offers_consent or heard.news.email or self.before.asking == "consent"
        if self.state.wants_mails and is_due and offers and self._needs_consent():
            return self._ask_in_the_form("consent")
        parts = self._on_the_route(route)
        has_phone_only = self.state.reachable and self.state.facts.email is None
        if heard.offers_consent and offers and has_phone_only:
            parts = [part for part in parts if part != self.script["thanks"]] + self._on_mails()
        return parts

    def _on_the_route(self, route: Route) -> list[str]:
        """Continue on a route, where the only question is for a contact."""
        state, heard, before = self.state, self.heard, self.before
        if "call" in heard.actions and refuses_contact(state):
            return self._say("insists")
        language, is_end = heard.of_reply, route.then == "end"
        is_said = heard.says and (heard.is_worth_telling or heard.answer is None)
        is_due = is_said or (is_end and not small_talk.acknowledges(heard.message))
        later = self._again(route) if is_due and not heard.answers else []
        asks = not is_end or (language in route.ask and not state.closed)
        if asks and self._may_ask_on(route):
            return self._ask_on(route, later)
        if is_end and not (asks and state.reachable):
            self._keep(closed=True)
            return (later or self._say("thanks")) if state.closed and not heard.answers else []
        if state.closed and state.facts.email != before.facts.email and route.told_without_email:
            later = [route.told.get(language, self.script["passed_on"])]  # it was missing
        if later and (state.closed or not state.reachable):
            if not (state.reachable or heard.closes or refuses_contact(state)):
                self._open("contact")  # its field stays open
            return later
        if heard.answers and refuses_contact(state):
            return []
        told = route.told.get(language, self.script["passed_on"])
        if state.facts.email is None:
            told = route.told_without_email.get(language, told)
        parts = self._close(told)
        if heard.is_question and not (heard.answers or any(heard.asked)):
            parts[int(state.reachable) : int(state.reachable)] = self._passed_on()
        return parts

    def _may_ask_on(self, route: Route) -> bool:
        is_left = self.state.reachable or self.heard.closes or refuses_contact(self.state)
        # Staff know of a topic `at_once`, and can do nothing without a number.
        insists = (self.heard.held or route).first or "call" in self.heard.actions
        return not is_left and (insists or self._times("contact") < TIMES_ASKED)

    def _ask_on(self, route: Route, later: list[str]) -> list[str]:
        """Ask for a contact, the second time in other words."""
        heard, times = self.heard, self._times("contact")
        # In an emergency the privacy notice follows with the contact.
        if not route.first:
            self._notice(asks=True)
        own = self.script.get("ask_contact_for_call", self.script["ask_contact"])
        own = self.script["change_email"] if self.state.no_calls else own
        text = route.ask.get(heard.of_reply, own)
        if times and (not route.first or times % 3 == TIMES_ASKED):
            text = self.script["again_contact"]
        parts = self._ask("contact", text)
        is_said = heard.answers and (not times or self._has_again(route))
        if not (later or is_said or self._is_answered or heard.asks_of_record):
            is_heard = times and heard.is_worth_telling
            name = "question_passed" if heard.is_question else "heard" if is_heard else ""
            later = self._say(name)
        return later + parts

    def _in_the_form(self) -> list[str]:
        state, heard = self.state, self.heard
        # They were handed over in another language, and a few Polish words start no form.
        handed_over = state.closed and state.asked.keys() <= {"contact"} and not heard.news.known()
        is_over = heard.closes or self._times("refused") or handed_over
        if heard.offer and not (is_over or heard.answers):
            self._keep(offered=heard.offer.name)
            self._count(heard.offer.name)
            return [heard.offer.answer[heard.language]]
        question = None if is_over else self._next_question()
        if question is None:
            is_left = heard.answers or heard.is_question
            if refuses_contact(state) and not heard.closes and is_left:
                return []
            return self._close(self.script["closing"])
        told: list[str] = []
        if state.reachable and not state.closed:  # first of all they must know that it arrived
            told = self._close(self.script["received"])
        is_pressed = state.reachable and heard.defers and question in ABOUT_WORKS
        if is_pressed and (heard.is_question or not heard.answers):
            if self.before.asking == question:
                self._open(question)
            return told
        left = self.before.asking
        if question == "contact" and heard.defers and left in ABOUT_WORKS:
            self._count(f"left_{left}")  # it comes again
        return told + self._ask_in_the_form(question)

    def _price(self, question: Question) -> list[str]:
        """Say what tapped works, which are as listed, cost beside the question for the budget."""
        state, heard = self.state, self.heard
        is_tapped = state.facts.wish in {self.script.get(f"tap_{one}") for one in heard.taps.wish}
        is_first = question == "budget" and not (self._times("budget") or self._times("prices"))
        is_due = is_first and is_tapped and not (heard.answers or self._asked_prices)
        if not (is_due and self._listed("prices", state.facts.area)):
            return []
        self._count("prices")
        return self._say("prices")

    def _on_mails(self) -> list[str]:
        """Ask for what a consent to mails needs, and for nothing else."""
        is_over = self.state.consent is not None or not self._may_ask_for_consent()
        if not is_over and self.state.facts.email is not None:
            return self._ask_in_the_form("consent")
        if is_over or self._times("mails") >= TIMES_ASKED:
            return []
        self._count("mails")
        return self._ask("contact", self.script["ask_email"], counts=False)

    def _ask_in_the_form(self, question: Question) -> list[str]:
        state, heard, script = self.state, self.heard, self.script
        times = self._times(question)
        if question != "consent":
            own = [each.ask for each in heard.answers if heard.language in each.ask]
            text = script[f"{'again' if times else 'ask'}_{question}"]
            if question == "contact" and own:
                text = own[0][heard.language]
            elif question == heard.which:
                text = heard.taps.again(state._replace(asking=question))
            elif question == "contact" and heard.defers and not times:
                text = script["ask_contact_to_answer"]
            elif question == "contact" and self._only_looks:
                text = script["again_contact"]
            if question == "contact" and state.no_calls:
                text = script["change_email"]
            return self._price(question) + self._ask(question, text)
        asks_back = heard.answer == "question" or heard.is_question or heard.asks_of_record
        if state.wording == script["consent_wording"]:  # it was shown, for this address
            is_plea = times and not (asks_back or heard.news != NO_FACTS)
            text = script["ask_consent_again" if is_plea else "ask_consent_short"]
            if heard.news == NO_FACTS:
                self._count("explained")
            return self._ask(question, text, counts=not asks_back)
        is_early = state.wants_mails and not self._times("shown")
        text = script["ask_consent_early" if is_early else "ask_consent"]
        return self._ask(question, text, counts=not asks_back)

    def _ask(self, question: Question, text: str, *, counts: bool = True) -> list[str]:
        self._notice()
        # Who asks something meanwhile is answered, and not pressed: the question stays open.
        is_open = question == self.before.asking != "consent" and self._times(question)
        is_heard = self.heard.is_question and (self._is_answered or self.heard.defers)
        is_heard = is_heard and not (self.heard.held and self.heard.held.first)
        parts = [] if is_open and is_heard else [text]
        of_mails = {self.script.get("ask_email"), self.script.get("change_email")}
        self._open(question, by_email=text in of_mails)
        if counts:
            self._count(question)
        wording = self.script.get("consent_wording", "")
        if question == "consent" and self.state.wording != wording:
            self._count("shown")
            self._keep(wording=wording)
            parts.append(wording)
        return parts

    def _open(self, question: Question, *, by_email: bool = False) -> None:
        """Offer the field of a question; of a contact the kind that they chose, or that helps."""
        route, before = self.heard.held, self.before
        if question == "contact" == before.asking:
            by_email = by_email or before.by_email
        elif route is not None:
            is_of_texts = says(self.heard.message, "mails sms")
            by_email = by_email or (route.topic == "privacy" and not is_of_texts)
        self._keep(asking=question, by_email=by_email or self.state.no_calls)

    def _notice(self, *, asks: bool = False) -> None:
        """Say the privacy notice (GDPR art. 13) once: with a contact, or as a route asks for it."""
        if not self.state.noticed and (asks or self.state.reachable):
            self._keep(noticed=True)
            self.notice = self._say("notice")  # unless the wording of the consent has it

    def _close(self, told: str) -> list[str]:
        """Close without promising too much: staff are notified only of who can be reached."""
        state, heard = self.state, self.heard
        if not state.reachable:
            times = self._times("contact")
            is_left = refuses_contact(state)
            if not is_left:
                self._open("contact")
            if times >= TIMES_ASKED:
                self._count("contact")
            if times <= TIMES_ASKED:
                return self._say("again_contact" if heard.is_question else "closing_unreachable")
            if heard.closes or not (heard.is_question or heard.news != NO_FACTS):
                return self._say("thanks")
            return [] if is_left or times % 2 == 0 else self._say("again_contact")
        if state.closed:
            # Staff get something of the message.
            is_new = heard.is_worth_telling or heard.news != NO_FACTS
            is_noted = heard.news._replace(wish=None).tells_of_works and "noted_too" in self.script
            is_new = is_new and not heard.closes
            added = "question_passed" if heard.is_question and heard.answer else "added"
            return self._say("noted_too" if is_noted else added if is_new else "thanks")
        self._notice()
        is_end = heard.held is not None and heard.held.then == "end"
        if state.facts.email is None and state.no_calls and "{contact}" in told and not is_end:
            told = self.script["added"]  # only a phone, and the person wants no calls
        self._keep(closed=True)
        return [told.replace("{contact}", _contact_of(state))]

    def _next_question(self) -> Question | None:
        state, heard = self.state, self.heard
        if heard.which:
            return heard.which
        lacks_contact = not state.reachable and self._times("contact") < TIMES_ASKED
        is_first = not (any(heard.asked) or self._times("contact"))
        for_adviser = heard.defers and (heard.answers or is_first)
        if lacks_contact and (for_adviser or self._only_looks):
            return "contact"  # only a person can help, if anybody
        agrees = self._needs_consent()
        if state.wants_mails and agrees:
            return "consent"
        if self._times("shown") >= TIMES_ASKED and state.wording is None:
            agrees = False  # another address, for which the wording would be shown a third time
        asked = state.asked if state.reachable else {}  # what was not asked yet comes first
        for question in sorted(ABOUT_WORKS, key=lambda each: asked.get(each, 0)):
            is_missing = getattr(state.facts, question) is None
            is_due = question not in heard.later and self._times(question) < self._most(question)
            if is_missing and is_due:
                return question
        if lacks_contact:
            return "contact"
        return "consent" if agrees else None

    @property
    def _only_looks(self) -> bool:
        """Whether a person skips one question after another, and wants nothing that is known."""
        skipped = [each for each in ABOUT_WORKS if self._times(each) >= TIMES_ASKED]
        return len(skipped) >= _SKIPPED and not self.state.facts.tells_of_works

    def _most(self, question: Question) -> int:
        """A person who gave a contact instead of an answer is not asked the same again, unless this
        message says more about the works.
        """
        heard, news = self.heard, self.heard.news
        tells = not (self.before.asking == "consent" or self._corrects(news)) and (
            news.tells_of_works or not (news == NO_FACTS or news.phone or news.email)
        )
        speaks = says(heard.message, f"names {question}")
        declines = speaks and says(heard.message, "declines yes")
        is_open = not self.state.reachable or (tells and not declines)
        return TIMES_ASKED if is_open or self._times(f"left_{question}") else 1

    def _needs_consent(self) -> bool:
        return bool(self.heard.taps.open(self.state)) and self._may_ask_for_consent()

    def _may_ask_for_consent(self) -> bool:
        """Ask twice, and once more after a question about the consent itself, unless put off."""
        most = TIMES_ASKED + (self.heard.answer == "question" and not self.heard.puts_off)
        return "consent_wording" in self.script and self._times("consent") < most


def _contact_of(state: State) -> str:
    """Return where we will get in touch, for people to read."""
    facts = state.facts
    by_mail = state.no_calls or says(state.call_time or "", "by_mail")
    by_phone = facts.phone and not (facts.email and by_mail)
    return describe_phone(str(facts.phone)) if by_phone else facts.email or ""
