"""E-mail addresses, as people write, spell and correct them."""

import difflib
import re
from functools import lru_cache

from services.followups.reading import corrections
from services.followups.reading.numbers import in_digits
from services.followups.reading.text import MARK, Reading, fold, has_any, spaces, vocabulary, words

_EMAIL = re.compile(
    r"(?<![\w.+%-])(?<!\w')[\w+%-](?:[\w.+%'-]{0,62}[\w+%-])?@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w@-])"
)
_ENDING = r"(?:pl|com|eu|net|org|info|de|uk|ua|at|io|co|biz|edu|gov|fr|cz|it|nl|me|dev|shop|studio|design)(?![\w@])"
_RUN_ON = re.compile(
    rf"@((?:[\w-]{{1,63}}+\.){{1,8}}?(?i:pl|com|eu))(?=\d{{3}}(?:[ -]?\d{{3}}){{2}}\b)"
    rf"|@((?:[\w-]{{1,63}}+\.){{1,8}}?(?i:{_ENDING}))\.(?!(?i:pl|com|eu)\b|{_ENDING})"
    r"(?=(?:[A-ZĄĆĘŁŃÓŚŹŻ]|[^\W\d_]{3})[^\W\d_]*+(?!\.[^\W\d_]|[\w@-]))"
)
"""`jan@wp.pl.Dziękuję`: the next sentence follows the dot."""
_DOT = r"(?:\s?\.(?:\s(?!(?-i:[A-ZĄĆĘŁŃÓŚŹŻ])))?|\s?,|\s?[\[(]?\b(?:kropka|dot|punkt|крапка)\b[\])]?\s?)"
_SPELT_DOT = r"(?:\s?[\[(]?\b(?:kropka|dot|punkt|крапка)\b[\])]?\s?)"
_AT = r"(?:\s?@\s?|\s*[\[({]\s?(?:at|małpa|malpa|małpka)\s?[\])}]\s*|,?\s+(?:małpa|malpa|małpka|malpka|собачка),?\s+)"
_LOCAL = (
    r"[\w+%'-]{1,40}(?:(?:\.|\s?\b(?:kropka|dot|крапка)\b\s?|\s?\b(?:podkre[śs]lnik|podkre[śs]lenie|underscore)\b\s?"
    r"|\s?\b(?:my[śs]lnik|kreska|minus|dash)\b\s?)[\w+%'-]{1,40}){0,3}"
)
_SPELT = re.compile(
    rf"(?<![\w.@+%'-])(?P<local>(?!krop(?:ki|ek)\b){_LOCAL})(?:{_AT}(?P<domain>[\w-]{{1,60}}(?:\s?\b(?:my[śs]lnik|kreska|minus|dash)\b\s?[\w-]{{1,40}})?(?:{_DOT}[\w-]{{2,60}}){{0,2}}{_DOT}{_ENDING})"
    rf"|\s+at\s+(?P<spelt>[\w-]{{1,60}}(?:{_SPELT_DOT}[\w-]{{2,60}}){{0,2}}{_SPELT_DOT}{_ENDING}))",
    re.IGNORECASE,
)
_PROVIDERS = {
    "gmail": "gmail.com", "gmailu": "gmail.com", "gmaila": "gmail.com", "wp": "wp.pl", "onecie": "onet.pl", "onet": "onet.pl", "o2": "o2.pl",
    "interii": "interia.pl", "interia": "interia.pl", "op": "op.pl", "outlooku": "outlook.com", "hotmailu": "hotmail.com", "yahoo": "yahoo.com", "icloud": "icloud.com",
}  # fmt: skip
_DICTATED = (
    # `ania osiemdziesiąt dwa małpa …`, `kropka pe el`, `@gmailcom`, `@wp`
    (re.compile(r"(?:\s[^\W\d_]+){1,3}(?=\s(?:ma[łl]pk?a)\b)", re.IGNORECASE), lambda said: in_digits(said[0])),
    (re.compile(r"(?<=\w)\s(?=\d{1,4}\s(?:ma[łl]pk?a)\b)", re.IGNORECASE), lambda _: ""),
    (re.compile(r"(?<=kropka\s)(?:pe\s?el|p\sl|kom)\b", re.IGNORECASE), lambda said: "com" if said[0][0] in "kK" else "pl"),
    (re.compile(r"(?<=ma[łl]pa\s)(gmail|wp|onet|o2|interia|op)\s(?=(?:com|pl)\b)", re.IGNORECASE), lambda said: f"{said[1]}."),
    (re.compile(r"(?<=@)(gmail|wp|onet|o2|interia|op)(com|pl)?(?!\.?\s(?:com|pl)\b)(?=[;!?)]|[.,]?$|[.,]?\s(?!\.))", re.IGNORECASE), lambda said: _PROVIDERS[said[1].lower()]),
)  # fmt: skip
_AT_PROVIDER = re.compile(
    rf"(?P<mail>\bmail(?:\s+to|:)?\s+)?(?<!\S)(?P<local>[\w.+-]{{3,40}})\s+na\s+(?P<provider>{'|'.join(_PROVIDERS)})\b",
    re.IGNORECASE,
)
_MAILBOX_LIKE = re.compile(r"[\d._]")
_SPELLED = vocabulary("malpa malpka at собачка na")
_SPELLS = re.compile(
    r"ma[łl]pk?a\b|\bat\b|собачка|\bna\s+(?:gm|wp|on|o2|in|out|hot|ya|ic)", re.IGNORECASE
)
"""A cheap test that rarely matches; the expensive patterns run only if it does."""
_SIGNS = (("kropka", "."), ("dot", "."), ("punkt", "."), ("крапка", "."), ("podkreslnik", "_"), ("podkreslenie", "_"), ("underscore", "_"),
          ("myslnik", "-"), ("kreska", "-"), ("minus", "-"), ("dash", "-"))  # fmt: skip
