"""Detects the language of a message, by the words of vocabulary/language.toml and its letters."""

import re

from services.followups.reading.tokens import words_of

_WORDS = {name: words_of("language", name) for name in ("pl", "en", "de", "uk", "ru")}
_ALONE = words_of("language", "de_alone")
_POLISH = re.compile("[ąćęłńóśźż]")
_GERMAN = re.compile("[äöüß]")
_CYRILLIC = re.compile("[а-яёіїєґ]{2,}")
_EAST = {
    "uk": re.compile(r"[іїєґ]|[аиу]ти(?:ся)?\b"),
    "ru": re.compile(
        r"[ыэъё]|\w\w(?:ая|ое|ие|ии|ия|ой|[аеуя][ею]т(?:ся)?|[влмнорчшж]ит)\b|\b[ис]\b"
    ),
}
"""Letters and endings that the other one does not have."""
_NAMES = re.compile(r"\b[A-ZĆŁŚŹŻ]\w+")
_NEUTRAL = re.compile(r"\S+(?:@|\s?[(\[{]at[)\]}]\s?)\S+|(?<![^\W\d_])zł(?:oty)?\b", re.IGNORECASE)
"""Addresses and our currency."""
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def of(message: str, current: str, *, begun: bool = False) -> str:
    """Return the language, changed only by clear evidence: not by a bare number, address or name.

    :param begun: something was said before, so that one word (`thanks`) changes nothing

    Cyrillic that may be both is Ukrainian, unless they write in Russian.
    """
    text = message.lower()
    if any(each in text for each in ("@", "at)", "at]", "at}", "zł")):
        message = _NEUTRAL.sub(" ", message)
    text = message.lower().replace("’", "'")
    words = _WORD.findall(text)
    points = {language: sum(map(known.__contains__, words)) for language, known in _WORDS.items()}
    is_abroad = begun and current != "pl" and not points["pl"]  # `Wilanów, developer state`
    if is_abroad or max(points["en"], points["de"]) > max(1, points["pl"]):
        text = _NAMES.sub(" ", message).lower()
    points["pl"] += 2 * len(_POLISH.findall(text))
    if points["de"]:  # German letters alone may be part of a name: Müller
        points["de"] += 2 * (len(_GERMAN.findall(text)) + sum(map(_ALONE.__contains__, words)))
    if points["de"] < 2:
        points["de"] = 0
    uk, ru = (points.pop(each) + len(_EAST[each].findall(text)) for each in ("uk", "ru"))
    if eastern := _CYRILLIC.findall(text) if len(text) > 2 else None:
        is_russian = ru > uk or (ru == uk and current == "ru")
        points["ru" if is_russian else "uk"] = 2 * len(eastern)
    best = max(points.values())
    leading = [language for language, count in points.items() if count == best]
    return current if len(leading) > 1 or (begun and best < 2) else leading[0]
