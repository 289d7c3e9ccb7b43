"""Phone numbers, in E.164."""

import re
from collections.abc import Iterable
from datetime import date

from services.followups.reading import corrections
from services.followups.reading.name import FIRST_NAMES
from services.followups.reading.numbers import HAS_DIGIT, in_digits
from services.followups.reading.text import MARK, PHONE_MARK, Reading, fold, take, words
from services.followups.reading.units import FEET, METRES, MONEY
from services.followups.rules.facts import Question

KIN = (
    r"szwagier|szwagr\w*|brat\w{0,2}|siostr\w*|przyjaci\w*|kump[el]\w*|s[ąa]siad\w*|koleg\w*|kole[żz]an\w*|znajom\w*|kuzyn\w*|te[śs](?:[ćc]|ci)\w*|rodzic\w*|syn\w{0,2}|c[óo]rk\w*|cioci\w*|ciotk\w*"
    r"|brother|sister|neighbou?r|friend"
)
_SEP = r"[\s.()/-]{0,2}"
_AFTER = rf"(?![\s.-]?\d)(?!\s?(?:{MONEY}|{METRES}|{FEET}))"
_POLISH = re.compile(
    rf"(?<![\w+])(?:(?<!\d[\s.-])|(?<=m2\s))(?:(?:\+|00\s?)?48{_SEP}|0[\s-]?)?(?P<number>\(?[1-9](?:\d\)?[\s./-]?\d{{3}}[\s.-]?\d{{2}}[\s.-]?\d{{2}}|\d{{2}}(?:[\s./-]?|\s-\s)\d{{3}}(?:[\s./-]?|\s-\s)\d{{3}}"
    rf"|\d{{2}}[\s.-]?\d{{2}}[\s.-]?\d{{2}}[\s.-]?\d{{2}}|(?:\s\d){{8}})){_AFTER}",
    re.IGNORECASE,
)
_PLUS48 = re.compile(rf"(?:\+|\b00\s?)48(?P<number>(?:{_SEP}\d){{9}})(?![\s.-]?\d)")
_FOREIGN = re.compile(rf"(?:\+|\b00)(?P<number>[1-9](?:{_SEP}\d){{7,14}})(?!\d)")
_GERMAN = re.compile(rf"(?<![\w+])0(?P<number>1[5-7]\d(?:[\s/-]?\d){{7,8}}){_AFTER}", re.IGNORECASE)
"""A mobile number as Germans write it: no Polish one is that long."""
_LOOSE = re.compile(
    rf"(?<![\w.,+])0?(?P<number>[1-9](?:[\s,./()-]{{0,3}}\d){{8}}){_AFTER}", re.IGNORECASE
)
"""A number in words or digit by digit, in a text that mentions a phone."""
_ALONE = re.compile(r"[4-8](?:[\s,./()-]{0,3}\d){8}[\s.]*")
"""A message that is nothing else."""
_DICTATED = re.compile(
    r"(?:[^\W\d_]{2,20}[\s,.:]+){0,5}[4-8](?:[\s,./()-]{0,3}\d){8}(?:[\s,.]+[^\W\d_]{2,20}){0,5}[\s.!]*"
)
"""`Siedem osiem osiem … marcin`: of number words, so many digits are nothing else."""
_MISTYPED = re.compile(
    r"(?:[^\W\d_]{1,20}[\s.,:]+){0,4}(?:\+?48[\s-]?)?(?P<number>[4-8](?:[\s-]?\d){7}|[4-8](?:[\s-]?\d){9})(?:[\s.,!]+[^\W\d_]{1,20}){0,4}[\s.,!]*"
)
_LETTERED = re.compile(
    rf"(?<![\w@/+-])(?<!\d[.,])(?:\+?48\s?)?[1-9](?:(?:\d|[OolI](?=[\dOolI])|(?<=[\dOolI])[OolI])[\s.()-]{{0,2}}){{7}}[\dOolI]{_AFTER}(?![\w@])"
)
"""`5O3 771 264`: letters for the digits that they look like, never alone (`5 o 3`)."""
_LETTERS = str.maketrans("OolI", "0011")
_NO_NAME = r"(?!(?:bud[żz]\w*|metr\w*|pow\w{0,8}|kod\w*|ul|ulica|ok|oko[łl]o|za|do|po|od|lok|lokal\w*|mieszk\w+|dom|domu|nip|rok\w?|cen[aęy]|koszt\w*|maks|max|min|w|dzwo\w+|godz\w*|mi[ęe]dzy|nr|blok|klatka|tel\w*|numer\w*|kom|kom[óo]rk\w*|phone|number)\b)"
_PIECE = re.compile(
    rf"(?:^(?P<led>(?:{_NO_NAME}[^\W\d_]{{1,20}}+[\s.,:;-]++){{0,4}}+)(?!\d\d?-\d\d?\b)|\b(?=[ntkp])(?<!lokal\s)(?<!lokalu\s)(?<!mieszkanie\s)(?<!mieszkania\s)(?<!pok[óo]j\s)(?:nr|numer\w*|tel|telefon\w*|kom|kom[óo]rk\w*|phone|number)\b[\s.:,-]*(?:(?:to|jest|m[óo]j|telefonu|tel|kom\w*|is)[\s.:]+)*(?P<named>))"
    rf"(?:\+?48[\s-]?)?(?P<number>[1-9](?:[\s-]?\d){{2,7}})(?=(?P<alone>(?:[\s.,…-]|\b(?:reszt\w+|zaraz|za\schwil\w+|dalej|cd|i)\b)*$))?(?![\s-]?\d|[.,/]\d|\s?(?:{MONEY}|{METRES}|{FEET}))",
    re.IGNORECASE,
)
"""`Mój numer 516 22`: the rest may follow in the next message."""
_REST = re.compile(
    rf"[.…-]*(?:(?:no|i|a|oraz|to|jest|dalej|dalsz\w+|ci[ąa]g|reszt\w+|potem|p[óo][źz]niej|nast[ęe]pnie|plus|tam|jeszcze|mi|si[ęe]|uci[ęe][łl]o|brak\w*|przepraszam|sor\w+|cd|ko[ńn](?:c\w*|iec)|ostatni\w*|drug\w+|po[łl]owa|cz[ęe][śs][ćc]|numeru|trzy|cyfr\w*|and|then|the|rest|is)\b[\s,:.…-]+){{0,5}}(?P<number>\d(?:[\s-]?\d){{0,5}})(?![\s-]?\d|[.,/]\d|\s?(?:{MONEY}|{METRES}|{FEET}))",
    re.IGNORECASE,
)
UNREAD = re.compile(r"(?<![\w/.,-])O?\d(?:(?:[\s-]?|(?<=\d{3})\.)[\dO]){4,}(?![\w/]|[.,]\d)")
"""`O3 771 26`: what is left of a message and looks like a number."""
_MOBILE = re.compile("[4-8]")
_TOO_LONG = 5
"""Digits alone that are more are no area."""
DIGITS = 9
_MANY = re.compile(r"\d(?:[\s,./()-]{0,3}\d){7}")
"""Less than this is only a piece of a number."""
_ZERO = re.compile(r"\bzero\b", re.IGNORECASE)
_ANOTHERS = re.compile(
    rf"\b(?:{KIN})\b[^.;!?]{{0,20}}\bma\s(?:(?:nr|numer|tel\w*)\s)?$", re.IGNORECASE
)
"""`Sąsiad, ten co ma 502 118 440, mówił`."""
_NOT_THIS = r"(?P<wrong>\d{3,4})"
_NO_UNIT = rf"\b(?!\s?(?:{MONEY}|{METRES}|{FEET}|lat))"
_ENDING = re.compile(
    r"\b(?:(?:ko[ńn]c[óo]wk\w+|ostatnie\s+(?:cyfry|dwie|trzy|cztery)|na\s+ko[ńn]cu|ending)\D{0,15}(?P<new>\d{2,4})"
    r"|(?P<first>\d{2,4})\s+na\s+ko[ńn]cu"
    rf"|(?:nie|not)\s+{_NOT_THIS}[\s,]+(?:tylko|lecz|ale|a|but)\s+(?P<other>\d{{3,4}})"
    rf"|(?P<right>\d{{3,4}})[\s,]+(?:a\s+)?(?:nie|not)\s+{_NOT_THIS.replace('wrong', 'was')}){_NO_UNIT}",
    re.IGNORECASE,
)
"""`Końcówka 727, nie 772`"""
_OF_A_PHONE = re.compile(
    r"ko[ńn]c[óo]wk|\bcyfr|\btel\b|telefon|\bnumer(?!\w*\s+(?:domu|miesz|lok|bud|blok|dzia))",
    re.IGNORECASE,
)
_BESIDE_ENDING = re.compile(
    r"(?:(?:sor\w+|przepraszam|pomy[łl]k\w+|jednak|znaczy|oj|to|jest|a|nie|\d{2,4})\b|[\s,.!])*+",
    re.IGNORECASE,
)
_WHOM = re.compile(
    r"\b(?:dzwo\w+|kontakt\w*|telefon\w*)\s+(?:(?:prosz[ęe]|najlepiej|lepiej|raczej|tylko)\s+)*do\s+(?P<who>[^\W\d_]{3,})",
    re.IGNORECASE,
)
"""`Do mnie …, do mamy …, dzwonić proszę do mamy`"""
_PREFERRED = re.compile(
    r"\b(?:naj)?lepiej\s+(?!nie\b)(?:[^\W\d_]+[\s.:]+){0,4}(?:\+48\s?)?$", re.IGNORECASE
)
"""`A najlepiej na komórkę …`"""
_HOUR = r"(?:[7-9]|1\d|2[01])(?:[.:]\d\d)?(?!\d)"
_LED = (
    r"(?:po|przed|od|do|mi[ęe]dzy|o|ok\.?|oko[łl]o|ko[łl]o|after|before|between|from|till?|until)"
)
_TO = r"\s?(?:[-–]|a|i|do|and|to)\s?"
_TIMES = r"(?:rano|wieczor(?:em|ami)|popo[łl]udni\w*|po\s+po[łl]udniu|przed\s+po[łl]udniem|po\s+pracy|in\s+the\s+(?:morning|evening))\b"
_NOT_HOURS = rf"(?!\s?(?:{MONEY}|{METRES}|{FEET}|stycz|lut[ey]|mar[ce]|kwie|maj|czerw|lip|sierp|wrze|pa[źz]dz|listop|grud|[./]\d)|{_TO}\d)"
_HOURS = re.compile(
    rf"[\s,;.()-]{{0,4}}(?:(?:ale|a|i|tylko|najlepiej|najch[ęe]tniej|dopiero|prosz[ęe]|godz\w*\.?|w|(?:za|od)?dzwo[ńn]\w*|call|please|only)[\s,]+){{0,4}}"
    rf"(?:{_TIMES}|(?:{_LED}\s+(?:godz\w*\.?\s+)?{_HOUR}(?:{_TO}{_HOUR})?|{_HOUR}\s?[-–]\s?{_HOUR}){_NOT_HOURS})",
    re.IGNORECASE,
)
"""`501 502 503 po 16`: when to call."""
_NAME = re.compile(
    r"[\s,;:(-]{0,4}(?:pani?\s)?(?P<first>[^\W\d_]{2,20})(?:\s[^\W\d_]{2,25})?(?=[\s,;.)])"
)
"""`501 502 503 Ania, po 16`"""
_HOURS_BEFORE = re.compile(
    rf"(?:^|[,;.]\s*)(?:(?:tylko|najlepiej|dopiero|prosz[ęe])\s+)?{_LED}\s+{_HOUR}[\s,:-]+(?:(?:prosz[ęe]|tel\w*\.?|nr|numer\w*|na|pod|call)[\s:]+){{0,3}}$",
    re.IGNORECASE,
)
_FAX = re.compile(r"\bfax\w*[:.]?\s*$", re.IGNORECASE)
_IN_WORDS = re.compile(r"\b(?:nr|numer\w*|tel\w*|kom\w*|\w*dzwo\w*|phone|number)\b", re.IGNORECASE)