_SIGN = re.compile(rf"\s?[\[(]?\b({'|'.join(word for word, _ in _SIGNS)})\b[\])]?\s?")
_BOX = r"(?:mail\w*|e-?mail\w*|mejl\w*|adres\w*|address|adresse|пошт\w*|адрес\w*)"
_WRONG = r"(?:pomyl\w*|literowk\w*|blad\w*|bledn\w*|zl[yae]\w*|zle|nie ten|niepoprawn\w*|typo|wrong|mistake|falsch\w*|помил\w*)"
_DISOWNED = re.compile(rf"\b{_WRONG}\b.{{0,30}}\b{_BOX}|\b{_BOX}.{{0,20}}\b{_WRONG}\b")
_SLIP = re.compile(r"(?:oj|ups|oops|sorry|przepraszam|o nie|kurcze|wait|[ ,.!])*(?:pomylka|pomylil[ae]m sie|literowka|typo|my mistake|blad)[ ,.!]*")  # fmt: skip
_NOT_THEIRS = re.compile(
    r"\b(?:dostal|przysz|otrzymal|got|received)\w*\b[^@]{0,40}\b(?:z|od|from)(?: (?:adres|mail)\w*)? $"
    r"|\b(?:(?:na)?pisal|wyslal|wysylal|slal)(?:[ae]m|[iy]smy)\b[^@]{0,30}\bna(?: (?:adres|mail)\w*)? $"
    r"|\b(?:i|we) (?:wrote|sent)\b[^@]{0,30}\bto $"
)
"""`Dostałem coś z oferta@example.com`, `pisałem do was na biuro@example.com`."""
_UNWANTED = re.compile(
    r"[^@.]{0,20}\b(?:na (?:to|ten|niego|nia)|tam)\b[^@.]{0,15}\bnie (?:pis|wys|sl|przys)"
)
_KNOWN = (
    "gmail.com", "wp.pl", "onet.pl", "o2.pl", "op.pl", "vp.pl", "interia.pl", "interia.eu", "poczta.onet.pl", "poczta.fm", "tlen.pl", "gazeta.pl",
    "outlook.com", "hotmail.com", "yahoo.com", "icloud.com", "proton.me", "protonmail.com", "live.com", "gmx.de", "ukr.net",
    "example.com", "example.pl",
)  # fmt: skip


def find(text: str) -> Reading:
    text = _plain(text)
    if "@" not in text:
        return text, {}
    found = [
        each
        for each in _EMAIL.finditer(text)
        if _plausible(each[0])
        and not _NOT_THEIRS.search(fold(text[max(0, each.start() - 120) : each.start()]))
        and not _UNWANTED.match(fold(text[each.end() : each.end() + 120]))
    ]
    span = corrections.meant(text, [each.span() for each in found])
    return _EMAIL.sub(f" {MARK} ", text), {"email": text[slice(*span)]} if span else {}


