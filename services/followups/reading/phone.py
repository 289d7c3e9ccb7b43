"""Phone numbers, in E.164: runs of digits, by their length, their groups and the words beside them.

vocabulary/phone.toml has the words.
"""

import re
from datetime import date
from functools import lru_cache
from itertools import accumulate

from services.followups.reading import corrections
from services.followups.reading.name import FIRST_NAMES
from services.followups.reading.numbers import HAS_DIGIT, in_digits
from services.followups.reading.text import MARK, PHONE_MARK, Reading, vocabulary, words
from services.followups.reading.tokens import Match, Said, Vocabulary
from services.followups.rules.facts import Question

_TOKEN = re.compile(
    r"(?P<run>(?:\+|\(\+?)?\d(?:[\s./()-]{0,3}\d)*)|(?P<word>[^\W\d_]+(?:2(?!\d))?)|(?P<sign>[^\w\s])"
)
_WORDS = Vocabulary("phone", pattern=_TOKEN)
_PIECE = re.compile(r"\d(?:[\s-]?\d){2}")
_MANY = re.compile(r"\d(?:[\s,./()-]{0,3}\d){7}")
"""Less than this is only a piece of a number."""
_LOOSE = re.compile(r"(?<![\w.,+])0?(?P<number>[1-9](?:[\s,./()-]{0,3}\d){8})(?![\s.-]?\d)")
"""A number in words or digit by digit, in a text that mentions a phone."""
_LETTERED = re.compile(r"(?<![\w@/+-])[\dOolI]{3}(?:[\s.()-]{0,2}[\dOolI]{2,3}){2,3}(?![\w@])")
"""`5O3 771 264`: letters for the digits that they look like."""
_LETTERS = str.maketrans("OolI", "0011")
UNREAD = re.compile(r"(?<![\w/.,-])O?\d(?:(?:[\s-]?|(?<=\d{3})\.)[\dO]){4,}(?![\w/]|[.,]\d)")
"""`O3 771 26`: what is left of a message and looks like a number."""
_HOUR = re.compile(r"(?:[7-9]|1\d|2[01])(?:\.\d\d)?(?:\s?-\s?(?:[7-9]|1\d|2[01])(?:\.\d\d)?)?")
_ZERO = re.compile(r"\bzero\b", re.IGNORECASE)
_NOT_DIGIT = re.compile(r"\D")
_GROUPS = ({3, 6}, {2, 5, 7}, {3, 5, 7}, set(range(1, 9)))
"""Where a Polish number may be divided."""
_MOBILES = ("45", "50", "51", "53", "57", "60", "66", "69", "72", "73", "78", "79", "88")
_TOO_LONG = 5
"""Digits alone that are more are no area."""
_DIGITS = 9
_MOBILE = "45678"
_LABELS = vocabulary(
    "nr numer numerem numeru tel telefon telefonu kom komorka komorki phone number"
)
_BREAKS = {".", ",", "…", "-"}


class _Said(Said):
    def __init__(self, text: str) -> None:
        super().__init__(_WORDS, text, "phone")
        self.runs = [at for at in range(len(self.tokens)) if self.is_kind(at, "{run}")]
        self.numbers = {at: number for at in self.runs if (number := self._number(at))}

    def _number(self, at: int) -> str | None:
        glued = at and self.tokens[at - 1].end == self.tokens[at].start
        if self.is_kind(at + 1, "{unit}") or self.ends("not theirs", at + 1):
            return None
        return (
            None if glued and self.tokens[at - 1].word.isalpha() else _whole(self.tokens[at].word)
        )

    def digits(self, at: int) -> str:
        return _NOT_DIGIT.sub("", self.tokens[at].word)

    def runs_of(self, each: Match) -> list[str]:
        return [self.digits(at) for at in self.runs if each.start <= at < each.end]


_read = lru_cache(16)(_Said)  # a turn asks several things of the same message