def canonical(text: str) -> str | None:
    """Return a given phone number in E.164 if that is certain, else its digits."""
    _, news = find(text, date.min, None)
    return news.get("phone") or re.sub(r"[^\d+]", "", text) or None


def piece(text: str, asked: Question | None) -> str | None:
    """Return the digits of the first part of a phone number. Alone they may be a budget."""
    for match in _PIECE.finditer(text) if HAS_DIGIT.search(text) else ():
        digits = re.sub(r"\D", "", match["number"])
        is_alone = match["alone"] is not None and _MOBILE.match(digits)
        is_due = asked == "contact" or (
            not (match["led"] or asked == "budget")
            and len(digits) > _TOO_LONG
            and not digits.endswith("000")
        )
        if match["named"] is not None or (is_alone and is_due):
            return digits
    return None


def joined(before: str, text: str, asked: Question | None) -> str | None:
    """Return the message with the piece of a number before it: `516 22`, `9 041 to dalej`."""
    rest = _REST.match(text)
    first = piece(before, asked) or mistyped(before) if rest else None
    if rest is None or first is None:
        return None
    number = first + re.sub(r"\D", "", rest["number"])
    is_whole = len(number) == DIGITS
    # `516`, `22`: the third part is still to come.
    is_longer = len(number) < DIGITS and rest.end() == len(text)
    return f"tel. {number} {text[rest.end() :]}" if is_whole or is_longer else None