@lru_cache(64)  # a turn reads the same message twice
def _plain(text: str) -> str:
    """Convert spelled-out addresses, if the text has no plain one."""
    text = text.replace("’", "'")
    if "@" in text:
        text = _RUN_ON.sub(r"@\1\2. ", text)
        if _EMAIL.search(text):
            return text
    elif _SPELLED.isdisjoint(words(text)) or not _SPELLS.search(text):
        return text
    for pattern, meant in _DICTATED:
        text = pattern.sub(meant, text)
    return _AT_PROVIDER.sub(_at_provider, _SPELT.sub(_written, text))


def _written(match: re.Match[str]) -> str:
    return f"{_signs(match['local'])}@{_signs(match['domain'] or match['spelt'])}"


def _signs(spelt: str) -> str:
    said = _SIGN.sub(lambda sign: dict(_SIGNS)[sign[1]], fold(spelt))
    return re.sub(r"\s", "", said).replace(",", ".")


def _at_provider(match: re.Match[str]) -> str:
    if not match["mail"] and not _MAILBOX_LIKE.search(match["local"]):
        return match[0]
    return f"{match['mail'] or ''}{match['local']}@{_PROVIDERS[match['provider'].lower()]}"


def _plausible(address: str) -> bool:
    return ".." not in address and len(address) <= 254


def suggestion(address: str) -> str | None:
    """Return the likely correction of `anna@gmial.com`. It is only asked about, never applied."""
    local, _, domain = address.lower().rpartition("@")
    if domain in _KNOWN:
        return None
    meant = _meant(domain)
    return f"{local}@{meant}" if meant else None


@lru_cache(1024)  # few domains make most of the addresses, and this costs more than the rest
def _meant(domain: str) -> str | None:
    return next(iter(difflib.get_close_matches(domain, _KNOWN, n=1, cutoff=0.85)), None)


_BARE_DOMAIN = re.compile(
    rf"(?<![\w.@/+-])(?:@\s?|ma[łl]pa\s)?(?P<domain>(?:{'|'.join(_PROVIDERS)})(?:\s?(?:\.|,|\bkropka\b|\bdot\b)\s?{_ENDING})?|[\w-]{{2,40}}\.(?:[\w-]{{2,40}}\.)?{_ENDING})(?![\w@])(?!\s+to\s+nie)", re.IGNORECASE,
)  # fmt: skip
_SLIPPED = re.compile(r"\b(?:literow\w+|pomyl\w*|blad\w*|bled\w*|zle|popraw(?:k|ia)\w*|korekt\w+|(?:mial[oa]?|powin\w+|ma) byc|zamiast|nie\b.{1,30}\btylko|typo|should be|meant|mistake|wrong)\b")  # fmt: skip
_DENIED = re.compile(r"\b(?:nie|not|zamiast|bez)\s+(?:(?!(?:tylko|lecz|ale|a|but)\b)\w+\s+){0,3}$", re.IGNORECASE)  # fmt: skip


def completed(message: str, address: str, *, doubted: bool) -> str | None:
    """Return the message with the whole address for its domain: `ups, gmail.com oczywiście`.

    :param doubted: the address was asked about; else the message must speak of a slip
    """
    if "@" in re.sub(r"(?<!\S)@", "", message) or not (doubted or _SLIPPED.search(fold(message))):
        return None
    local, _, known = address.rpartition("@")
    for match in _BARE_DOMAIN.finditer(message):
        before, domain = message[: match.start()], _signs(match["domain"])
        domain = _PROVIDERS.get(domain, domain)
        is_like = domain in _KNOWN or difflib.get_close_matches(domain, [known], cutoff=0.6)
        if domain != known and is_like and not _DENIED.search(before):
            # First, as `miało być` before it would deny it.
            return f"{local}@{domain}, {before}{message[match.end() :]}"
    return None


def disowned(message: str, *, just_given: bool) -> bool:
    """Return whether a message retracts an address without giving another.

    :param just_given: the previous message gave it
    """
    said = fold(message)
    if not has_any(
        said, ("pomyl", "litero", "bl", "zl", "nie", "typo", "wrong", "mistake", "falsch", "помил")
    ):
        return False
    return bool(_DISOWNED.search(said)) or (just_given and bool(_SLIP.fullmatch(said.strip())))


def named(message: str) -> list[str]:
    """Find every address in a message, whoever it belongs to."""
    return [found[0] for found in _EMAIL.finditer(_plain(spaces(message)))]