def _whole(run: str) -> str | None:
    """Return the number that a run of digits is; None if it is none."""
    digits = _NOT_DIGIT.sub("", run)
    if "+" in run or digits.startswith("00"):
        digits = digits.lstrip("0")
        is_polish = digits.startswith("48")
        return (
            f"+{digits}" if len(digits) in (range(11, 12) if is_polish else range(8, 16)) else None
        )
    if re.fullmatch("01[5-7][0-9]{8,9}", digits):  # as Germans write a mobile
        return f"+49{digits[1:]}"
    prefix = len(digits) - _DIGITS
    if prefix < 0 or digits[:prefix] not in {"", "0", "48"} or digits[prefix] == "0":
        return None
    cuts = {cut - prefix for cut in accumulate(map(len, re.findall(r"\d+", run)))} - {0, _DIGITS}
    return f"+48{digits[prefix:]}" if any(cuts <= each for each in _GROUPS) else None


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
            is_due = asked == "contact" or (
                not (at or asked == "budget")
                and len(digits) > _TOO_LONG
                and not digits.endswith("000")
            )
            if said.ends("label yes", at + 1) or (is_due and _is_all(said, at, digits)):
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


def _is_all(said: _Said, at: int, digits: str) -> bool:
    """Return whether the message is a piece of a number and a few words: `anna 516 22, zaraz`."""
    before, after = said.tokens[:at], said.tokens[at + 1 :]
    words = sum(each.word.isalpha() for each in before)
    is_led = words <= 4 and not any({"{no_name}", "{run}"} & each.kinds.keys() for each in before)
    is_last = all("{rest}" in each.kinds or each.word in _BREAKS for each in after)
    return is_led and is_last and digits[0] in _MOBILE


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
    first = piece(before, asked) or mistyped(before)
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
    rest = [one for one in range(len(said.tokens)) if not each.start <= one < each.end]
    is_all = all(said.is_kind(one, "{beside_ending}", "{run}") for one in rest)
    is_alone = is_all and asking not in {"area", "budget", "start"}
    number = _ended(known, said, each) if is_alone or said.is_said("ending of_phone") else None
    return f"tel. {number} {text[said.tokens[each.end - 1].end :]}" if number else None


def _endings(said: _Said) -> list[Match]:
    found = [each for each in said.of("ending") if each.value != "of_phone"]
    return [each for each in found if not said.is_kind(each.end, "{unit}")]


def _ended(known: str, said: _Said, each: Match) -> str | None:
    """Return the number with its new ending; None if that is not the ending of this number."""
    digits, *others = said.runs_of(each)[:: -1 if each.value == "new_last" else 1]
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
        if said.numbers and (chosen := _chosen(said)) is not None:
            return _taken(said, chosen)
        match = None if said.is_said("not theirs") else _LOOSE.search(spoken)
        if match and _is_phone(spoken, match, asked, is_spoken=spoken != text):
            number = "+48" + _NOT_DIGIT.sub("", match["number"])
            return f"{spoken[: match.start()]} {PHONE_MARK} {spoken[match.end() :]}", {
                "phone": number
            }
    if digits := piece(text, asked):
        part = re.compile(r"[\s-]?".join(digits))
        return part.sub(f" {PHONE_MARK} ", text, count=1), {"phone_piece": digits}
    return text, {}


def _is_phone(text: str, match: re.Match[str], asked: Question | None, *, is_spoken: bool) -> bool:
    """Return whether nine digits in any groups are a number: alone, or beside a word for phones."""
    said = _read(f"{text[: match.start()]} {MARK} {text[match.end() :]}")
    if said.is_kind(
        next(at for at, each in enumerate(said.tokens) if each.word == MARK) + 1, "{unit}"
    ):
        return False
    others = len(said.tokens) - 1
    is_alone = (
        match["number"][0] in _MOBILE and not said.runs and others <= (_DIGITS if is_spoken else 1)
    )
    is_named = any(said.is_kind(at, "{of_phone}") for at in range(len(said.tokens)))
    return asked == "contact" or is_named or (is_alone and asked not in {"area", "budget"})


