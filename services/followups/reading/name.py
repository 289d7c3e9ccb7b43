"""Reads the name that people give as their own, and forms the address from it."""

import re
from datetime import date
from pathlib import Path

from services.followups.reading.text import (
    MARK,
    PHONE_MARK,
    Reading,
    fold,
    has_any,
    take,
    vocabulary,
    words,
)
from services.followups.rules.facts import Question

KIN = (
    r"szwagier|szwagr\w*|brat\w{0,2}|siostr\w*|przyjaci\w*|kump[el]\w*|s[ąa]siad\w*|koleg\w*|kole[żz]an\w*|znajom\w*|kuzyn\w*|te[śs](?:[ćc]|ci)\w*|rodzic\w*|syn\w{0,2}|c[óo]rk\w*|cioci\w*|ciotk\w*"
    r"|brother|sister|neighbou?r|friend"
)
_CAPITAL = r"(?:[A-ZĄĆĘŁŃÓŚŹŻÄÖÜ][a-ząćęłńóśźżäöüß'’]{1,30}|[А-ЯІЇЄҐ][а-яіїєґ'’]{1,30})"
_FULL_NAME = rf"{_CAPITAL}(?!\w)(?:[ -]{_CAPITAL}){{0,3}}(?: [A-ZĆŁŚŹŻ]\.)?"
_LETTERS = r"[^\W\d_]{2,30}"
_LAST = r"(?=\s*(?:[,.;!•]|$|tel\b|i\s|z\s))"
_SAID = re.compile(
    rf"(?i:\b(?:nazywam\s+si[ęe]|mam\s+na\s+imi[ęe]|(?<!\bma\s)(?<!\bmi\s)na\s+imi[ęe](?:\s+mi)?|imi[ęe](?:\s+i\s+nazwisko)?:|my\s+name\s+is|my\s+name['’]s|ich\s+hei(?:ß|ss)e|mein\s+name\s+ist"
    rf"|мене\s+звати|меня\s+зовут)\s+(?:to\s+)?)(?P<name>{_FULL_NAME}|{_LETTERS}(?:[ -]{_LETTERS}{_LAST})?)(?!\w)"
)
_INTRODUCED = re.compile(
    rf"(?i:\b(?:z\s+tej\s+strony|m[óo]wi|m[óo]w(?:cie)?\s+(?:mi|do\s+mnie)|(?:m[óo]wi[ąa]|wo[łl]aj[ąa])\s+(?:na\s+mnie|mnie|mi|do\s+mnie)|pisze|umow\w+\s+na|na\s+nazwisko|k[łl]ania\s+si[ęe]|m[óo]wi[ćc]\s+(?:mi|do\s+mnie)|mi\s+m[óo]wi[ćc]|call\s+me|this\s+is|i['’]?m|i\s+am|jestem|tu|(?:to\s+)?ja|hier\s+ist|ich\s+bin|imi[ęe]|nazwisko|osob[aąy]\s+(?:kontaktow[aąej]+|do\s+kontaktu)\s*:?)\s+(?:pani?\s+)?)(?P<name>{_FULL_NAME}|{_LETTERS}(?=\s*(?:[,.;!•]|$)))(?!\w)"
)
_SIDE = re.compile(
    rf"\b(?P<name>{_FULL_NAME}|{_LETTERS}(?:[ -]{_LETTERS})?)\s+(?:z\s+tej\s+strony|here|jestem|m[óo]wi(?![,:])|si[ęe]\s+(?:k[łl]ania|nazywam)|mi\s+na\s+imi[ęe]|pe[łl]ne\s+dane|imi[ęe]\s+i\s+nazwisko)(?=\s*(?:[^\w\s]|$|btw\b))"
)
_SIGNED = re.compile(
    r"(?i:\b(?:pozdrawiam|pozdrowienia|z\s+powa[żz]aniem|regards|cheers|best|gr[üu](?:ß|ss)e)[ ,.!-]+)"
    rf"(?P<name>{_FULL_NAME})(?:\s+(?i:tel\w*|kom\w*|nr|numer)\b)?[\s.:!•]*$"
)
_BESIDE = re.compile(rf"(?:^|[{MARK},;:.]\s*)(?P<name>{_FULL_NAME})(?:\s+i\s+{_CAPITAL})?\s*(?=[,;/|]?\s*(?i:tel\w*[.:]?|kom\w*[.:]?|mail:?|e-?mail:?|nr:?|numer:?)?\s*(?:$|{MARK}|ze?\s+[A-ZĄĆĘŁŃÓŚŹŻ]))")  # fmt: skip
_LABELLED = re.compile(
    rf"(?<!\bi\s)(?<!imi[ęe]\s)\b[Nn]azwisko:?\s+(?:to\s+|przez\s\w+\s\w+,\s)?(?P<name>(?!Pa[nń]|Wa[ms]\b|Moje|Tw[oó]j){_CAPITAL}(?:-{_CAPITAL})?)"
)
"""`Nazwisko Kot, imię Wanda`"""
_FAMILY = re.compile(
    r"(?=[A-ZĆŁŚŹŻ])(?!\w{0,30}[Pp]olska)\w{3,21}(?:[sc]k[ia]|dzk[ia]|wicz|czyk|[ic]zak)"
)
"""`Tu Kowalczyk`"""
_NOUN = r"(?!Wtorek|Czwartek|Ponied|Pi[ąa]tek|Domek|Budynek|Rybnik|Mielec|[ŻZ]ywiec|W[łl]oc|[ŚS]widnik)[A-ZĆŁŚŹŻ]\w{1,15}(?:[eaiyu]k|ec|[oa]rz)"
"""A family's name that may be a word as well: `Rożek, Waldemar`."""
_DIVIDED = re.compile(
    rf"(?:(?<=azywam si[ęe] )(?P<last>{_CAPITAL})|(?:^|(?<={MARK} ))(?P<family>{_FAMILY.pattern}|{_NOUN})),(?=\s(?P<first>{_CAPITAL})\s*(?:[,.;!{MARK}]|$))"
    rf"|(?:(?<=estem )|(?<=si[ęe] )|(?<=\b[Jj]a )|(?<=\b[Tt]u ))(?P<twice>{_CAPITAL}),\s(?=(?P=twice)\s{_CAPITAL})"
)
"""`Nazywam się Rożek, Waldemar`, `Oliwia, Oliwia Sadowska`"""
_COUPLE = re.compile(
    rf"(?:^|[{MARK},;:.]\s*)(?P<name>{_LETTERS}\s+i\s+{_LETTERS}\s+{_LETTERS})(?=\s*(?:[{MARK},;.!]|$))",
    re.IGNORECASE,
)
"""`Łukasz i Dominika Szymczyk`"""
_LAST_TWO = re.compile(
    rf"(?<=\w\s)(?P<name>(?!\w+ę\b){_CAPITAL}[ ]{_CAPITAL})(?=\s*(?:[,;.]|{MARK}|$))"
)
"""`Beauty Studio Ewelina Pająk`"""
_OF_SIDE = ("strony", "here", "jestem", "kłania", "klania", "nazywam", "imi", "dane", "nazwisko", " mówi", " mowi")  # fmt: skip
_FIRST = re.compile(
    rf"(?:^|(?<=[.!]\s)(?=\w{{2,20}},\s[A-Z][^,.;{MARK}]{{1,40}}[,\s]+{MARK}))(?P<name>{_CAPITAL}(?:[ -]{_CAPITAL}){{0,2}})\s*[,.!]\s"
)
"""`Mirek, pisać sms 609 771 235`, `Proszę o kontakt. Kamil, Bud Media, 609 771 235`"""
_STANDING = re.compile(
    rf"(?:^|[{MARK},;:.!]\s*)(?P<name>{_CAPITAL}(?:(?:[ -]{_CAPITAL}){{1,2}}|\s[A-ZĆŁŚŹŻ]\.))\s*(?=[,;.!]|$|(?:administrator|kierowni|prezes|zarz[ąa]d|w[łl]a[śs]ciciel|dok[łl]adnie)\w*\s*(?:[,;.!]|$))"
)
"""Two or more words between commas, as in a signature."""
_OF_TOWN = re.compile(
    rf"^(?:\w+(?:[ -]\w+)?,\s+(?={_CAPITAL}[.!]*$))?(?P<name>{_FULL_NAME})(?=[.!]*$|\s+ze?\s+{_CAPITAL}(?:[ -]{_CAPITAL})?\s*(?:[,;.!{MARK}]|$))"
)
"""`Ząbki, Ania`, `Robert Klimek z Legionowa`"""
_LAST_WORD = re.compile(rf"{MARK}\s*(?P<name>(?!(?-i:maks|max)\b){_LETTERS})\s*$", re.IGNORECASE)
_LOWER_CASE = re.compile(
    rf"[{MARK},;]\s*(?P<name>(?!maja\b){_LETTERS})\s*(?={MARK}\s*[^\w\s]*\s*$)", re.IGNORECASE
)
"""`start w maju, marcin 511 892 004`"""
_SURNAME = r"\w{2,20}(?:[sc]k[ia]|dzk[ia]|wicz|czyk|[ic]zak|iak)"
_NO_SURNAME = r"(?!(?:pozdr|prosz|dzwo|zadzw|oddzw|pisz|m[óo]j|moja|kontakt|lub|albo|oraz|sms|whats|dzi[ęe]k|czek|jutr|dzi[śs]|wiecz|ran[oe]|tel|kom|nr|numer)\w*\b)"
_BEFORE_PHONE = re.compile(
    rf"(?:^|[{MARK},;.:!]\s*|\b(?<!\bi\s))(?:(?:pani?|ja|tu|ok|okej|dobrze|kontakt)\s+)?"
    rf"(?P<name>(?!(?:maja|max|maks)\b){_LETTERS}(?:\s{_SURNAME}|\s{_NO_SURNAME}{_LETTERS}(?=(?:\s(?:tel|kom|nr)\w*)?[\s.,:-]*{PHONE_MARK}))?)(?=(?:\si)?(?:\s{_LETTERS}|\s\w\.)?[\s.,:-]*{PHONE_MARK})",
    re.IGNORECASE,
)
"""`ok kasia 511 892 004`"""
_AFTER_PHONE = re.compile(
    rf"{PHONE_MARK}[\s,;:(-]*(?:(?:stacjonarn\w+|domow\w+|kom[óo]rk\w+|pani?|ja|tu|m[óo]wi)\s+)?(?P<name>(?!(?:max|maks)\b){_LETTERS}(?:\s{_SURNAME}|\s{_NO_SURNAME}{_LETTERS}(?=[\s.!)]*$))?)"
    rf"(?=\s*(?:$|[,;.!)(-]|{MARK}|(?:po|przed|od|do|najlepiej|prosz\w+|\w*dzwo\w+|pozdr\w+|ale|tylko)\b))",
    re.IGNORECASE,
)
"""`511 892 004 kasia, najlepiej po 16`"""
_ALONE = re.compile(rf"[\s•,]*(?P<name>{_FULL_NAME}|{_LETTERS}(?:[ -]{_LETTERS}){{0,2}})[\s•,.!]*")
FIRST_NAMES = frozenset(
    fold(name)
    for line in (Path(__file__).parent / "first_names.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for name in line.split()
)


_LEADS = vocabulary(
    "nazywam imie name heiße heisse звати зовут nazwisko pozdrawiam pozdrowienia powazaniem regards cheers best gruße grusse"
)
"""Words beside which any name is read; elsewhere only one with a known first name, or a family's."""


def find(text: str, _: date, asked: Question | None) -> Reading:
    said = words(text)
    if FIRST_NAMES.isdisjoint(said) and _LEADS.isdisjoint(said) and not _FAMILY.search(text):
        return text, {}
    if ", " in text:
        text = _DIVIDED.sub(_joined, text)
    last = _LABELLED.search(text) if "azwisko" in text else None
    if last is None or fold(last["name"]) in FIRST_NAMES or _is_of_another(text, last):
        return _find(text, asked)
    text, news = _find(take(text, last), asked)
    first = news.get("name", "")
    return text, {"name": first if " " in first else f"{first} {last['name']}".lstrip()}


def _joined(said: re.Match[str]) -> str:
    """Leave out the comma within a name, and a first name that is said twice."""
    last, first = said["last"] or said["family"] or "", said["first"] or said["twice"]
    return last if fold(first) in FIRST_NAMES and fold(last) not in FIRST_NAMES else said[0]


def _find(text: str, asked: Question | None) -> Reading:
    match = _SAID.search(text) or _known(_INTRODUCED, text) or _on_the_side(text)
    match = match or _couple(text) or _SIGNED.search(text)
    if match is None and (MARK in text or asked in {"name", "contact"}):
        match = _known(_BESIDE, text)
    if match is None:
        match = _known(_STANDING, text) or _known(_LAST_WORD, text) or _known(_LOWER_CASE, text)
        if PHONE_MARK in text:
            match = match or _known(_BEFORE_PHONE, text) or _known(_AFTER_PHONE, text)
        match = match or _known(_FIRST, text) or _known(_OF_TOWN, text)
        if match is None and (MARK in text or asked in {"name", "contact"}):
            match = _known(_LAST_TWO, text)
    if (
        match is None
        and (asked in {"name", "contact"} or text[:1].isupper() or _may_sign(text, asked))
        and (alone := _ALONE.fullmatch(text))
    ):
        match = alone if _is_known(alone["name"]) else None
    if match is None or _is_limit(text, match) or _is_of_another(text, match):
        return text, {}
    is_amid = match.re is _BEFORE_PHONE and text[: match.start()].rstrip()[-1:].isalpha()
    name = _in_order(_bare(match["name"].rstrip(".")), turns=not is_amid)
    if name.islower():
        name = name.title().replace(" I ", " i ")
    return take(text, match), {"name": name}


def _may_sign(text: str, asked: Question | None) -> bool:
    """Return whether it may be a name in lower case, once nothing of the works is asked: `jan wilk`."""
    is_short = MARK not in text and text.count(" ") < 2
    return asked in {"consent", None} and is_short and not _NO_SIGNATURE.search(text)


_NO_SIGNATURE = re.compile(r"^sam\b|\s\S*(?:ę|ł[ae]m?|my|e|y|(?<![scdz]k)i)$", re.IGNORECASE)
"""`sam zrobię`, `ola dzwoniła`"""


_NO_NAME = vocabulary(
    "pan pani telefon tel numer nr kom komorka mail email imie nazwisko mnie kontakt prosze jestem dane "
    "dzwonic dzwoncie zajmie zgoda"
)


def _bare(name: str) -> str:
    """Leave out the words beside a name: `dorota mazurek telefon`."""
    words = [word for word in name.split(" ") if fold(word) not in _NO_NAME]
    return " ".join(words) or name


def _couple(text: str) -> re.Match[str] | None:
    match = _COUPLE.search(text) if " i " in text else None
    if match is None:
        return None
    first, _, second, _ = map(fold, match["name"].split())
    return match if {first, second} <= FIRST_NAMES else None


def _on_the_side(text: str) -> re.Match[str] | None:
    return _known(_SIDE, text) if has_any(text, _OF_SIDE) else None


def _is_limit(text: str, match: re.Match[str]) -> bool:
    """`30 tysięcy max`; a name is said to be one, or is alone beside a phone number."""
    if fold(match["name"]) not in {"max", "maks"} or match.re in {_SAID, _INTRODUCED, _SIDE}:
        return False
    return text.count(MARK) != len(PHONE_MARK) or PHONE_MARK not in text


_OF_ANOTHER = re.compile(
    rf"\b(?:{KIN}|mam[aąęy]\w*|tat[aąęy]\w*|[żz]on[aąęy]\w*|m[ąa][żz]\w*|m[ęe][żz]\w+|partner\w*|babci\w*|dziad\w*|architekt\w*|szef\w*|(?<!\bm)ma|nazywa(?:j[ąa])?\s+si[ęe])\s+(?:\w+\s+){{0,3}}$",
    re.IGNORECASE,
)
"""`Mama ma na imię Genowefa`"""


def _is_of_another(text: str, match: re.Match[str]) -> bool:
    """Return whether it is the name of somebody else, who is not the one to call."""
    return PHONE_MARK not in text and bool(_OF_ANOTHER.search(text[: match.start("name")]))


_TITLED = FIRST_NAMES | {"pan", "pani"}


def _in_order(name: str, *, turns: bool) -> str:
    """Put the first name first: `Wiśniewska Teresa`.

    :param turns: False if the word before it belongs to the sentence: `piszcie do mnie, mnie Ola`
    """
    first, _, last = name.partition(" ")
    is_turned = fold(last) in FIRST_NAMES and fold(first) not in _TITLED
    if is_turned and not turns:
        return last
    return f"{last} {first}" if is_turned else name


def _known(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    by_family = pattern in (_INTRODUCED, _BEFORE_PHONE, _AFTER_PHONE)
    return next(
        (
            match
            for match in pattern.finditer(text)
            if _is_known(match["name"]) or (by_family and _FAMILY.fullmatch(match["name"]))
        ),
        None,
    )


def _is_known(name: str) -> bool:
    """Return whether it begins with a first name: `jestem Architektem` is not a name."""
    words = re.split(r"[ -]", name)
    first, *others = map(fold, words)
    return first in FIRST_NAMES or (
        first != "firma" and others[-1:] != [] and others[-1] in FIRST_NAMES
    )


# --- the vocative -----------------------------------------------------------------------------

_IRREGULAR = {
    "Paweł": "Pawle", "Piotr": "Piotrze", "Kuba": "Kubo", "Kacper": "Kacprze", "Aleksander": "Aleksandrze", "Marcel": "Marcelu", "Karol": "Karolu",
    "Kinga": "Kingo", "Maria": "Mario", "Zofia": "Zofio", "Julia": "Julio", "Natalia": "Natalio", "Amelia": "Amelio", "Emilia": "Emilio", "Oliwia": "Oliwio",
    "Patrycja": "Patrycjo", "Maja": "Maju", "Maciej": "Macieju", "Jerzy": "Jerzy", "Antoni": "Antoni", "Ignacy": "Ignacy", "Ksawery": "Ksawery", "Rafał": "Rafale",
    "Michał": "Michale", "Józef": "Józefie", "Bruno": "Brunonie", "Sylwia": "Sylwio", "Eugenia": "Eugenio", "Wiktoria": "Wiktorio", "Lidia": "Lidio",
    "Malwina": "Malwino", "Cecylia": "Cecylio", "Oktawia": "Oktawio", "Kornelia": "Kornelio", "Klaudia": "Klaudio", "Ksenia": "Kseniu",
}  # fmt: skip
_SOFT = ("sia", "zia", "cia", "nia", "dzia", "ola", "ela", "ula", "ala", "jka")


def addressed(name: str) -> str | None:
    """Return the Polish address in the vocative (`Panie Krzysztofie`); None if uncertain."""
    first = name.split(maxsplit=1)[0].split("-", maxsplit=1)[0]
    if fold(first) not in FIRST_NAMES or not first.isalpha() or not first.istitle():
        return None
    man = not first.endswith("a") or first in {"Kuba", "Barnaba", "Kosma", "Bonawentura"}
    form = _IRREGULAR.get(first) or _vocative(first)
    return f"{'Panie' if man else 'Pani'} {form}" if form else None


def _vocative(first: str) -> str | None:
    if first.lower().endswith(_SOFT) and len(first) < 6:
        return f"{first[:-1]}u"
    if first.endswith("a"):
        return f"{first[:-1]}o"
    if first.endswith("ek"):
        return f"{first[:-2]}ku"
    if first.endswith(("sz", "cz", "rz", "ch", "j", "l", "k", "g")):
        return f"{first}u"
    endings = {"ł": "le", "r": "rze", "t": "cie", "d": "dzie", "f": "fie", "m": "mie", "n": "nie", "b": "bie", "p": "pie", "w": "wie", "s": "sie", "z": "zie", "ń": "niu"}  # fmt: skip
    ending = endings.get(first[-1])
    return f"{first[:-1]}{ending}" if ending else None
