"""Reads the town of the works, from a list of Polish towns."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product
from pathlib import Path

from services.followups.reading import corrections
from services.followups.reading.name import FIRST_NAMES
from services.followups.reading.text import MARK, fold, words

_LED = re.compile(
    r"\b(?i:w\s+centrum|obrze[żz]ach|w|we|z|ze|do|pod(?!\s+klucz\b)|ko[łl]o|k\.|obok|okolic\w*|niedaleko|miejscowo\w*:?|miasto:?|wie[śs]|gmin[aęy]|lokalizacja:?|in|near|bei|у|в|біля|(?:zosta[jn]\w+|robimy|jednak)\s+tylko|jednak(?!\s+(?:w|we|pod|ko[łl]o|z|ze)\b))\s+(?P<one>[^\W\d_]+)(?:[ -](?P<two>(?!(?:w|we|do|pod|ko[łl]o|in)\b)[^\W\d_]+))?"
)
_ALONE = re.compile(
    rf"(?:^|[,;.{MARK}\n(\d]|\ba(?=\s+dok[łl]adnie)|\b(?:i|oraz)(?=\s+[^\W\d_]+(?:[ -][^\W\d_]+)?\s+\d))\s*(?i:(?:tu|adres|lokalizacja|miasto|miejscowość|konkretnie|dokładnie|dokladnie|czyli|a\s+właściwie):?\s+)?(?P<one>(?!(?i:i|oraz)\b)[^\W\d_]+)(?:[ -](?P<two>[^\W\d_]+))?\s*(?=$|[,;.!{MARK}\n)\d]|(?:pod|ko[łl]o|k\.|obok|niedaleko|near)\s)"
)
_ABROAD = {
    "warsaw": "Warszawa", "warschau": "Warszawa", "cracow": "Kraków", "krakau": "Kraków", "breslau": "Wrocław", "danzig": "Gdańsk", "posen": "Poznań",
    "stettin": "Szczecin", "варшаві": "Warszawa", "варшава": "Warszawa", "кракові": "Kraków", "краків": "Kraków", "вроцлаві": "Wrocław", "вроцлав": "Wrocław", "кракове": "Kraków", "варшаве": "Warszawa", "вроцлаве": "Wrocław", "гданськ": "Gdańsk", "познань": "Poznań", "люблін": "Lublin", "лодзі": "Łódź",
    "гданську": "Gdańsk", "познані": "Poznań", "любліні": "Lublin", "wawa": "Warszawa", "wwa": "Warszawa", "gda": "Gdańsk", "ktw": "Katowice", "pzn": "Poznań", "wro": "Wrocław", "wawie": "Warszawa", "krk": "Kraków", "wrocek": "Wrocław", "wrocku": "Wrocław", "катовіце": "Katowice", "катовіцах": "Katowice", "катовицах": "Katowice", "жешуві": "Rzeszów", "лодзь": "Łódź", "ополе": "Opole", "ополі": "Opole", "ополя": "Opole", "ряшів": "Rzeszów", "ряшеві": "Rzeszów", "щецін": "Szczecin", "щеціні": "Szczecin", "білосток": "Białystok", "бидгощ": "Bydgoszcz", "торунь": "Toruń", "кельце": "Kielce", "ченстохова": "Częstochowa", "гливіце": "Gliwice",
}  # fmt: skip
_MORE = re.compile(
    r"\s*(?:,|\b(?:albo|lub|i|oraz|czy|or|and|und|oder|або|чи|і)\b)\s*(?:(?:w|we|do|in)\s+)?(?P<one>[^\W\d_]+)(?:[ -](?P<two>[^\W\d_]+))?"
)
"""`w Katowicach albo Tychach`"""
_NEAR = re.compile(r"k\.|(?:pod|ko[łl]o|obok|okolic\w*|niedaleko|near|bei|біля)\b", re.IGNORECASE)
_HOME = re.compile(
    r"\b(?:(?:mieszka(?:m|my)|jeste(?:m|[śs]my)|pochodz\w+|live)\b[^,;.]{0,15}|(?P<anothers>(?:mama|babcia|tata|dziadek|c[óo]rka|syn)\s+mieszka)(?:\s+\w+){0,2}\s*)$",
    re.IGNORECASE,
)
"""`Mama mieszka w Opolu`: there only if no other town is named."""
_NOT_OURS = re.compile(
    r"\b(?:targ(?:i|ach|[óo]w)|wystaw\w*|expo|studiuj\w*|ucz[ąy]\s+si[ęe]|mieszka(?:j[ąa])?|pracuj(?:e|ę|emy|ą)|siedzib\w*|urodzi\w*|wakacj\w*|urlop\w*)(?:\s+\w+){0,2}\s*$",
    re.IGNORECASE,
)
_THERE = re.compile(
    r"[^.;!?]{0,15}\b(?:tam|there)\b[^.;!?]{0,30}\b(?:remon\w*|wyko[ńn]cz\w*|renovat\w*|mieszkani\w*|flat|dom\w*)",
    re.IGNORECASE,
)
"""`Córka studiuje w Krakowie i tam ma mieszkanie`."""
_ELSEWHERE = re.compile(r"\s+(?:(?:mam\w*|jest)\s+(?:inn|drug)|to\s|mieszka(?:m|my|j[ąa])?\b(?!\s+i\b))", re.IGNORECASE)  # fmt: skip
"""`W Dąbrowie Górniczej, w Sosnowcu mam inne`, `w Gdańsku, Sopot to mama`"""
_LOOK_BACK = 40
_LOWER_CASE = 6
"""How long a small town's form must be to count in lower case."""
_WORDS = re.compile(r"[^\W\d_]+")
_IRREGULAR = {"bialystok": ("bialymstoku", "bialegostoku", "bialymstokiem")}
_SHORT = {"wielkopolski": "wlkp", "wielkopolska": "wlkp", "mazowiecki": "maz", "mazowiecka": "maz", "slaski": "sl", "trybunalski": "tryb", "gdanski": "gd", "podlaska": "podl", "podlaski": "podl", "lubelski": "lub"}  # fmt: skip
_CONSONANT = {"k": ("ce",), "g": ("dze",), "r": ("rze",), "t": ("cie",), "d": ("dzie",)}