def corrected(known: str, text: str, asking: Question | None) -> str | None:
    """Return the message with the known number's new ending: `końcówka 727, nie 772`.

    `150, nie 200` beside anything else is a budget or an address, not the end of a number.
    """
    if not HAS_DIGIT.search(text) or any(pattern.search(text) for pattern, _ in _IN_DIGITS):
        return None
    match = _ENDING.search(text)
    if match is None:
        return None
    rest = f"{text[: match.start()]} {text[match.end() :]}"
    is_alone = asking not in {"area", "budget", "start"} and _BESIDE_ENDING.fullmatch(rest)
    number = _ended(known, match) if is_alone or _OF_A_PHONE.search(text) else None
    return f"tel. {number} {text[match.end() :]}" if number else None


def _ended(known: str, match: re.Match[str]) -> str | None:
    """Return the number with its new ending; None if that is not the ending of this number."""
    digits = match["new"] or match["first"] or match["other"] or match["right"]
    wrong = match["wrong"] or match["was"]
    number = known[: -len(wrong or digits)] + digits
    return number if known.endswith(wrong or "") and len(number) == len(known) else None


def mistyped(text: str) -> str | None:
    """Return the digits of what is a phone number but for one digit too few or too many."""
    said = _in_digits(text)
    match = _MISTYPED.fullmatch(said) if _MANY.search(said) else None
    return re.sub(r"\D", "", match["number"]) if match else None


