"""Phone numbers, in E.164: runs of digits, by their length, their groups and the words beside them.

vocabulary/phone.toml has the words.
"""

import re
from datetime import date
from functools import lru_cache

from services.followups.reading import amounts
from services.followups.reading.numbers import HAS_DIGIT, in_digits
from services.followups.reading.text import MARK, PHONE_MARK, Reading, words
from services.followups.reading.tokens import Match, Said, Vocabulary
from services.followups.rules.facts import Question

_TOKEN = re.compile(
    r"(?P<run>(?:\+|\(\+?)?\d(?:[\s./()-]{0,3}\d)*)|(?P<word>[^\W\d_]+(?:2(?!\d))?)|(?P<sign>[^\w\s])"
)
_PIECE = re.compile(r"\d(?:[\s-]?\d){2}")
_MANY = re.compile(r"\d(?:[\s,./()-]{0,3}\d){7}")
"""Less than this is only a piece of a number."""
_APART = re.compile(r"(?<=\d)\s?,\s(?=\d)")
"""Between the groups of a number in words."""
_LETTERED = re.compile(r"(?<![\w@/+-])[\dOolI]{3}(?:[\s.()-]{0,2}[\dOolI]{2,3}){2,3}(?![\w@])")
"""`5O3 771 264`: letters for the digits that they look like."""
_LETTERS = str.maketrans("OolI", "0011")
UNREAD = re.compile(r"(?<![\w/.,-])O?\d(?:(?:[\s-]?|(?<=\d{3})\.)[\dO]){4,}(?![\w/]|[.,]\d)")
"""`O3 771 26`: what is left of a message and looks like a number."""
_HOUR = re.compile(r"(?:[7-9]|1\d|2[01])(?:\.\d\d)?(?:\s?-\s?(?:[7-9]|1\d|2[01])(?:\.\d\d)?)?")
_FORMS = {
    "+48": re.compile(r"(?:(?:\+|00?)?48|0)?([1-9]\d{8})"),
    "+49": re.compile(r"0(1[5-7]\d{8,9})"),  # as Germans write a mobile
    "+": re.compile(r"(?:\+|00)(?!48|0)(\d{8,15})"),
}
_UKRAINIAN = ("+380", r"(?:38|8[ -]?)?\(?0([1-9](?:[ ()-]{0,3}\d){8})")
_AT_HOME = {
    "de": [("+49", r"0([1-9](?:[ ()/-]{0,3}\d){7,10})")],
    "uk": [_UKRAINIAN],
    "ru": [_UKRAINIAN, ("+7", r"8([ (-]{0,2}9(?:[ ()-]{0,3}\d){9})")],
}
"""How the speakers of a language write a number without their country's code."""
_SHORT = re.compile(r"(?:\+48\s?)?((?!..-..$)[1-9](?:[\s-]?\d){2,7})")
_MISTYPED = re.compile(r"(?:48)?([4-8](?:\d{7}|\d{9}))")
_ZERO = re.compile(r"\bzero\b", re.IGNORECASE)
_NOT_DIGIT = re.compile(r"\D")
_TOO_LONG = 5
"""Digits alone that are more are no area."""
_DIGITS, _LONGEST_END = 9, 4
_MOBILE = "45678"


class _Said(Said):
    vocabulary = Vocabulary("phone", pattern=_TOKEN)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.runs = [at for at in range(len(self.tokens)) if self.is_kind(at, "{run}")]
        self.numbers = {at: number for at in self.runs if (number := self._number(at))}

    def _number(self, at: int) -> str | None:
        is_glued = at and not self.is_loose(at - 1) and self.tokens[at - 1].word.isalpha()
        is_other = self.is_kind(at + 1, "{unit}") or self.ends("not theirs", at + 1)
        return None if is_glued or is_other else _whole(self.tokens[at].word)

    def digits(self, at: int) -> str:
        return _NOT_DIGIT.sub("", self.tokens[at].word)


_read = lru_cache(16)(_Said)  # a turn asks several things of the same message


