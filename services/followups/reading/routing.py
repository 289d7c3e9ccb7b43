"""Routes a message by its phrases: an emergency, a complaint, spam, … before the form sees it.

Each route's phrases are in followups.toml, in the language of phrases.py. `a + b` needs both
anywhere in the message, and `a - b` the first without the second. A match of a route's `unless`
excludes that route.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from services.followups.reading.tokens import Vocabulary
from services.followups.rules.facts import Question

Then = Literal["form", "contact_first", "contact", "nothing", "close", "end"]
"""What follows the answer. `form`: the form's next question. `contact_first`: the form, but the
question for a contact comes first. `contact`: only the question for a contact. `nothing`: no
question this time. `close`: what happens to the request, and no more questions. `end`: no more
replies but thanks."""
Action = Literal[
    "call",
    "call_times",
    "call_another",
    "no_calls",
    "may_call",
    "erasure",
    "lost",
    "quote",
    "resume",
    "mails",
    "drop_email",
    "drop_phone",
    "drop_budget",
    "drop_start",
    "misread",
]


Texts = Mapping[str, str]
"""By language."""
FORBID = {"extra": "forbid"}
"""An unknown key in a file is a fault."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A kind of request other than a lead; staff get it as an alert `visitor.<name>`."""

    __pydantic_config__ = FORBID
    label: Texts
    severity: Literal["info", "warning", "critical"] = "info"
    at_once: bool = False
    """Notify staff even when no contact is known."""
    ask: Texts = field(default_factory=dict)
    told: Texts = field(default_factory=dict)
    """For its routes that have none."""


@dataclass(frozen=True, slots=True)
class Route:
    __pydantic_config__ = FORBID
    name: str
    words: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    answer: Texts = field(default_factory=dict)
    ask: Texts = field(default_factory=dict)
    """Asks for the contact, instead of the script's own question."""
    told: Texts = field(default_factory=dict)
    """The reply after staff were notified."""
    told_without_email: Texts = field(default_factory=dict)
    """The same, if no e-mail address is known."""
    again: Texts = field(default_factory=dict)
    """The reply to later messages, instead of the answer."""
    then: Then = "form"
    topic: str | None = None
    action: Action | None = None
    first: bool = False
    """The answer comes before the greeting: an emergency."""
    lead: bool = True
    """The person may still be a lead."""
    at_once: bool = False
    """Staff are notified of its topic even when no contact is known."""
    alone: bool = False
    """Matches only a message that says nothing else: a goodbye."""
    asks: bool = False
    """Matches only a question, and is answered only to whoever is a lead; with `first` any message
    amid an emergency."""
    always: bool = False
    """It is answered whatever the conversation is about, even in an emergency."""
    offers: str | None = None
    """It is not sure that this route is meant, so its answer asks."""
    skips: tuple[Question, ...] = ()
    """What the form does not ask any more: a contact of a person who will not give one."""
    later: tuple[Question, ...] = ()
    """What the form asks once, after all else: a budget of a person who asks for a price."""

    @property
    def holds(self) -> bool:
        """The route replaces the form: later messages belong to it."""
        return self.then in {"contact", "end"}


_WORD = re.compile(r"(?P<word>[^\W_]+)")


class Routes:
    """All routes, in configured order: of several that match, the first one counts."""

    def __init__(
        self, routes: Sequence[Route], words: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> None:
        self._routes = {route.name: route for route in routes}
        self._order = {route.name: place for place, route in enumerate(routes)}
        self._vocabulary = Vocabulary(words=words, pattern=_WORD)
        self._hear = lru_cache(64)(self._heard)
        for route in routes:
            for phrase in route.words:
                self._vocabulary.add_rule(f"+ {route.name}", phrase)
            for phrase in route.unless:
                self._vocabulary.add_rule(f"- {route.name}", phrase)

    def named(self, name: str | None) -> Route | None:
        """Return the route; None if it is no longer configured."""
        return self._routes.get(name or "")

    def with_action(self, action: Action) -> list[Route]:
        return [route for route in self._routes.values() if route.action == action]

    def offering(self, name: str | None) -> list[Route]:
        return [route for route in self._routes.values() if route.offers and route.offers == name]

    def comes_before(self, route: Route, other: Route) -> bool:
        return self._order[route.name] < self._order[other.name]

    def find(self, message: str, before: str = "", *, urgent: bool = False) -> list[Route]:
        """Return the routes that match a message, in configured order.

        :param before: the previous message, in which a request to staff may have begun:
            `robiliście u mnie podłogę` and then `deski się rozjeżdżają`
        :param urgent: an emergency holds the conversation
        """
        heard = self._hear(message)
        found = self._matching(heard, urgent=urgent)
        if not before or any(not route.offers for route in found):
            return found
        both = self._matching(heard | self._hear(before), urgent=urgent)
        return [route for route in both if route.topic] or found

    def _heard(self, message: str) -> frozenset[str]:
        found = self._vocabulary.find(self._vocabulary.tokens(message))
        return frozenset([each.key for each in found])

    def _matching(self, heard: frozenset[str], *, urgent: bool) -> list[Route]:
        meant = self._vocabulary.meant(heard)
        said = {each[2:] for each in meant if each[:2] == "+ "}
        said -= {each[2:] for each in meant if each[:2] == "- "}
        found = [self._routes[name] for name in sorted(said, key=self._order.__getitem__)]
        return [route for route in found if urgent or not (route.first and route.asks)]
