"""What a model read in a message of which no rule is sure (decision 62).

It is asked neither for a contact nor for consent. A fact is what our own reader finds in the words
that it quotes, and a kind is only asked about.
"""

import re
from datetime import date
from typing import Literal, NamedTuple

from services.followups.dialogue.hearing import Heard
from services.followups.dialogue.state import State
from services.followups.reading import understand
from services.followups.reading.routing import Routes
from services.followups.rules.facts import NO_FACTS, Facts

OfWorks = Literal["wish", "area", "budget", "start"]


class Hint(NamedTuple):
    kind: str | None = None
    """The name of a route that may be meant."""
    quotes: tuple[tuple[OfWorks, str], ...] = ()
    """Names of facts, each with the words of the message that say it."""


NOTHING = Hint()


def is_unclear(heard: Heard, state: State) -> bool:
    """Return whether the message says something, and no rule knows what."""
    is_read = heard.held or heard.answers or heard.answer or heard.asked.is_answered or heard.closes
    return (
        not (is_read or heard.is_tap or heard.actions or heard.offer or heard.offers_consent)
        and heard.says
        and heard.news._replace(wish=None) == NO_FACTS
        # A wish is read where none was asked for.
        and (heard.news == NO_FACTS or state.asking in {"area", "budget", "start"})
        and state.asking != "consent"
        and heard.spoken == heard.language  # else a person answers
        and heard.understood.barred is None
    )


def apply(
    heard: Heard, hint: Hint, state: State, routes: Routes, today: date, works: tuple[str, ...]
) -> Heard:
    """Add what stands in the message, as if it had been read."""
    news = heard.news
    for name, quote in hint.quotes:
        if re.search(rf"(?<!\w){re.escape(quote)}(?!\w)", heard.understood.rest):
            read = understand(quote, today=today, asked=name, works=works).facts
            currency = read.currency if name == "budget" else None
            news = news.learn(Facts(**{name: getattr(read, name)}, currency=currency))
    asks = (route for route in routes.offering(hint.kind) if route.name not in state.asked)
    return heard.hinted(news, heard.offer or next(asks, None))
