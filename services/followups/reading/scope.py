"""Which of the areas that a person names are to be done, and what they come to.

`dom 140 m, robimy tylko parter 85`, `48 m2, z czego łazienki (5) nie robicie`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from services.followups.reading import corrections
from services.followups.reading.corrections import Quantity
from services.followups.reading.numbers import HAS_DIGIT
from services.followups.reading.text import MARK, fold, has_any
from services.followups.reading.units import METRES

PART = (
    r"pok[óo]j(?:u|owi|em)?\b|(?<!\d )pokoje\b|pokoik\w*|kuchni\w*|aneks\w*|[łl]azien\w*|salon\w*|sypialni\w*|toalet\w*|wc\b|kibel\w*|przedpok\w*|korytarz\w*|garderob\w*|hol[ul]?\b|jadalni\w*|gabinet\w*"
    r"|parter\w*|(?<!\b\d )pi[ęe]tr(?:o|a)\b|d[óo][łl]u?\b|dole\b|antresol\w*|g[óo]r(?:a|[ęe]|y|ze)\b|balkon\w*|loggi\w*|taras\w*|gara[żz]\w*|spi[żz]arni\w*|pralni\w*|kot[łl]owni\w*|kom[óo]rk\w*|piwnic\w*|zaplecz\w*|poczekal\w*|recepcj\w*|szatni\w*|wiatro[łl]ap\w*|sal[aęei]\b|salk[aięe]\b|open\s?space\b|[śs]rodek\b"
    r"|poddasz\w*|strych\w*|(?:jedn[aoe]|drug[ai]e?|pierwsz[ae])\s+(?:mieszka|kawaler|lokal|dom|biur)\w*|jedn[aoye]\b|drug[aie]e?\b|pierwsz[aye]\b|(?<=\s)(?:ma[łl]|du[żz])[ye]\b|kitchen|bathroom|room|bedroom|ванн\w*|кухн\w*|кімнат\w*|спальн\w*"
)
_WHOLE = r"mieszka(?:ni|nk|ln)\w*|dom(?:u|em|ek|ku)?\b|cha[łl]up\w*|lokal\w*|biur\w*|kawalerk\w*|szereg[óo]wk\w*|bli[źz]niak\w*|segment\w*|metra[żz]\w*|powierzchni\w*|ca[łl]o[śs][ćc]\w*|pod[łl]o\w*|u[żz]ytkow\w*|netto|brutto|flat|apartment|house"
_ELSE = (
    r"dzia[łl]\w*|ogr[óo]d\w*|ogrodz\w*|p[łl]ot\w*|parcel\w*|plot|garden|wysoko\w*|wys\b|odleg[łl]\w*|szeroko\w*|d[łl]ugo\w*|postojow\w*|[śs]cian\w*"
    r"|tynk\w*|elewacj\w*|dach\w*|kostk\w*|p[łl]yt\w*|kafel\w*|kafl\w*|gres\w*|glazur\w*|blat\w*|listw\w*|szaf\w*|mebl\w*|wysp\w*|zabudow\w*|wann\w*|brodzik\w*|prysznic\w*|okn\w*|drzwi\w*|walls?"
)
NOUN = re.compile(rf"\b(?:(?P<part>{PART})|(?P<whole>{_WHOLE})|(?P<height>sufit\w*)|(?P<other>{_ELSE}))", re.IGNORECASE)  # fmt: skip
ROOM_AFTER = re.compile(
    rf"\s+(?:to\s+)?(?P<part>{PART})(?![^,;.\d]{{0,15}}\d++(?!\s(?:{PART})))", re.IGNORECASE
)
ROOM = re.compile(rf"\b(?P<part>{PART}|pokoi\b)", re.IGNORECASE)
_WORKS_ON = re.compile(rf"\b(?:remont|adaptacj|wyko[ńn]cz|odnow|od[śs]wie|przebudow|malowa)\w*\s+(?:sam\w+\s+|ca[łl]\w+\s+)?(?:{PART})(?:\s*(?:,|\bi\b|\boraz\b)\s*(?:{PART}))*(?!\s*(?:,|\bi\b|\boraz\b)\s*(?:ca[łl]|reszt|pozosta))", re.IGNORECASE)  # fmt: skip
"""`adaptacja poddasza, dom ma 200 m, poddasze 65`"""
_FLAT = re.compile(r"\b(?:mieszka(?:ni|nk)|dom(?:u|em|ek|ku)?\b|lokal|biur|kawalerk)[^\d.;!?]*$", re.IGNORECASE)  # fmt: skip
_DIGIT = re.compile(r"\d(?!\s?pok)")
_CLAUSE = re.compile(rf"[,;.!?(]\s|{MARK}|\ba\b|\bale\b")


@lru_cache(64)
def has_room(text: str) -> bool:
    return ROOM.search(text) is not None


def kind(noun: re.Match[str]) -> tuple[str, str]:
    """Return the class of a noun (`part`, `whole`, `height`, `other`) and a key of its word."""
    return str(noun.lastgroup), _key(noun[str(noun.lastgroup)])


def _key(word: str) -> str:
    """Return the same for all cases of a noun: `góra`, `górę`."""
    word = fold(word)
    return word[:3] if word.startswith(("gor", "dol")) else word[:4]


def noun_before(text: str, start: int) -> tuple[str | None, str | None]:
    """Classify the nearest noun before a number: in its clause, or the whole in one before."""
    before = text[max(0, start - corrections.LOOK_BACK) : start]
    clauses = _CLAUSE.split(_DIGIT.split(before)[-1])
    if nouns := [*NOUN.finditer(clauses[-1])]:
        return kind(nouns[-1])
    if _FLAT.search(before):
        return "whole", None
    return None, None


_TO_DO = r"do\s+(?:zrobi|remont|wyko[ńn]cz|robot|malow|skuci|odnow|od[śs]wie[żz])\w*"
_LEFT = re.compile(rf"\b(?:zosta\w+\s+(?:\w+\s+)?{_TO_DO}|{_TO_DO}(?:\s+(?:zosta\w+|jest|b[ęe]dzie))?|czyli\s+(?:robi\w+|wyka[ńn]cza\w+)|(?:teraz\s+)?robi(?:my|cie))\s+(?:tylko\s+|jakie[śs]\s+|ok\w*\.?\s+)?$", re.IGNORECASE)  # fmt: skip
"""`do wykończenia 66`, `czyli robicie 180`"""
_SO = re.compile(r"\b(?:wi[ęe]c|czyli|zatem)\s+(?:(?:to|tylko|ok\.?|tak|ze?|jakie[śs])\s+){0,3}$", re.IGNORECASE)  # fmt: skip
_TO_BE_DONE = re.compile(rf"\s*(?:{METRES})?\s*(?:{_TO_DO}|zosta\w+)", re.IGNORECASE)
_ENDS = re.compile(r"\s*(?:[,;.!]|$)")
_ONLY = re.compile(rf"(?<!nie )\b(?:tylko|wy[łl][ąa]cznie|jedynie|ino|samo|only|nur)\b|\bzosta\w+\s+{_TO_DO}", re.IGNORECASE)  # fmt: skip
_ONLY_ROOM = re.compile(rf"(?:{_ONLY.pattern})[^,;.!?\d]{{0,25}},\s*(?:(?:to|jest|czyli|jakie[śs]|ok\.?|oko[łl]o|ze?)\s+)*$", re.IGNORECASE)  # fmt: skip
"""`lokal ma 110 m, robimy tylko salę sprzedaży, 85`"""
_LARGER = re.compile(r"\b(?:(?P<more>wi[ęe]ksz)|mniejsz)\w*", re.IGNORECASE)
_ALL = re.compile(r"\b(?:reszt\w+|wszystko)\b", re.IGNORECASE)
_EXCEPT = re.compile(r"\b(?:bez(?!\s+(?:zmian|remont))|minus|opr[óo]cz|poza|pr[óo]cz|nie\s+licz[ąa]c|pomijaj[ąa]c|without|except)\b", re.IGNORECASE)  # fmt: skip
_NOT_DONE = re.compile(
    r"\bnie\s+(?!tylko)(?:\w+\s+)?(?:robi|rusz|tyk|wyka[ńn]cz|remont|dotyk|licz(?!on)|wchodz|obejm|trzeba|chc)\w*|\bzosta(?:j|[łl]|wi)\w*|\bodpada\w*|\bpo\s+remoncie|\bbez\s+(?:zmian|remont\w*)|\bna\s+razie\s+nie\b|\bnie\s*(?:[.!)]?\s*$|,)"
    r"|\b(?:gotow[aeyią]|zrobion\w+|sko[ńn]czon\w+|wyko[ńn]czon\w+|wyremontowan\w+|odnowion\w+|zrobi[łl]\w*)\b|\b(?:robi|ogarnia)\s+(?:kto|inn|firm|s[aą]si|szwag|sam|w[łl]a[śs])\w*|\bogarnia\s+sam|\bnot\s+included",
    re.IGNORECASE,
)
_ODD_OUT = re.compile(rf"(?:{_NOT_DONE.pattern})[^\d.]{{0,20}}$", re.IGNORECASE)
_DONE = re.compile(rf"(?<!nie )(?:{_TO_DO}|\b(?:robi(?:my|cie)|remontuj\w+|wyka[ńn]cza\w+)\b)", re.IGNORECASE)  # fmt: skip
_PIECES = re.compile(r"[;!?\n|]|[.,]\s|\s[-–]\s|\b(?:ale|a|bo|wi[ęe]c|w\s+tym(?!\s+(?:wi|mn|jed|du))|z\s+czego)\b")  # fmt: skip
_REMAINS = re.compile(r"\W*(?:i\s+)?zosta(?:j[eą]|nie|n[ąa])\s", re.IGNORECASE)
_AND = re.compile(r"\s*(?:[\d.,]+\s?\w{0,3}\s*)?(?:,|\bi\b|\boraz\b|\band\b)\s*|\s*")
_OUTSIDE = {"balk", "logg", "tara", "piwn", "komo", "gara", "antr"}
"""Not counted with the flat: `60 metrów + balkon 8`."""
_WITH = re.compile(r"\b(?:ze?|minus|licz[ąa]c)\s+(?P<noun>[^\W\d_]{4,})", re.IGNORECASE)
"""`110 m z garażem`: counted, until it is left out."""
_SENTENCE = re.compile(r"[;!?\n|]|\.\s")
_ON_TOP = re.compile(r"\+|\b(?:plus|oraz|dodatkowo|osobno)\b", re.IGNORECASE)
_TOO = re.compile(r"\s*(?:te[żz]|r[óo]wnie[żz])\s+do\s", re.IGNORECASE)
"""`i jeszcze piwnica 6 m, też do zrobienia`"""

_CHANGES = ("tylko", "bez", "nie", "zosta", "gotow", "zrob", "remon", "prócz", "procz", "poza", "odpad", "only", "not", "kończ", "koncz", "robi", "jedyn", "wył", "wyl", "minus")  # fmt: skip


def changes(text: str) -> bool:
    """Return whether it may take rooms away: `kuchni jednak nie robimy, tylko salon`."""
    may_be = has_any(text.lower(), _CHANGES)
    return may_be and any(each.search(text) for each in (_ONLY, _EXCEPT, _NOT_DONE))


def is_left(text: str, start: int, end: int) -> bool:
    """Return whether a number is what is left to do: `do wykończenia 66`, `garaż odpada, więc 135`."""
    before = text[max(0, start - corrections.MOST_BETWEEN) : start]
    if _LEFT.search(before[-80:]):
        return True
    if not _SO.search(before[-32:]):
        return False
    is_rest = _ENDS.match(text, end) and _ODD_OUT.search(before[-60:])
    return bool(is_rest or _TO_BE_DONE.match(text, end))


def only_room(before: str) -> str | None:
    """Return the room that alone is to be done, if its area must follow."""
    only = _ONLY_ROOM.search(before)
    rooms = _rooms(before, only.start()) if only else []
    return rooms[-1] if rooms else None


def amount(text: str, found: Sequence[Quantity]) -> float | None:
    """Return the area to be done; None if a person would ask back."""
    if not found:
        return None
    if only := _only(text, found) if len(found) > 1 else None:
        return corrections.amount(text, only)
    left_out = _left_out(text, found)
    done = [each for each in found if each not in left_out]
    too = [each for each in done if each.of == "part" and _TOO.match(text, each.end)]
    if any(each.of != "part" for each in done):
        done = [each for each in done if each.noun not in _OUTSIDE or each in too]
    rest = [each for each in done if each not in too]
    total = corrections.amount(text, rest or done)
    if total is not None and rest:
        total += sum(each.value for each in too)
    base = max(done, key=lambda each: each.value, default=None)
    if total is not None and base is not None and total == base.value:
        total -= sum(each.value for each in left_out if _is_inside(text, base, each))
    return total


def _is_inside(text: str, base: Quantity, part: Quantity) -> bool:
    """Return whether a part that is left out was counted in the whole."""
    between = text[min(base.end, part.end) : max(base.start, part.start)]
    before = _DIGIT.split(text[max(0, base.start - corrections.LOOK_BACK) : base.start])[-1]
    is_of_room = base.noun is None and set(_rooms(before, 0)) - {part.noun}  # `dół w domu, 96 m`
    is_of_flat = base.of != "part" and part.noun not in _OUTSIDE and not is_of_room
    is_with = part.noun in {_key(each["noun"]) for each in _WITH.finditer(text)}
    is_of = is_of_flat or is_with or corrections.OF_IT.search(between) is not None
    return part.value < base.value and is_of and not _ON_TOP.search(between)


def _only(text: str, found: Sequence[Quantity]) -> list[Quantity] | None:
    """Return what alone is to be done: `tylko parter, 85`; None if nothing says so."""
    if left := [each for each in found[1:] if is_left(text, each.start, each.end)]:
        return left
    if any(each.of == "whole" for each in found) and (works := _WORKS_ON.search(text)):
        nouns = {key for _, key in map(kind, ROOM.finditer(works[0]))}
        named = [each for each in found if each.noun in nouns]
        after = [each for each in found if each.start > works.start()][:1]
        if named or (after and after[0].of is None):
            return named or after
    for match in _ONLY.finditer(text):
        end = next((each.start() for each in _PIECES.finditer(text, match.end())), len(text))
        piece = text[match.start() : end]
        if _ALL.search(piece):
            continue
        nouns = {key for of, key in map(kind, NOUN.finditer(piece)) if of != "other"}
        named = [each for each in found if each.noun in nouns or match.start() <= each.start < end]
        if named:
            return named
        if larger := _LARGER.search(piece):
            return [sorted(found, key=lambda each: each.value)[-1 if larger["more"] else 0]]
        sentence = next((each.start() for each in _SENTENCE.finditer(text, end)), len(text))
        if after := [each for each in found if match.start() <= each.start < sentence]:
            return after[:1] if after[0].of is None and nouns else after
    return None


def _left_out(text: str, found: Sequence[Quantity]) -> list[Quantity]:
    """Return the rooms that a clause says are done or not wanted."""
    if not (_EXCEPT.search(text) or _NOT_DONE.search(text)):
        return []
    out: list[str] = []
    start = 0
    for end in (*(each.start() for each in _PIECES.finditer(text)), len(text)):
        piece = "" if out and _REMAINS.match(text, start, end) else text[start:end]
        if but := _EXCEPT.search(piece):
            out += _rooms(piece, but.end())
        elif (said := _NOT_DONE.search(piece)) and not (_DONE.search(piece) or _ALL.search(piece)):
            is_of_last = not NOUN.search(piece) and not HAS_DIGIT.search(piece)
            out += (
                _rooms(text, max(0, start - corrections.MOST_BETWEEN), start)[-1:]
                if is_of_last
                else _subject(piece, said)
            )
        start = end
    return [each for each in found if each.noun in out]


def _rooms(text: str, start: int, end: int | None = None) -> list[str]:
    nouns = NOUN.finditer(text, start, len(text) if end is None else end)
    return [key for of, key in map(kind, nouns) if of == "part"]


def _subject(piece: str, said: re.Match[str]) -> list[str]:
    """Return the rooms that a clause is about: the last before its verb, else those after it."""
    before = [*NOUN.finditer(piece, 0, said.start())]
    if not before:
        return _rooms(piece, said.end())
    keys, end = list[str](), said.start()
    for noun in reversed(before):
        if keys and not _AND.fullmatch(piece, noun.end(), end):
            break
        of, key = kind(noun)
        keys += [key] if of == "part" else []
        end = noun.start()
    return keys