def _whole(run: str) -> str | None:
    """Return the number that a run of digits is; None if it is none."""
    digits = _NOT_DIGIT.sub("", run.replace("(0)", ""))  # `+49 (0)151 …`
    said = f"+{digits}" if "+" in run else digits
    numbers = ((code, form.fullmatch(said)) for code, form in _FORMS.items())
    return next((f"{code}{number[1]}" for code, number in numbers if number), None)


def canonical(text: str) -> str | None:
    """Return a given phone number in E.164 if that is certain, else its digits."""
    _, news = find(text, date.min, None)
    return news.get("phone") or re.sub(r"[^\d+]", "", text) or None


# --- A piece of one ----------------------------------------------------------------------------


def piece(text: str, asked: Question | None) -> str | None:
    """Return the digits of the first part of a phone number. Alone they may be a budget."""
    said = _read(text if _PIECE.search(text) else "")
    for at in said.runs:
        short = _SHORT.fullmatch(said.tokens[at].word)
        if short and not said.is_kind(at + 1, "{unit}"):
            digits = _NOT_DIGIT.sub("", short[1])
            is_long = len(digits) > _TOO_LONG and not digits.endswith("000")
            is_due = asked == "contact" or (is_long and not at and asked != "budget")
            if said.ends("label yes", at + 1) or (is_due and _is_all(said, at)):
                return digits
    return None


def _is_all(said: _Said, at: int) -> bool:
    """Return whether the message is a piece of a number and a few words: `anna 516 22, zaraz`."""
    is_led = not any(said.is_kind(one, "{no_name}", "{run}") for one in range(at))
    is_last = all(said.is_kind(one, "{rest}") for one in range(at + 1, len(said.tokens)))
    return is_led and is_last and said.digits(at)[0] in _MOBILE


def joined(before: str, text: str, asked: Question | None) -> str | None:
    """Return the message with the piece of a number before it: `516 22`, `9 041 to dalej`."""
    first = piece(before, asked)
    said = _read(text if first else "")
    at = next(iter(said.runs), None)
    if not first or at is None or said.is_kind(at + 1, "{unit}"):
        return None
    number = first + said.digits(at)
    is_rest = all(said.is_kind(one, "{goes_on}") for one in range(at)) and len(number) <= _DIGITS
    return f"tel. {number} {text[said.tokens[at].end :]}" if is_rest else None


def corrected(known: str, text: str, asking: Question | None) -> str | None:
    """Return the message with the known number's new ending: `końcówka 727, nie 772`.

    `150, nie 200` beside anything else is a budget or an address, not the end of a number.
    """
    said = _read(text if HAS_DIGIT.search(text) else "")
    each = next(iter(_endings(said)), None)
    if said.numbers or each is None:
        return None
    rest = (one for one in range(len(said.tokens)) if not each.start <= one < each.end)
    is_alone = asking not in {"area", "budget", "start"} and all(
        said.is_kind(one, "{beside_ending}", "{run}") for one in rest
    )
    return f"tel. {known} {text}" if is_alone or said.is_said("ending of_phone") else None


def _endings(said: _Said) -> list[Match]:
    found = [each for each in said.of("ending") if each.value != "of_phone"]
    return [each for each in found if not said.is_kind(each.end, "{unit}")]


def _ended(known: str, said: _Said, each: Match) -> str | None:
    """Return the number with its new ending; None if that is not the ending of this number."""
    runs = [said.digits(at) for at in said.runs if each.start <= at < each.end]
    digits, *others = runs[:: -1 if each.value == "new_last" else 1]
    wrong = (others or [known[-len(digits) :]])[0]
    is_end = known.endswith(wrong) and len(wrong) == len(digits) <= _LONGEST_END
    return known.removesuffix(wrong) + digits if is_end else None


def mistyped(text: str) -> str | None:
    """Return the digits of what is a phone number but for one digit too few or too many."""
    text = _in_digits(text)
    said = _read(text) if _MANY.search(text) else None
    if said is None or len(said.runs) != 1 or len(said.tokens) > _DIGITS:
        return None
    digits = _MISTYPED.fullmatch(said.digits(said.runs[0]))
    return digits[1] if digits else None