@cache
def _towns() -> tuple[dict[str, str], frozenset[str], frozenset[str]]:
    """Return a map from every form of a name to its town, the largest towns, and those with an ordinary
    word among their forms.
    """
    text = (Path(__file__).parent / "towns.txt").read_text(encoding="utf-8")
    listed = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    large, small = (part.replace("*", "").split("\n") for part in listed.strip().split("\n\n"))
    ordinary = frozenset(line[:-1] for line in listed.split("\n") if line.endswith("*"))
    forms = dict(_ABROAD)
    for town in (*large, *small):
        for form in _forms(town):
            forms.setdefault(form, town)
    for town in (*large, *small):  # the larger one first
        word, *others = fold(town).replace("-", " ").split()
        called = {word, *_inflected(word, among=1)} if len(others) == 1 else set()
        for form in (f"{each} {_SHORT[others[0]]}" for each in called if others[0] in _SHORT):
            forms.setdefault(form, town)  # `w Ostrowie Wlkp.`
        for form in called if town.endswith("ki") or "-" in town else ():
            forms.setdefault(form, town)  # `w Gorzowie`, `w Bielsku`
        for form in _forms(f"{word} {others[0]}") if len(others) > 1 else ():
            forms.setdefault(form, town)  # `w Nowym Dworze`
    return forms, frozenset(large), ordinary


@cache
def _large() -> tuple[tuple[str, str], ...]:
    """Large towns and names of three words count anywhere, even in lower case: none is a word of an
    ordinary answer.
    """
    forms, large, _ = _towns()
    long = {town for name, town in forms.items() if name.count(" ") == 2}
    return tuple((f" {fold(town).replace('-', ' ')} ", town) for town in large | long)