def _chosen(said: _Said) -> int | None:
    """Return the number that the person prefers, or their own; a mobile rather than a landline."""
    found = [*said.numbers]
    if better := [at for at in found if said.ends("prefer yes", at + 1)]:
        return better[0]
    if len(found) == 1:
        return None if corrections.is_rejected(said.text, said.tokens[found[0]].start) else found[0]
    whom = [said.tokens[end - 1].word[:4] for _, end in said.all("prefer whom")]
    named = [
        at
        for at in found
        if whom and any(word.startswith(whom[-1]) for word in said.words(max(0, at - 3), at + 3))
    ]
    spans = {(said.tokens[at].start, said.tokens[at].end): at for at in named or found}
    meant = corrections.meant(said.text, [*spans])
    at = None if meant is None else spans[meant]
    if at is not None and said.numbers[at].startswith("+48") and not _is_mobile(said.numbers[at]):
        later = (one for one in found if one > at and _is_mobile(said.numbers[one]))
        beside = (
            one for one in later if all(said.is_kind(each, "{or}") for each in range(at + 1, one))
        )
        return next(beside, at)
    return at


def _is_mobile(number: str) -> bool:
    return number.removeprefix("+48").startswith(_MOBILES)


def _taken(said: _Said, chosen: int) -> Reading:
    """Take a number and the hours beside it, which are no area and no budget."""
    number, tokens = said.numbers[chosen], said.tokens
    news: dict[str, object] = {"phone": number}
    cuts = {(at, at + 1): MARK for at in said.numbers if at != chosen}
    for each in _endings(said):
        if each.start > chosen and (ended := _ended(number, said, each)):
            news["phone"], cuts[each.start, each.end] = ended, ""
    first = _hours_before(said, chosen)
    last = _hours_after(said, chosen + 1)
    cuts[chosen if first is None else first, chosen + 1] = PHONE_MARK
    if last:
        cuts[last] = ""
    if first is not None or last:
        news["has_hours"] = True
    if len(said.numbers) > 1:
        news["phones"] = len(said.numbers)
    text = said.text
    for (start, end), mark in sorted(cuts.items(), reverse=True):
        text = f"{text[: tokens[start].start]} {mark} {text[tokens[end - 1].end :]}"
    return text, news


def _hours_after(said: _Said, at: int) -> tuple[int, int] | None:
    """Return the hours after a number or its name: `501 502 503 Ania, po 16`."""
    name = at + (said.words(at, at + 1) in ([","], ["("], ["-"]))
    name += said.is_kind(name, "{title}")
    if name < len(said.tokens) and said.tokens[name].word in FIRST_NAMES:
        is_followed = name + 1 < len(said.tokens) and said.tokens[name + 1].word.isalpha()
        at = name + 1 + (is_followed and not said.is_kind(name + 1, "{soft}", "{led}"))
    start = at
    while said.is_kind(at, "{soft}"):
        at += 1
    if end := said.end_of("hours yes", at):
        return start, end
    is_led = said.is_kind(at, "{led}")
    end = _hour_end(said, at + is_led)
    is_range = "-" in said.tokens[end - 1].word if end else False
    return (start, end) if end and (is_led or is_range) else None


def _hour_end(said: _Said, at: int) -> int:
    if at >= len(said.tokens) or not _HOUR.fullmatch(said.tokens[at].word):
        return 0
    is_to = said.is_kind(at + 1, "{to}") and said.is_kind(at + 2, "{run}")
    if said.words(at + 1, at + 2) == [":"] and said.is_kind(at + 2, "{run}"):  # `16:00`
        return at + 3
    end = at + 3 if is_to and _HOUR.fullmatch(said.tokens[at + 2].word) else at + 1
    return 0 if (is_to and end == at + 1) or said.is_kind(end, "{unit}", "{month}") else end


def _hours_before(said: _Said, at: int) -> int | None:
    """Return where the hours before a number begin: `po 16 tel. 501 502 503`."""
    end = at
    while end and said.is_kind(end - 1, "{soft}"):
        end -= 1
    start = end - 2
    if start < 0 or not said.is_kind(start, "{led}") or _hour_end(said, start + 1) != end:
        return None
    return start if start == 0 or said.is_kind(start - 1, "{soft}") else None
