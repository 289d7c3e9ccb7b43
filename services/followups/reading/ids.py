"""Numbers that are not facts: streets, postcodes, links, orders, accounts. vocabulary/ids.toml has the words."""

import re

from services.followups.reading.text import MARK
from services.followups.reading.tokens import Said, Vocabulary
from services.followups.rules.facts import Question

_LINK = re.compile(
    r"https?://\S{1,200}|www\.\S{1,200}|\b(?:[\w-]{1,63}\.){1,4}(?:pl|com|eu)\b", re.IGNORECASE
)
_TOKEN = re.compile(r"(?P<digits>\d(?:[\d/]|[ -]\d)*)|(?P<word>[^\W\d_]+2?)|(?P<sign>[^\w\s])")
_PHONE = re.compile(
    r"\s*(?:\+?48[\s-]?)?(?:\d{3}(?:[\s-]?\d{3}){2}|\d\d[\s-]\d{3}(?:[\s-]\d\d){2})(?![\s-]?\d)"
)
_HOUSE = re.compile(
    r"\s*\d{1,4}[a-zA-Z]?(?:\s?/\s?\d{1,4})?(?:\s?m\.?\s?\d{1,4})?(?![\d.]|\s?(?:m2|m²|mkw|metr))"
)
_LONGEST_NAME = 4
_LEAST_LONG = 7
_POSTCODE = re.compile(
    r"(?<![\d+-])\b\d\d-\d{3}\b(?![\s-]?\d|\s?(?:tys|k\b|z[łl]|m2|m²|met))", re.IGNORECASE
)


class _Ids(Said):
    vocabulary = Vocabulary("ids", pattern=_TOKEN)

    def _street(self, at: int) -> int | None:
        """Return the token after the name of a street: `ul. 3 Maja`, `na osiedlu tęczowym`."""
        if self.is_kind(at, "{at}"):  # `na 3 Maja`
            is_dated = self.is_kind(at + 1, "{digits}") and self.is_kind(at + 2, "{month}")
            return at + 3 if is_dated and self.is_title(at + 2) else None
        first = at + 1 + (self.words(at + 1, at + 2) == ["."])
        first += self.is_kind(first, "{digits}") and self.is_title(first + 1)
        end = first
        while end < first + _LONGEST_NAME and self.is_title(end) and not self.is_kind(end, "{in}"):
            end += 1
        if end == first and self.is_kind(end + 1, "{digits}"):  # `na osiedlu tęczowym 4`
            end += 1
        return end if end > first else None

    def found(self) -> dict[int, int]:
        """Return where each begins and ends, in letters."""
        found: dict[int, int] = {}
        for each in self.of("of"):
            number = self.tokens[each.end - 1]
            is_long = each.value == "number" or len(number.word) >= _LEAST_LONG
            is_decimal = re.match(r"[.,]\d", self.text[number.end :])
            if is_long and not is_decimal and not self.is_kind(each.end, "{unit}"):
                found[self.tokens[each.start].start] = number.end
        for each in self.of("street"):
            if (end := self._street(each.start)) is not None:
                last = self.tokens[end - 1].end
                house = None if _PHONE.match(self.text, last) else _HOUSE.match(self.text, last)
                found[self.tokens[each.start].start] = house.end() if house else last
        return found


def without(text: str, asked: Question | None) -> str:
    """Remove them, so that no reader takes them for an area, a budget or a date."""
    text = _LINK.sub(f" {MARK} ", text) if "." in text else text
    parts, done = [], 0
    may_have = _Ids.vocabulary.may_be_in(text)
    for start, end in sorted(_Ids(text).found().items()) if may_have else ():
        if start >= done:
            parts.append(text[done:start])
            done = end
    text = f" {MARK} ".join([*parts, text[done:]])
    return text if asked == "budget" else _POSTCODE.sub(f" {MARK} ", text)