_IN_DIGITS = ((_PLUS48, "+48"), (_FOREIGN, "+"), (_GERMAN, "+49"), (_POLISH, "+48"))


def _in_digits(text: str) -> str:
    return in_digits(_ZERO.sub("0", text) if "zero" in words(text) else text)


def find(text: str, _: date, asked: Question | None) -> Reading:
    if HAS_DIGIT.search(text):
        text = _LETTERED.sub(lambda number: number[0].translate(_LETTERS), text)
    said = _in_digits(text)
    is_long = _MANY.search(said) is not None
    found = _numbers(text) if is_long else {}
    if found:
        whom = [each["who"].lower() for each in _WHOM.finditer(text)] if len(found) > 1 else []
        named = [each for each in found if whom and _is_of(whom[-1], text, each)]
        better = [each for each in found if _PREFERRED.search(text[: each.start()][-60:])]
        chosen = corrections.meant(text, better or named or [*found])
        if match := chosen if better else _or_mobile(text, chosen, found):
            number = found[match] + re.sub(r"\D", "", match["number"])
            ending = _ENDING.search(text, match.end())
            if ending and (ended := _ended(number, ending)):
                number, text = ended, text[: match.end()] + text[ending.end() :]
            text, news = _without_hours(text, match, {"phone": number})
            for each in found:  # a second number is not a budget
                text = text.replace(each[0].strip(), MARK) if each is not match else text
            return text, news | ({"phones": len(found)} if len(found) > 1 else {})
    match = _LOOSE.search(said) if is_long else None
    if match and _is_theirs(said[: match.start()]):
        is_spoken = said != text and _DICTATED.fullmatch(said)
        is_alone = asked not in {"area", "budget"} and (is_spoken or _ALONE.fullmatch(said))
        if asked == "contact" or is_alone or _IN_WORDS.search(text):
            number = "+48" + re.sub(r"\D", "", match["number"])
            return take(said, match, PHONE_MARK), {"phone": number}
    if digits := piece(text, asked):
        part = re.compile(r"[\s-]?".join(digits))
        return part.sub(f" {PHONE_MARK} ", text, count=1), {"phone_piece": digits}
    return text, {}


