"""Numbers that are not facts: streets, postcodes, links, orders, accounts. vocabulary/ids.toml has the words."""

import re

from services.followups.reading.text import MARK, words
from services.followups.reading.tokens import Said, Vocabulary, words_of
from services.followups.rules.facts import Question

_LINK = re.compile(
    r"https?://\S{1,200}|www\.\S{1,200}|\b(?:[\w-]{1,63}\.){1,4}(?:pl|com|eu)\b", re.IGNORECASE
)
_TOKEN = re.compile(r"(?P<digits>\d(?:[\d/]|[ -]\d)*)|(?P<word>[^\W\d_]+2?)|(?P<sign>[^\w\s])")
_STREETS = words_of("ids", "street")
_NAME = r"(?:\d{1,3} )?(?:(?!We? )[A-ZĄĆĘŁŃÓŚŹŻ](?:[^\W\d_]{1,30}|\.) ?){1,4}"
_PHONE = r"(?:\d{3}(?:[\s-]?\d{3}){2}|\d\d[\s-]\d{3}(?:[\s-]\d\d){2})(?![\s-]?\d)"
_HOUSE = r"\d{1,4}[a-zA-Z]?(?:\s?/\s?\d{1,4})?(?:\s?m\.?\s?\d{1,4})?(?![\d.]|\s?(?:m2|m²|mkw|metr))"
_STREET = re.compile(rf"\b(?i:{'|'.join(_STREETS)})(?:\.\s?|\s){_NAME}(?:(?!{_PHONE}){_HOUSE})?")
"""`ul. 3 Maja 12/4`"""
_POSTCODE = re.compile(
    r"(?<![\d+-])\b\d\d-\d{3}\b(?![\s-]?\d|\s?(?:tys|т[иы]с|k\b|z[łl]|m2|m²|met))", re.IGNORECASE
)


class _Ids(Said):
    vocabulary = Vocabulary("ids", pattern=_TOKEN)


def without(text: str, asked: Question | None) -> str:
    """Remove them, so that no reader takes them for an area, a budget or a date."""
    text = _LINK.sub(f" {MARK} ", text) if "." in text else text
    if not _STREETS.isdisjoint(words(text)):
        text = _STREET.sub(f" {MARK} ", text)
    if _Ids.vocabulary.may_be_in(text):
        said = _Ids(text)
        starts = {end: start for start, end in reversed(said.all("of number"))}
        text = said.without(*((start, end) for end, start in starts.items()))
    return text if asked == "budget" else _POSTCODE.sub(f" {MARK} ", text)
