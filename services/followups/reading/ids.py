"""Numbers that are not facts: streets, postcodes, URLs, orders, accounts, personal ids."""

import re

from services.followups.reading.text import MARK, beginnings, vocabulary
from services.followups.rules.facts import Question

_UNIT = r"(?:m\b|m2|m²|m\s2\b|mkw|kw\b|metr|sqm|tys|tyś|mln|mili|z[łl]|pln|eur|€|k\b|usd)"
_CAPITAL = r"[A-ZĄĆĘŁŃÓŚŹŻ][\w.'-]*"
_PHONE = (
    r"\s*(?:\+?48[\s-]?)?(?:\d{3}(?:[\s-]?\d{3}){2}|\d\d[\s-]\d{3}(?:[\s-]\d\d){2})(?![\s-]?\d)"
)
_HOUSE = rf"(?:(?!{_PHONE})\s*\d{{1,4}}[a-zA-Z]?(?:\s?/\s?\d{{1,4}})?(?:\s?m\.?\s?\d{{1,4}})?(?![\d.]|\s?(?:m2|m²|mkw|metr)))"
_IDS = re.compile(
    r"(?i:\bhttps?://\S{1,200}|\bwww\.\S{1,200}|\b(?:[\w-]{1,63}\.){1,4}(?:pl|com|eu)\b)"
    rf"|\b(?i:ul\.?|ulic[aąęy]|al\.|alej[aiąę]\w*|pl\.|plac\w*|os\.|osiedl\w*|rondo|rondzie)\s+(?:\d{{1,2}}\s+)?(?:{_CAPITAL}(?:\s+(?!w\b|we\b){_CAPITAL}){{0,3}}|[^\W\d_]+(?=\s*\d)){_HOUSE}?"
    rf"|\b(?i:na|przy)\s+\d{{1,2}}\s+(?:Maja|Listopada|Stycznia|Lutego|Kwietnia|Czerwca|Lipca|Sierpnia|Grudnia)\b{_HOUSE}?"
    r"|(?i:\b(?:nip|pesel|regon|krs|iban|konto|(?:nr|numer\w*)\s+(?:konta|zam[óo]wienia|faktury|umowy|dzia[łl]ki|klienta|oferty|sprawy|ksi[ęe]gi|paczki|przesy[łl]ki|paragonu|rachunku|reklamacji|zg[łl]oszenia)"
    r"|(?:zam[óo]wieni|zleceni|faktur|umow|ofert|order|invoice)\w*)"
    r"(?:(?:\s+(?:nr|numer|no|number))?\W{0,3}|(?:\s+(?:w|we|ze?|od|u|na|from|in|at)\s+[^\W\d]+){1,2}(?:\s+(?:nr|numer|no|number))?[\s:]{1,2}(?=\d{7}))\d[\d\s/-]*+)"
    rf"(?![.,]\d|(?i:{_UNIT}))"  # `w umowie 73 m`, `wg umowy 49,87`
)  # fmt: skip


_POSTCODE = re.compile(rf"(?<![\d+-])\b\d\d-\d{{3}}\b(?![\s-]?\d|\s?{_UNIT})", re.IGNORECASE)


_LEADS = vocabulary(
    "http www pl com eu ul al os ulic alej plac osie rond maja listo stycz luteg kwiet czerw lipca sierp grudn "
    "nip pese rego krs iban konto nr numer zamo zlec fakt umow ofer orde invo"
)
"""How a word of each begins."""


def without(text: str, asked: Question | None) -> str:
    """Remove them, so that no reader takes them for an area, a budget or a date."""
    if not _LEADS.isdisjoint(beginnings(text)):
        text = _IDS.sub(f" {MARK} ", text)
    if "-" not in text:
        return text
    if asked == "budget" and re.fullmatch(r"\D*\d\d-\d\d0\W*", text):  # `80-100`
        return text
    return _POSTCODE.sub(f" {MARK} ", text)
