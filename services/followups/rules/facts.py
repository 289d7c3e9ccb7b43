"""What is known about a lead."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Question = Literal["wish", "area", "budget", "start", "contact", "name", "consent"]

WISH_LENGTH = 400
NAME_LENGTH = 60
MIN_AREA, MAX_AREA = 1, 100_000
MAX_BUDGET = 1_000_000_000


RANGES = ("area", "budget")
"""What may be a range: the fact is its upper end."""
OF_WORKS = ("wish", "area", "budget", "currency", "start", "city", "area_from", "budget_from")
NAME_WORDS = 5
_BETWEEN = re.compile(r"['’-]| (?:- )?")
_ABBREVIATED = re.compile(r"(?<=[^\W\d_])\.(?= |$)")


def person_name(text: str) -> str | None:
    """Return the name if it consists of letters, spaces, hyphens and apostrophes; else None.

    Anyone may enter any name with someone else's address, and our mails greet that person by it.
    So a link, a number or a sentence is not a name.
    """
    name = _ABBREVIATED.sub("", unicodedata.normalize("NFC", " ".join(text.split())))
    words = _BETWEEN.split(name)
    if len(name) > NAME_LENGTH or len(words) > NAME_WORDS:
        return None
    return name if all(_is_letters(word) for word in words) else None


def _is_letters(word: str) -> bool:
    """Accept combining marks; reject numerals, whatever they look like."""
    return word[:1].isalpha() and all(unicodedata.category(char)[0] in "LM" for char in word)


class Facts(NamedTuple):
    """What is known about a lead. None means unknown."""

    email: str | None = None
    phone: str | None = None
    """E.164."""
    name: str | None = None
    area: float | None = None
    """Square metres."""
    budget: int | None = None
    """The upper end when a range was given, in `currency`."""
    currency: str | None = None
    start: str | None = None
    """`asap`, or the date as precisely as it was given: `2027`, `2027-03`, `2027-03-15`. After a
    space a name from start_words.toml, if a season, a range, … was named: `2027-06 summer`,
    `2027-02 to_2` (to two months later). `handover` at the end: that is when the keys come."""
    city: str | None = None
    wish: str | None = None
    area_from: int | None = None
    """The lower end, when a range was given: 0 of a chip "up to 30 m²"."""
    budget_from: int | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Facts":
        return cls._make(map(stored.get, cls._fields))

    @property
    def tells_of_works(self) -> bool:
        """Whether it has any fact about the works that the form asks for."""
        return (self.wish, self.area, self.budget, self.start) != (None, None, None, None)

    @property
    def has_contact(self) -> bool:
        return (self.email, self.phone, self.name) != (None, None, None)

    @property
    def is_contact_only(self) -> bool:
        return not self.tells_of_works and self.city is None and self.currency is None

    def known(self) -> dict[str, Any]:
        return {
            name: value for name, value in zip(self._fields, self, strict=True) if value is not None
        }

    def contradicts(self, other: "Facts") -> bool:
        """Return whether the two are about different works."""
        both = ((getattr(self, name), getattr(other, name)) for name in OF_WORKS)
        return any(None not in pair and pair[0] != pair[1] for pair in both)

    def of_works(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in OF_WORKS}

    def learn(self, news: "Facts") -> "Facts":
        """Merge newer facts in: a newer value replaces the old one; wishes are concatenated."""
        if news == NO_FACTS:
            return self
        known, wish = news.known(), self.wish
        for name in RANGES:  # a new value ends the range of the old one
            if getattr(news, name) is not None:
                known[f"{name}_from"] = getattr(news, f"{name}_from")
        if news.wish and news.wish not in (wish or ""):
            wish = f"{wish} {news.wish}"[:WISH_LENGTH] if wish else news.wish
        return self._replace(**{**known, "wish": wish})


NO_FACTS = Facts()
