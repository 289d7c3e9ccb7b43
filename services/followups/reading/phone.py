"""Phone numbers, in E.164: runs of digits, by their length, their groups and the words beside them.

vocabulary/phone.toml has the words.
"""

import re
from datetime import date
from functools import lru_cache

from services.followups.reading import amounts
from services.followups.reading.numbers import HAS_DIGIT, in_digits
from services.followups.reading.text import MARK, PHONE_MARK, Reading, words
from services.followups.reading.tokens import Match, Said, Vocabulary, words_of
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
_ZERO = re.compile(r"\bzero\b", re.IGNORECASE)
_NOT_DIGIT = re.compile(r"\D")
_TOO_LONG = 5
"""Digits alone that are more are no area."""
_DIGITS = 9
_MOBILE = "45678"
_LABELS = words_of("phone", "labels")
_BREAKS = {".", ",", "…", "-"}


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
    if "+" in run or digits.startswith("00"):
        digits = digits.lstrip("0")
        lengths = {11} if digits.startswith("48") else range(8, 16)
        return f"+{digits}" if len(digits) in lengths else None
    if re.fullmatch("01[5-7][0-9]{8,9}", digits):  # as Germans write a mobile
        return f"+49{digits[1:]}"
    prefix = len(digits) - _DIGITS
    if prefix < 0 or digits[:prefix] not in {"", "0", "48"} or digits[prefix] == "0":
        return None
    return f"+48{digits[prefix:]}"


def canonical(text: str) -> str | None:
    """Return a given phone number in E.164 if that is certain, else its digits."""
    _, news = find(text, date.min, None)
    return news.get("phone") or re.sub(r"[^\d+]", "", text) or None


# --- A piece of one ----------------------------------------------------------------------------


def piece(text: str, asked: Question | None) -> str | None:
    """Return the digits of the first part of a phone number. Alone they may be a budget."""
    may_be = asked == "contact" or text[:1] in "+123456789" or not _LABELS.isdisjoint(words(text))
    said = _read(text) if may_be and _PIECE.search(text) else None
    for at in said.runs if said else ():
        if said and (digits := _short(said, at)):
            is_long = len(digits) > _TOO_LONG and not digits.endswith("000")
            is_due = asked == "contact" or (is_long and not at and asked != "budget")
            if said.ends("label yes", at + 1) or (is_due and _is_all(said, at)):
                return digits
    return None


def _short(said: _Said, at: int) -> str | None:
    """Return the digits of a run that is less than a number."""
    run, digits = said.tokens[at].word, said.digits(at)
    digits = digits.removeprefix("48") if run[0] == "+" else digits
    is_other = re.search(r"[./()]|^\d\d?-\d\d?$", run) or said.is_kind(at + 1, "{unit}")
    is_decimal = re.match(r"[.,/]\d", said.text[said.tokens[at].end :])
    is_short = 3 <= len(digits) < _DIGITS and digits[0] != "0"
    return digits if is_short and not (is_other or is_decimal) else None


def _is_all(said: _Said, at: int) -> bool:
    """Return whether the message is a piece of a number and a few words: `anna 516 22, zaraz`."""
    after = range(at + 1, len(said.tokens))
    is_led = at <= 5 and not any(said.is_kind(one, "{no_name}", "{run}") for one in range(at))
    is_last = all(
        said.is_kind(one, "{rest}") or said.words(one, one + 1)[0] in _BREAKS for one in after
    )
    return is_led and is_last and said.digits(at)[0] in _MOBILE


def joined(before: str, text: str, asked: Question | None) -> str | None:
    """Return the message with the piece of a number before it: `516 22`, `9 041 to dalej`."""
    if not HAS_DIGIT.search(text):
        return None
    said = _read(text)
    at = next(iter(said.runs), None)
    is_rest = at is not None and all(
        said.is_kind(one, "{goes_on}") or not said.tokens[one].word.isalnum() for one in range(at)
    )
    if at is None or not is_rest or said.is_kind(at + 1, "{unit}") or len(said.digits(at)) > 6:
        return None
    first = piece(before, asked)
    number, after = (first or "") + said.digits(at), text[said.tokens[at].end :]
    # `516`, `22`: the third part is still to come.
    is_whole = len(number) == _DIGITS or (len(number) < _DIGITS and not after)
    return f"tel. {number} {after}" if first and is_whole else None