@cache
def _first_words() -> frozenset[str]:
    return frozenset(form.split()[0] for form in _towns()[0])


def _forms(town: str) -> Iterator[str]:
    words = fold(town).replace("-", " ").split()
    yield " ".join(words)
    if len(words) < 3:
        inflected = (_inflected(word, among=len(words)) for word in words)
        yield from (" ".join(each) for each in product(*inflected))


def _inflected(word: str, *, among: int) -> tuple[str, ...]:
    """Yield the forms of a name after a preposition, and some that do not exist."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    last, stem = word[-1], word[:-1]
    if last in "aoeiy":
        changed = tuple(stem[:-1] + ending for ending in _CONSONANT.get(stem[-1:], ()))
        plain = tuple(stem + ending for ending in _ENDINGS[last])
        none = (
            (stem,) if stem[-1] == "i" or (last in "iye" and len(stem) > 4 and among == 1) else ()
        )
        adjective = tuple(stem + ending for ending in ("ej", "iej", "ym", "im", "ego", "iego", "ich", "ych", "iem", "ch", "m", "go")) if among > 1 else (f"{stem}ej",) if word.endswith(("owa", "na")) else ()  # fmt: skip
        return (*plain, *changed, *none, *adjective)
    fleeting: tuple[str, ...] = ()
    if word.endswith(("iec", "ec")):
        fleeting = tuple(word[: -3 if word.endswith("iec") else -2] + "c" + end for end in ("u", "a", "em"))  # fmt: skip
    elif word.endswith("ek"):
        fleeting = tuple(word[:-2] + "k" + end for end in ("u", "a", "iem"))
    changed = tuple(stem + ending for ending in _CONSONANT.get(last, ())) if last in "td" else (word + "ze",) if last == "r" else ()  # fmt: skip
    return (
        *(word + end for end in ("ie", "u", "a", "em", "iem", "iu", "ia", "i", "y")),
        *fleeting,
        *changed,
    )


_ENDINGS = {
    "a": ("ie", "i", "y", "e", "a"), "o": ("ie", "e", "u", "a", "em", "iem"), "e": ("u", "a", "em", "ach", "ego", "ami", "ym"),
    "y": ("ach", "ami", "ow", "ego", "ym"), "i": ("ach", "ami", "ow", "ego", "im"),
}  # fmt: skip


def find(text: str) -> str | None:
    """Return the town that a message names; None if it names several."""
    towns = find_all(text)
    return towns[0] if len(towns) == 1 else None


def find_all(text: str) -> list[str]:
    """Return the towns that a message names as clearly as any other.

    A small one-word town needs a capital: `kole`, `pile` and `górze` are also ordinary words.
    """
    if _first_words().isdisjoint(words(text)):
        return []
    if named := [*_led(text), *_alone(text)]:
        best = min(rank for rank, _, _ in named)
        if best == _IS_NEAR and (own := _own(text)):
            return [f"{own} ({named[0][2]})"]
        first, *others = sorted(each for each in named if each[0] == best)
        towns = [first[2]]
        for (_, before, _), (_, after, town) in pairwise((first, *others)):
            if corrections.corrects(_WORDS.sub(" ", text[before:after], count=1)):
                towns.clear()  # `w Krakowie, a nie, w Skawinie`
            towns.append(town)
        if exact := _EXACTLY.match(text, first[1]):
            return [_exact(exact["village"], first[2])]
        return list(dict.fromkeys(towns))
    if amid := _amid(text):
        return [amid]
    said = f" {fold(' '.join(_WORDS.findall(text)))} "
    return list(dict.fromkeys(town for name, town in _large() if name in said))


_IS_NEAR = 2
_BY = r"(?i:pod|ko[łl]o|k\.|obok|niedaleko)"
_VILLAGE = r"[A-ZĄĆĘŁŃÓŚŹŻ][^\W\d_]{3,}(?:\s[A-ZĄĆĘŁŃÓŚŹŻ][^\W\d_]{3,})?"
_OWN = re.compile(
    rf"\b{_BY}\s+[^\W\d_]+(?:\s[^\W\d_]+)?\s*(?:[,(]\s*(?:w\s+)?|\sw\s+)(?P<after>{_VILLAGE})(?=\s*(?:[,.;)]|$|(?:i|a|ale|bo|do|na|oraz)\b))"
    rf"|(?:^|[,.;]\s*|\b(?i:w|we|miejscowo\w+|wie[śs]|wsi|gmina|gminie|dom|mieszkanie)\s+)(?P<before>{_VILLAGE})\s+{_BY}\s"
    rf"|^(?P<alone>(?!(?:dom|mieszkani\w*|lokal|kawalerka|dzia[łl]ka|to|jest|gdzie[śs]|w|na|ma[łl]\w+)\b)[^\W\d_]{{4,}}(?:\s(?!jest\b)[^\W\d_]{{4,}})?)\s+{_BY}\s+[^\W\d_]+[\s.!]*$",
)
"""`Pod Krakowem, Zabierzów`, `w Kobierzycach pod Wrocławiem`: a village that is not listed."""
_EXACTLY = re.compile(
    rf"[^\W\d_]+(?:[ -][^\W\d_]+)?,?\s+(?:a\s+)?(?:konkretnie|dok[łl]adniej?)\s+(?:w\s+)?(?P<village>(?!Pl|Os|Ul|Al|Rynek|\w+(?:[sc]|dz)ka\b){_VILLAGE})(?=\s*(?:[,;.!)]|$))"
)
"""`Żywiec, a konkretnie Milówka`"""
_LOCATIVE = (("cach", "ce"), ("kach", "ki"), ("sku", "sko"), ("ewie", "ewo"), ("awie", "awa"))


def _own(text: str) -> str | None:
    match = _OWN.search(text)
    if match is None or fold(match[str(match.lastgroup)]) in FIRST_NAMES:
        return None
    word = match[str(match.lastgroup)].title().removeprefix("Wieś ")
    if not re.search(r"\b(?i:w|we)\s$", text[: match.start(str(match.lastgroup))]):
        return word
    return next((word[: -len(end)] + name for end, name in _LOCATIVE if word.endswith(end)), word)


def _exact(said: str, town: str) -> str:
    """Return the place that is named more exactly; a district of the town is none."""
    is_in_it = fold(said) in _districts() or fold(said.split(maxsplit=1)[0]) in FIRST_NAMES
    return town if is_in_it else _towns()[0].get(fold(said)) or f"{said} ({town})"


def _is_plain(said: str) -> bool:
    """Return whether a word is a town even in lower case."""
    forms, large, ordinary = _towns()
    town = forms.get(fold(said))
    return town in large or (town is not None and len(said) >= _LOWER_CASE and town not in ordinary)


_CAPITAL = re.compile(
    r"(?P<before>[^\W\d_]+,?|[,;\d])\s+(?P<one>[A-ZĆŁŚŹŻ][^\W\d_]{4,})(?!\s*[A-ZĆŁŚŹŻ]\w)"
)


def _amid(text: str) -> str | None:
    """Find a small town as it is listed, without a preposition: `34 metry Legionowo`, or alone."""
    forms = _towns()[0]
    names = [each["one"] for each in _CAPITAL.finditer(text) if not each["before"].istitle()]
    if _is_plain(alone := text.strip(" .,!")):
        names.append(alone)
    towns = {town for name in names if (town := forms.get(fold(name)))}
    town = towns.pop() if len(towns) == 1 else None
    is_as_listed = town is not None and fold(town) in map(fold, names)
    return town if is_as_listed and town not in _towns()[2] else None


def _led(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield towns after a preposition: the works are rather in a town than near it, or at home."""
    forms = _towns()[0]
    for match in _LED.finditer(text):
        before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
        home = _HOME.search(before)
        is_ours = (home and home["anothers"]) or _THERE.match(text, match.end())
        is_denied = corrections.is_rejected(text, match.start())  # `nie w Sokołowie`
        if is_denied or (_NOT_OURS.search(before) and not is_ours):
            continue
        rank = 2 if _NEAR.match(match[0]) else match[0][0] in "zZ"
        if home and not _THERE.match(text, match.end()):
            rank = 3 + (home["anothers"] is not None)
        at: re.Match[str] | None = match
        while at is not None:
            names = (said for said in _candidates(at) if said[0].isupper() or " " in said or _is_plain(said))  # fmt: skip
            name = next((said for said in names if fold(said) in forms), None)
            if name is None:
                break
            end = at.start("one") + len(name)
            is_else = _ELSEWHERE.match(text, end) is not None
            yield (4 if is_else else rank), at.start("one"), forms[fold(name)]
            at = _MORE.match(text, end)


