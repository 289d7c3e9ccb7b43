"""E-mail addresses, as people write, spell and correct them. vocabulary/addresses.toml has the words
beside one, and domains.toml the domains.
"""

import difflib
import re
from functools import lru_cache

from libs.domain.mistyped import PROVIDERS
from services.followups.reading import amounts
from services.followups.reading.numbers import in_digits
from services.followups.reading.speech import heard
from services.followups.reading.text import MARK, Reading, spaces, told, words
from services.followups.reading.tokens import words_of

_TOLD = told("domains")
_LOCAL = r"(?<![\w.+%-])(?<!\w')[\w+%-](?:[\w.+%'-]{0,62}[\w+%-])?"
_DOMAIN = r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}"
_EMAIL = re.compile(rf"{_LOCAL}@{_DOMAIN}(?![\w@-])")
_ENDINGS = "|".join(_TOLD["endings"]["yes"])
_ENDING = rf"(?i:{_ENDINGS})\b"
_RUN_ON = re.compile(r"(@(?:[\w-]{1,63}\.){1,8}?(?:pl|com|eu))(?=\d{3}[ -]?\d{3}[ -]?\d{3}\b)")
"""`jan@wp.pl600700800`"""
_SENTENCE = re.compile(
    rf"(@(?:[\w-]{{1,63}}\.){{1,8}}?{_ENDING})\.(?!(?i:pl|com|eu)\b|(?:{_ENDINGS})\b)"
    r"(?=(?:[A-ZĄĆĘŁŃÓŚŹŻ]|[^\W\d_]{3})[^\W\d_]*+(?!\.[^\W\d_]|[\w@-]))"
)
"""`jan@wp.pl.Dziękuję`: the next sentence follows the dot."""
_SIGNS = {word: sign for sign, words in _TOLD["signs"].items() for word in words}
_SIGN = re.compile(rf"\s?[\[(]?\b({'|'.join(_SIGNS)})\b[\])]?\s?", re.IGNORECASE)
_AT = re.compile(
    r"\s*[\[({]\s?(?:at|ma[łl]pk?a)\s?[\])}]\s*"
    r"|(?<!krop[ke][ik]),?\s+(?:ma[łl]pk?a|собачка),?\s+"
    r"|(?<=\w)\s?@\s?(?=\w)"
    rf"|\s+[aä]t\s+(?=[\w.-]{{1,60}}\.{_ENDING})",
    re.IGNORECASE,
)
_PAUSED = re.compile(rf"(@[\w-]{{1,60}})(?:\s\.\s?|\s?,\s?|\.\s)(?={_ENDING})")
"""`jan@wp , pl`"""
_PROVIDERS: dict[str, str] = _TOLD["providers"]
_AT_PROVIDER = re.compile(
    rf"(?<=@)({'|'.join(_PROVIDERS)})\s?(?:com|pl)?(?=[;!?)]|[.,]?$|[.,]?\s)", re.IGNORECASE
)
_ON_PROVIDER = re.compile(
    rf"(?<!\S)([\w.+-]{{3,40}})\s+na\s+({'|'.join(_PROVIDERS)})\b", re.IGNORECASE
)
_MAILBOX_LIKE = re.compile(r"[\d._]")
_HANDLE = re.compile(
    rf"\b(?:{'|'.join(words_of('addresses', 'social'))})\w*\W{{1,3}}@\w"
    rf"|(?:^|\s)@(?!(?:[\w-]{{1,60}}\.){{1,4}}{_ENDING}|(?:{'|'.join(_PROVIDERS)})\b)\w",
    re.IGNORECASE,
)
"""`@kasia.wnetrza`: a name elsewhere, and no address."""
_NUMBERED = re.compile(r"(?<=\w)\s(?=\d{1,4}@)")
"""`ania 82 małpa wp.pl`"""
_PE_EL = re.compile(r"\.p(?:e\s?e|\s)l\b", re.IGNORECASE)
_SPELLED = words_of("addresses", "spelled")


def find(text: str) -> Reading:
    text = _plain(text)
    if "@" not in text:
        return text, {}
    said = heard(text)
    others = [(said.tokens[a].start, said.tokens[b - 1].end) for a, b in said.all("not theirs")]
    found = [
        each.span()
        for each in _EMAIL.finditer(text)
        if ".." not in each[0] and len(each[0]) <= 254
        if not any(first <= each.start() < last for first, last in others)
    ]
    span = amounts.meant(text, found)
    return _EMAIL.sub(f" {MARK} ", text), {"email": text[slice(*span)]} if span else {}


@lru_cache(64)  # a turn reads the same message twice
def _plain(text: str) -> str:
    """Convert spelled-out addresses, if the text has no plain one."""
    text = text.replace("’", "'")
    if "@" in text:
        text = _SENTENCE.sub(r"\1. ", _RUN_ON.sub(r"\1 ", text))
        if _EMAIL.search(text):
            return text
        if _HANDLE.search(text):
            return text
    elif _SPELLED.isdisjoint(words(text)):
        return text
    spelt = _ON_PROVIDER.sub(_on_provider, text)
    spelt = _SIGN.sub(lambda said: _SIGNS[said[1].lower()], in_digits(spelt))
    spelt = _PE_EL.sub(".pl", _NUMBERED.sub("", _AT.sub("@", spelt)))
    spelt = _AT_PROVIDER.sub(lambda said: _PROVIDERS[said[1].lower()], _PAUSED.sub(r"\1.", spelt))
    return spelt if _EMAIL.search(spelt) else text


def _on_provider(match: re.Match[str]) -> str:
    """`kasia85 na wp`"""
    is_box = _MAILBOX_LIKE.search(match[1]) or "mail" in match.string[: match.start()].lower()
    return f"{match[1]}@{_PROVIDERS[match[2].lower()]}" if is_box else match[0]


_BARE_DOMAIN = re.compile(
    rf"(?<![\w.@/+-])@?((?:{'|'.join(_PROVIDERS)})|[\w-]{{2,40}}\.(?:[\w-]{{2,40}}\.)?{_ENDING})(?![\w@.])",
    re.IGNORECASE,
)


def completed(message: str, address: str, *, doubted: bool) -> str | None:
    """Return the message with the whole address for its domain: `ups, gmail.com oczywiście`.

    :param doubted: the address was asked about; else the message must speak of a slip
    """
    message = _SIGN.sub(lambda said: _SIGNS[said[1].lower()], message)
    is_slip = doubted or heard(message).is_said("slipped yes")
    if _EMAIL.search(message) or not is_slip:
        return None
    local, _, known = address.rpartition("@")
    for match in _BARE_DOMAIN.finditer(message):
        before, domain = message[: match.start()], match[1].lower()
        domain = _PROVIDERS.get(domain, domain)
        is_like = domain in PROVIDERS or difflib.get_close_matches(domain, [known], cutoff=0.6)
        if domain != known and is_like and not heard(before).is_said("denied yes"):
            # First, as `miało być` before it would deny it.
            return f"{local}@{domain}, {before}{message[match.end() :]}"
    return None


def named(message: str) -> list[str]:
    """Find every address in a message, whoever it belongs to."""
    return [found[0] for found in _EMAIL.finditer(_plain(spaces(message)))]