def _numbers(text: str) -> dict[re.Match[str], str]:
    """Return the phone numbers of a text in their order, each with its prefix."""
    found: dict[re.Match[str], str] = {}
    for pattern, prefix in _IN_DIGITS:
        for match in pattern.finditer(text):
            begin, end = match.span()
            is_new = all(end <= each.start() or each.end() <= begin for each in found)
            if is_new and _is_theirs(text[:begin]):
                found[match] = prefix
    return dict(sorted(found.items(), key=lambda each: each[0].start()))


_MOBILE_CODE = re.compile(r"\(?(?:45|5[0137]|6[069]|7[2389]|88)")
_OR_MOBILE = re.compile(
    r"[\s,;/]*(?:(?:a|i|albo|lub|oraz|czy|or|and)\b)?\s*(?:kom\w*|mobile)?[\s.,:]*"
)


def _or_mobile(
    text: str, number: re.Match[str] | None, found: Iterable[re.Match[str]]
) -> re.Match[str] | None:
    """Return the mobile that is given beside a landline: `18 266 31 02 albo 604 515 616`."""
    if number is None or number.re is not _POLISH or _MOBILE_CODE.match(number["number"]):
        return number
    after = (each for each in found if each.start() > number.end())
    beside = (each for each in after if _OR_MOBILE.fullmatch(text[number.end() : each.start()]))
    return next((each for each in beside if _MOBILE_CODE.match(each["number"])), number)


def _is_of(who: str, text: str, number: re.Match[str]) -> bool:
    before, after = text[max(0, number.start() - 20) : number.start()], text[number.end() :][:15]
    return who in before.lower().rpartition(",")[2] or who in after.lower().partition(",")[0]


def _without_hours(text: str, number: re.Match[str], news: dict[str, str]) -> Reading:
    """Take a number and the hours beside it, which are no area and no budget."""
    before, after = text[: number.start()], text[number.end() :]
    led = _HOURS_BEFORE.search(before)
    named = _NAME.match(after)
    is_name = named is not None and fold(named["first"]) in FIRST_NAMES
    ends = {named.end(), named.end("first")} if named and is_name else {0}
    found = ((end, _HOURS.match(after, end)) for end in ends)
    signed, followed = next((each for each in found if each[1]), (0, None))
    before = before[: led.start()] if led else before
    after = after[:signed] + after[followed.end() :] if followed else after
    hours = {"has_hours": True} if led or followed else {}
    return f"{before} {PHONE_MARK} {after}", {**news, **hours}


def _is_theirs(before: str) -> bool:
    return not (_FAX.search(before) or _ANOTHERS.search(before[-corrections.LOOK_BACK :]))