def _alone(text: str) -> Iterator[tuple[int, int, str]]:
    forms = _towns()[0]
    for match in _ALONE.finditer(text):
        for said in _candidates(match):
            town = forms.get(fold(said))
            is_name = said[0].isupper() or " " in said or _is_plain(said)
            if town and (fold(said) in _ABROAD or (is_name and _is_called(town, said))):
                yield 1, match.start("one"), town
                break


def _is_called(town: str, said: str) -> bool:
    """Return whether it is the name as it is listed, or the first word of `Konstantynów Łódzki`."""
    listed, said = fold(town).replace("-", " "), fold(said).replace("-", " ")
    first, _, last = listed.partition(" ")
    is_first = said == first and (listed.endswith("ki") or "-" in town)
    return said == listed or is_first or said == f"{first} {_SHORT.get(last)}"


def _candidates(match: re.Match[str]) -> Iterator[str]:
    if match["two"]:
        yield f"{match['one']} {match['two']}"
        if match.re is _ALONE and _towns()[0].get(fold(match["one"])) not in _towns()[1]:
            return  # otherwise it is a district: `Warszawa Wola`
    yield match["one"]


@cache
def _districts() -> dict[str, tuple[str, str, bool]]:
    """Return a map from every form of a name to it, its city, and whether it needs a capital."""
    text = (Path(__file__).parent / "districts.txt").read_text(encoding="utf-8")
    lines = (line.split(": ") for line in text.splitlines() if not line.startswith("#"))
    listed = ((name, city) for city, names in lines for name in names.split(", "))
    return {
        form: (name.rstrip("*"), city, name.endswith("*"))
        for name, city in listed
        for form in _forms(name.rstrip("*"))
    }


@cache
def _beginnings() -> frozenset[str]:
    return frozenset(form.split()[0] for form in _districts())


def district(text: str) -> tuple[str, str] | None:
    """Return a district that a message names, and the city that it probably is in."""
    if _beginnings().isdisjoint(words(text)):
        return None
    names = _WORDS.findall(text)
    pairs = (f"{one} {two}" for one, two in pairwise(names))
    for name in (*pairs, *names):
        found = _districts().get(fold(name))
        is_led = f" na {name}" in text and name[-1] in "eiuh"  # `na Woli`, but `na piątkową`
        if found and (name[0].isupper() or not found[2] or is_led):
            return found[:2]
    return None


_STREET = re.compile(
    r"\b(?:(?:ul\.?|ulicy|os\.?|osiedlu|al\.?)\s+[A-ZĆŁŃÓŚŹŻ]|(?:na|przy)\s+[A-ZĆŁŃÓŚŹŻ][^\W\d_]*(?:ej|ego|ich|ów|icza)\b)"
)


def names_street(text: str) -> bool:
    """Return whether it names a street: `na Lipskiej`, `ul. Lipska`."""
    return _STREET.search(text) is not None