def corrected(known: str, text: str, asking: Question | None) -> str | None:
    """Return the message with the known number's new ending: `końcówka 727, nie 772`.

    `150, nie 200` beside anything else is a budget or an address, not the end of a number.
    """
    said = _read(text) if HAS_DIGIT.search(text) else None
    if said is None or said.numbers or not (found := _endings(said)):
        return None
    each = found[0]
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
    wrong = others[0] if others else ""
    number = known[: -len(wrong or digits)] + digits
    is_end = 2 <= len(digits) <= 4 and known.endswith(wrong) and len(number) == len(known)
    return number if is_end else None


def mistyped(text: str) -> str | None:
    """Return the digits of what is a phone number but for one digit too few or too many."""
    said = _read(_in_digits(text)) if _MANY.search(_in_digits(text)) else None
    if said is None or len(said.runs) != 1 or len(said.tokens) > _DIGITS:
        return None
    digits = said.digits(said.runs[0])
    if said.tokens[said.runs[0]].word.startswith("+48") or len(digits) == _DIGITS + 3:
        digits = digits.removeprefix("48")
    return digits if len(digits) in {_DIGITS - 1, _DIGITS + 1} and digits[0] in _MOBILE else None


def _in_digits(text: str) -> str:
    return in_digits(_ZERO.sub("0", text) if "zero" in words(text) else text)


# --- The number --------------------------------------------------------------------------------


def find(text: str, _: date, asked: Question | None) -> Reading:
    if HAS_DIGIT.search(text):
        text = _LETTERED.sub(lambda number: number[0].translate(_LETTERS), text)
    spoken = _in_digits(text)
    if not HAS_DIGIT.search(spoken):
        return text, {}
    if _MANY.search(spoken):
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
    """Return whether nine digits in words are a number: alone, or beside a word for phones."""
    is_short = len(said.tokens) <= _DIGITS + 1 and len(said.runs) == 1
    is_alone = is_short and said.digits(said.runs[0])[0] in _MOBILE
    is_named = any(said.is_kind(at, "{of_phone}") for at in range(len(said.tokens)))
    return asked == "contact" or is_named or (is_alone and asked not in {"area", "budget"})


def _chosen(said: _Said) -> int | None:
    """Return the number that the person prefers, or their own; a mobile rather than a landline."""
    better = [at for at in said.numbers if said.ends("prefer yes", at + 1)]
    for _, end in said.all("prefer whom"):  # `do syna`
        whom = said.tokens[end - 1].word[:4]
        near = {at: said.words(max(0, at - 3), at + 3) for at in said.numbers}
        better += [at for at in near if any(word.startswith(whom) for word in near[at])]
    better = better or [at for at in said.numbers if said.ends("prefer mobile", at + 1)]
    spans = {(said.tokens[at].start, said.tokens[at].end): at for at in better or said.numbers}
    meant = amounts.meant(said.text, [*spans])
    return None if meant is None else spans[meant]


def _taken(said: _Said, chosen: int) -> Reading:
    """Take a number, and the hours to call, which are no area and no budget."""
    number, tokens = said.numbers[chosen], said.tokens
    news: dict[str, object] = {"phone": number}
    cuts = {(at, at + 1): MARK for at in said.numbers} | {(chosen, chosen + 1): PHONE_MARK}
    for each in _endings(said):
        if each.start > chosen and (ended := _ended(number, said, each)):
            news["phone"], cuts[each.start, each.end] = ended, ""
    hours = [
        at  # `501 502 503 po 16`
        for at in said.runs
        if at not in said.numbers and _HOUR.fullmatch(tokens[at].word)
        if said.is_kind(at - 1, "{led}") or "-" in tokens[at].word
        if not said.is_kind(at + 1, "{unit}", "{month}", "{to}")
    ]
    cuts |= {(at - said.is_kind(at - 1, "{led}"), at + 1): "" for at in hours}
    if hours or said.is_said("hours yes"):
        news["has_hours"] = True
    if len(said.numbers) > 1:
        news["phones"] = len(said.numbers)
    text = said.text
    for (start, end), mark in sorted(cuts.items(), reverse=True):
        text = f"{text[: tokens[start].start]} {mark} {text[tokens[end - 1].end :]}"
    return text, news