def _in_digits(text: str) -> str:
    return in_digits(_ZERO.sub("0", text) if "zero" in words(text) else text)


# --- The number --------------------------------------------------------------------------------


def with_country(text: str, language: str) -> str:
    """Return the text with the code in a number that is written as in the language's country."""
    for code, form in _AT_HOME.get(language, ()):
        text = re.sub(rf"(?<![\w+@-])\(?{form}(?!\d)", rf"{code} \1", text)
    return text


def typed(value: str, language: str) -> str | None:
    """Return what was typed into a field for a number, in E.164; None if it is none."""
    return _whole(with_country(value, language))


def find(text: str, _: date, asked: Question | None) -> Reading:
    text = _LETTERED.sub(lambda number: number[0].translate(_LETTERS), text)
    if _MANY.search(spoken := _in_digits(text)):
        said = _read(text)
        if not said.numbers and not said.is_said("not theirs"):
            said = _read(_APART.sub(" ", spoken))
            said = said if _is_phone(said, asked) else _read("")
        if said.numbers and (chosen := _chosen(said)) is not None:
            return _taken(said, chosen)
    if digits := piece(text, asked):
        part = re.compile(r"[\s-]?".join(digits))
        return part.sub(f" {PHONE_MARK} ", text, count=1), {"phone_piece": digits}
    return text, {}


def _is_phone(said: _Said, asked: Question | None) -> bool:
    """Return whether nine digits in words are a number: as of a mobile, or beside a word for phones."""
    is_mobile = any(said.digits(at)[0] in _MOBILE for at in said.numbers)
    is_named = any(said.is_kind(at, "{of_phone}") for at in range(len(said.tokens)))
    return asked == "contact" or is_named or is_mobile


def _chosen(said: _Said) -> int | None:
    """Return the number that the person prefers, or their own; a mobile rather than a landline."""
    better = [at for at in said.numbers if said.ends("prefer yes", at + 1)]
    for _, end in said.all("prefer whom"):  # `do syna`
        whom = said.tokens[end - 1].word[:4]
        near = {at: said.words(max(0, at - 3), at + 3) for at in said.numbers}
        better += [at for at in near if any(word.startswith(whom) for word in near[at])]
    better = better or [at for at in said.numbers if said.ends("prefer mobile", at + 1)]
    spans = {(said.tokens[at].start, said.tokens[at].end): at for at in better or said.numbers}
    # `Nie 505 111 223, pomyliłem się`: the only number is the new one.
    meant = amounts.meant(said.text, [*spans]) if len(spans) > 1 else next(iter(spans))
    return None if meant is None else spans[meant]


def _taken(said: _Said, chosen: int) -> Reading:
    """Take a number, and the hours to call, which are no area and no budget."""
    number, tokens = said.numbers[chosen], said.tokens
    news: dict[str, object] = {"phone": number, "phones": len(said.numbers)}
    cuts = {(at, at + 1): MARK for at in said.numbers} | {(chosen, chosen + 1): PHONE_MARK}
    for each in _endings(said):
        if each.start > chosen and (ended := _ended(number, said, each)):
            news["phone"], cuts[each.start, each.end] = ended, ""
    hours = [
        at  # `501 502 503 po 16`
        for at in said.runs
        if _HOUR.fullmatch(tokens[at].word)
        if said.is_kind(at - 1, "{led}") or "-" in tokens[at].word
        if not said.is_kind(at + 1 + 2 * said.is_kind(at + 1, "{to}"), "{unit}", "{month}")
    ]
    cuts |= {(at - said.is_kind(at - 1, "{led}"), at + 1): "" for at in hours}
    is_to_call = any(not said.ends("works yes", at - 1) for at in hours)  # `prace tylko po 17`
    if is_to_call or said.is_said("hours yes"):
        news["has_hours"] = True
    return said.marked(cuts), news
