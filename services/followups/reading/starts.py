"""The start of the works: of the times in a message, the one that is said to be it.

Each time has a role by the words around it: that of the start, of the handover, of a deadline or an event, of
the past, or of a call.
"""

import re
from datetime import date
from enum import IntEnum
from typing import NamedTuple

from services.followups.reading import corrections, dates
from services.followups.reading.dates import Date
from services.followups.reading.text import MARK, Reading
from services.followups.rules.facts import Question

_IS_SAID = re.compile(r"\b(?:start|zaczyn|zacz[ąa]|rozpocz|rusz|wej[śs]|wchodz)\w*(?:(?!pomiar|wizyt|spotka|telefon)[^.;!?\d]){0,25}\d", re.IGNORECASE)  # fmt: skip
HANDOVER = "handover"
"""The name of a start after the handover: it gives way to one that is said as such."""


def of_handover(start: str | None) -> bool:
    return start is not None and start.endswith(f" {HANDOVER}")


def is_said(text: str) -> bool:
    """Return whether a day is said to be the start, not that of a call: `start 11.01, proszę o kontakt`."""
    return _IS_SAID.search(text) is not None


class Role(IntEnum):
    NONE = 0
    """An event, the past, a call."""
    UNTIL = 1
    """A deadline without a verb: a start only if that was asked."""
    HANDOVER = 2
    UNSAID = 3
    START = 4


_HANDOVER = r"odbi[óo]r|odbior[^\W\d]*|odbier[^\W\d]*|(?<!pod )klucz[^\W\d]*|oddani\w|oddaj[ąae]|deweloper\w*\s+odda(?:dz[ąa])?|przekazani\w|[üu]bergabe|schl[üu]ssel\w*|handover|keys"
_WORD = re.compile(
    r"\b(?:(?P<event>wchodz\w*\s+(?:najem|lokat|klient|go[śs]ci)\w*)|(?P<start>(?!\w+(?:li[śs]my|[łl][ae]m)\b)(?:wy|(?<!przed )start\w*|zaczyn\w*|zacz[ąęan]\w*|rozpocz\w*|rozp\b|rusz[ay]\w*|rusz[ęe]\b|wej[śs][ćc]\w*|wejd\w+|wchodz\w*|wpu[śs][ćc]\w*|begin\w*|beginn\w*|почат\w*|почн\w*))"
    rf"|(?P<after>(?:po|od|after|nach)\s+(?:\w+\s+)?(?:{_HANDOVER}|the\s+(?:handover|keys)))|(?P<handover>{_HANDOVER})"
    r"|(?P<works>prac[ey]?\b|robot\w*|rob[óo]t|robi[ćc]|ekip\w*|(?<!po )remont\w*|wyremont\w*|wyko[ńn]cz\w*|works?)"
    r"|(?P<finish>gotow\w*|sko[ńn]cz\w*|ko[ńn]cz\w*|zako[ńn]cz\w*|finish\w*|ready|fertig|wprowadz\w*|otworz\w*|otwier\w*|otwar\w*|wesel\w*|[śs]lub\w*|wraca\w*|deadline|rodz[ięe]\w*|por[óo]d\w*|przeprowadz\w*|najem\w*|najmu)"
    r"|(?P<call>(?:za|od)?dzwo[ńn]\w*|odezw\w*|telefon\w*|kontakt\w*|spotka\w*|wizyt\w*|rozmow\w*|pomiar\w*|call\w*|ring|visit|odpisz\w*|odpowied\w*|czeka\w*|um[óo]wi\w*|um[óo]wm\w*)"
    r"|(?P<other>(?:zm|um)ar[łl]\w*|ode?sz(?:ed)?[łl]\w*|zesz[łl]\w*|znik[łn]\w*|uciek[łl]\w*|bank|kredyt\w*|decyzj\w*|da\s+odpowied\w*|notari\w*|akt\b|przetarg\w*|mia[łl]\w*\s+by[ćc]|by[łl](?:o|a|y|em|am)?|byli(?:[śs]my)?|kupi[łl]\w*|zrobili\w*|wprowadzili\w*|mieszka(?:m|my|li\w*|[łl]\w*)|ostatni\w*|temu|since|lived|bought|did|odpad\w*|robili|robi[łl][ay]"
    r"|przyjad[ąa]\b|przyje[żz]d[żz]a\w*|dostaw\w*|dotr[ąz]\w*|gwarancj\w*|odebra[nł]\w*|kupion\w*|wybudowan\w*|wychodz\w*|wyprowadz\w*|zamyka\w*|(?!(?:chc|mog|m[óo]g|wol|my[śs]l|plan|chcia)\w*)\w+(?:[łl][ae]m|[lł]i[śs]my|[łl]y[śs]my|li[śs]cie|[łl]y[śs]cie)))\b",
    re.IGNORECASE,
)
_END = re.compile(r"[;!?\n]+|\.\s+(?=[^\W\d])")
_PAUSE = re.compile(r"[,;.!?]\s|\b(?:wi[ęe]c|czyli|ale|a|i|bo|[żz]eby|aby)\b")
_LOOK_BACK, _LOOK_AHEAD = 70, 40
_DENIED = re.compile(r"\b(?:nie|not)\s+(?:(?:w|we|od|na|in|from)\s+)?$", re.IGNORECASE)
_RULED_OUT = re.compile(
    r"\s*(?:(?:to|nas|nam|mnie|mi|my|ja|si[ęe]|jeszcze|ju[żz]|niestety|raczej|akurat|chyba|pewnie|jest\w*|mam|mamy)\s+){0,3}"
    r"(?:nie\s+(?:ma\s+(?:nas|mnie)|da(?:m|my)?\s+(?:rady|si[ęe])|pasuj\w*|(?:mog[ęe]|mo[żz]emy)(?=\s*$|\s+(?:bo|zacz|rusz|wpu|was|jeszcze)))"
    r"|(?<=nas )nie\s+(?:ma|b[ęe]dzie)|(?<=mnie )nie\s+(?:ma|b[ęe]dzie)|(?<=si[ęe] )nie\s+da\b|nie\s+(?:wyrob|zd[ąa][żz])|niere?aln|niemo[żz]liw|odpada|za\s+(?:wcze[śs]nie|p[óo][źz]no)|na\s+(?:urlopie|wyje[źz])|za\s+granic|poza\s+(?:domem|krajem)|wyje[żz]d[żz]a|zaj[ęe]t)",
    re.IGNORECASE,
)
"""`W grudniu nas nie ma`"""
_TOO_SOON = re.compile(r"\b(?:ale|lecz|cho[ćc]|tylko\s+[żz]e)\b(?!.*\b(?:je[śs]li|je[żz]eli|jak|gdyby)\b).*\b(?:niemo[żz]liw|niere?aln|nie\s+(?:da|wyrob|zd[ąa][żz])|za\s+(?:p[óo][źz]no|wcze[śs]nie))", re.IGNORECASE)  # fmt: skip
"""`przed świętami, ale to niemożliwe, więc po nich`"""
_NOT_SOON = re.compile(r"\b(?:nie|not)\s+(?:(?:szuka|potrzeb|mus[iz]|chc|trzeba|zale[żz]|wymaga|jest|b[ęe]dzie|planuj|need)\w*,?\s+(?:(?!(?:tylko|lecz|ale|czeka\w*|zwleka\w*)\b)[^\W\d_]+\s+){0,4}|a[żz]\s+tak\s+)?$", re.IGNORECASE)  # fmt: skip
"""`Nie szukam nikogo na już`"""
_NOT_BEFORE = re.compile(r"before|przed|wcze[śs]niej|vor", re.IGNORECASE)
_UNTIL = re.compile(r"\b(?:do|przed|until|by|bis)\s+(?:(?:ko[ńn]c|po[łl]ow|pocz[ąa]tk)\w*\s+)?(?:\w+\s+)?$", re.IGNORECASE)  # fmt: skip
_IS_UNTIL = re.compile(r"(?:do|until|by|bis)\s", re.IGNORECASE)
_LED_DAY = re.compile(r"\b(?:od|w|do|po|na|termin\w*|from|on|ab|am|dniu|dnia)\s*:?\s+$", re.IGNORECASE)  # fmt: skip
_RINGS = re.compile(r"\b(?:za|od)?dzwo[ńn]\w*|\bcall\w*|\bring\b|\bkt[óo]rej\b", re.IGNORECASE)
_RINGS_AFTER = re.compile(rf"[^,;.!?\d]{{0,20}}(?:{_RINGS.pattern})|\s*(?:po|o|przed|ok\w*)\s+\d", re.IGNORECASE)  # fmt: skip
"""`Proszę nie dzwonić w piątek`, also in answer to when the works start."""
_MADE = re.compile(r"^(?!.*\b(?:m[öo]cht|woll|soll|werd)).*\b(?:gemacht|verlegt|gefliest|gestrichen|eingebaut|montiert|renoviert|saniert|z?robion[aeiy]\s+przez|(?:з?роби|кла|поклали|става|ставил|дела|сделал|ремонтувал|встановил)(?:ли|в|ла|и))\b", re.IGNORECASE)  # fmt: skip
"""`im Sommer von Ihnen gemacht`"""
_OVER = re.compile(r"\b\w{2,}li[śs]cie\b|\b(?:oddan[yaeio]|(?:re|wyre)montowan[yae]|malowan[yae]|k[łl]adzion[yae])\b|\b(?!je[śs]li|je[żz]eli|czyli)\w{2,}li\s+(?:u\s+\w+\s+)?pa[ńn]stwo\b|\bpa[ńn]stwo\s+(?:u\s+\w+\s+)?(?!je[śs]li|je[żz]eli|czyli)\w{2,}li\b|\b(?:ekipa|firma|fachowiec|majster|wykonawca)\s+(?:u\s+\w+\s+)?\w{2,}[łl]a?\b", re.IGNORECASE)  # fmt: skip
_TO_COME = re.compile(r"\bb[ęe]d(?:zie|[ąa])\b|\bma(?:j[ąa])?\s+(?:by[ćc]|zosta[ćc])|\bzostan\w*|\w*by(?:[śs]cie|[śs]my|m)?\b|\bchc\w*|\bm[óo]g\w*|\bmia[łl]\w*|\bmieli|(?:m[óo]wi|pisa|obieca|proponowa|poda|wspomina)li|przysz[łl]|20\d\d", re.IGNORECASE)  # fmt: skip
"""`blok oddany we wrześniu`, `we wrześniu kładli Państwo płytki`; but not `blok ma być oddany`."""
_OF_THE_DEAD = re.compile(r"(?s)^(?=.*(?:\b(?:zm|um)ar[łl]|nie\s+[żz]yje)).*\b(?:(?:um[óo]wi|umawia|podpis(?:yw)?a|zam[óo]wi)[łl]a?|mia[łl]a?\b[^.;!?]{0,20}\bum[óo]w\w*)\b[^.;!?]*$", re.IGNORECASE)  # fmt: skip
"""`Mąż umawiał się z Państwem od 7 grudnia. Zmarł w niedzielę.`"""
_CALL_ME = re.compile(rf"(?:{_RINGS.pattern}|\bo\s+(?:telefon|kontakt)\b|rozm(?:ow|awi)\w*)(?P<then>(?:(?!\b(?:termin|robi|malow|od\s*$))[^.;!?])*)$", re.IGNORECASE)  # fmt: skip
"""`żeby ktoś zadzwonił, może w przyszłym tygodniu`"""
_AFTER_THAT = re.compile(rf"\s*(?:po\b(?!\s+niedz)|(?<=zaraz )potem\b|(?<=razu )potem\b|(?:jak|gdy|kiedy|as\s+soon\s+as|when)\b[^,;.!?]{{0,30}}\b(?:{_HANDOVER}|podpis\w*|sprzeda\w*|zwoln\w*|wyprowadz\w*|sko[ńn]cz\w*))", re.IGNORECASE)  # fmt: skip
"""`zaraz po odbiorze`: a time that another one gives."""
_SAID = r"(?:(?:za|do|s)?pyta[mnć]?|(?:na|od|do)?pisz[ęe]|(?:po|do|od)?powiem|odpowiem|odpowiadam|m[óo]wi[ęe]|podam|podaj[ęe]|(?:wy|prze|pode|do)[śs]l[ęe]|(?:wy|prze|do)sy[łl]am|wspomn[ęe]|dodam|dopytam|zastrzegam|zaznacz(?:am|[ęe])|uprzedz(?:am|[ęe])|informuj[ęe]|wyja[śs]ni(?:am|[ęe])|sprawdz(?:am|[ęe])|zmierz[ęe]|policz[ęe]|wr(?:acam|[óo]c[ęe])|odbior[ęe]|oddzwoni[ęe]|zadzwoni[ęe]|pytani\w+|dzi[ęe]kuj[ęe])"
_SAYS = re.compile(rf"\s+(?:(?:te[żz]|jeszcze|si[ęe]|chc[ęe]|chcia[łl][ae]?m|mog[ęe]|mam|to|wam|pa[nń]\w*)\s+){{0,3}}(?:{_SAID}|(?:za|s)pyta[ćc]|powiedzie[ćc]|(?:na)?pisa[ćc]|poda[ćc])\b", re.IGNORECASE)  # fmt: skip
_SAYS_SOON = re.compile(rf"\b{_SAID}\s+(?:(?:te[żz]|jeszcze|to|wam|pa[nń]\w*)\s+)?$", re.IGNORECASE)
"""`od razu zapytam`, `napiszę zaraz`: when something is said, not when the works start."""
_HOPED = re.compile(r"\b(?:mieli(?:[śs]my)?|mia[łl][ae]m|my[śs]l(?:a[łl]|eli)\w*|planowa[łl]\w*|chcieli[śs]my|chcia[łl][ae]m)\b", re.IGNORECASE)  # fmt: skip
_SO = re.compile(r"\b(?:wi[ęe]c|czyli|zatem|dlatego|tak[żz]e)\b", re.IGNORECASE)
_LONGEST_LINK = 25
_ROUGH = re.compile(r"about|week|in_|spring|summer|autumn|winter|quarter|half_year|holidays|(?:before|after)_")  # fmt: skip
_LIST = re.compile(r"[\s,(:–-]*(?:(?:albo|lub|czyli|ok\.?|oko[łl]o)\s+)?", re.IGNORECASE)
_AT_LATEST = re.compile(r"najp[óo][źz]niej|\bmaks|\bmax", re.IGNORECASE)
_YOURS = re.compile(r"\bwy\b", re.IGNORECASE)
"""`elektryk wchodzi w marcu, wy w kwietniu`"""
_PREFERS = re.compile(r"^[\s,]*(?:a|albo|ale|lub)?\s*(?:naj)?lepiej\s*(?:jeszcze\s*)?$", re.IGNORECASE)  # fmt: skip


def find(text: str, today: date, asked: Question | None) -> Reading:
    bare = asked == "start"
    found = dates.read(text, today, bare=bare)
    if not found:
        return text, {}
    ends = [*(each.start for each in found[1:]), len(text)]
    begins = [0, *(each.end for each in found)]
    rated: list[tuple[Role, Date]] = []
    is_past = False
    gone = len(text)  # the end of `wiosna 2026`: its year holds for a month after it
    for each, begin, end in zip(found, begins, ends, strict=False):
        around = _around(text, each, begin, end)
        role = (
            Role.NONE if _is_none(text, each, around, bare=bare) else _role(each, around, bare=bare)
        )
        if role == Role.UNTIL and bare and len(found) == 1:
            role = Role.UNSAID
        day = each.said.partition(" ")[0]
        is_had = role == Role.HANDOVER and day == f"{today.year + 1}-{today:%m}"
        is_gone = "20" not in around.said and (is_had or _LIST.fullmatch(text, gone, each.start))
        if role > Role.UNTIL and (is_gone or day < today.isoformat()[: len(day)]):
            is_past = is_past or bare or role == Role.START
            gone = each.end if (is_gone and not is_had) or each.said[8:] in dates.SEASONS else gone
        elif role > Role.UNTIL:
            rated.append((role, each))
    if not rated:
        return text, {"past_start": True} if is_past else {}
    role, chosen = _chosen(text, rated) if len(rated) > 1 else rated[0]
    is_handover = role == Role.HANDOVER and chosen.said != "asap"
    said = f"{chosen.said} {HANDOVER}" if is_handover else chosen.said
    return f"{text[: chosen.start]} {MARK} {text[chosen.end :]}", {"start": said}


def _chosen(text: str, rated: list[tuple[Role, Date]]) -> tuple[Role, Date]:
    """Return the first with the strongest role, or what corrects it."""
    best = max(role for role, _ in rated)
    strongest = [each for role, each in rated if role == best]
    yours = [each for each in strongest if _YOURS.search(_clause(text, each))]
    meant = [each for each in yours or strongest if not _HOPED.search(_clause(text, each))]
    chosen = (meant or strongest)[0]
    for role, each in rated:
        between = text[chosen.end : each.start]
        follows = role == Role.START and _SO.search(between)
        is_closer = role >= Role.UNSAID and _is_closer(chosen, each, between)
        is_later = role >= Role.UNSAID and _TOO_SOON.search(between[-corrections.MOST_BETWEEN :])
        is_right = is_later or corrections.corrects(between) or _PREFERS.search(between)
        if each.start > chosen.start and (follows or is_closer or is_right):
            chosen, best = each, role
    for role, each in rated if chosen.said == "asap" else ():
        is_then = text[each.end : chosen.start].endswith(" i ")  # `w maju przyjedziecie i od razu`
        if each.said != "asap" and (role == Role.HANDOVER or is_then):
            return role, each  # `klucze w marcu, zacząć jak najszybciej`
    return best, chosen


def _is_closer(chosen: Date, each: Date, between: str) -> bool:
    """Return whether it says the same more exactly: `po świętach, koło 7 stycznia`."""
    if _PAUSE.search(between) if chosen.said == "asap" else each.said[:7] < chosen.said[:7]:
        return False
    is_next = len(between) <= _LONGEST_LINK and not (
        _WORD.search(between) or _AT_LATEST.search(between)
    )
    return is_next and _exactness(each) > _exactness(chosen)


def _exactness(each: Date) -> int:
    day, _, named = each.said.partition(" ")
    if day == "asap":
        return 0
    if _ROUGH.match(named):
        return 1 if named in dates.SEASONS else 2
    return len(day.split("-")) + (each.kind != "weekday")


def _clause(text: str, each: Date) -> str:
    return _PAUSE.split(text[max(0, each.start - _LOOK_BACK) : each.start])[-1]


class _Around(NamedTuple):
    """The words around a time."""

    before: str
    """From the time before it, or the sentence's beginning."""
    clause: str
    after: str
    """To the end of the clause or the next time."""
    said: str


def _around(text: str, each: Date, begin: int, end: int) -> _Around:
    """Return the words around a time.

    :param begin: where the time before it ends
    :param end: where the next one begins
    """
    before = _END.split(text[max(begin, each.start - _LOOK_BACK) : each.start])[-1]
    after = _PAUSE.split(text[each.end : min(end, each.end + _LOOK_AHEAD)])[0]
    return _Around(before, _PAUSE.split(before)[-1], after, text[each.start : each.end])


def _is_none(text: str, each: Date, around: _Around, *, bare: bool) -> bool:
    """Return whether it cannot be the start, whatever verb is near: `nie w maju`, `faktura z lipca`."""
    if each.kind in {"asap", "now"} and (
        _SAYS.match(text, each.end)
        or _SAYS_SOON.search(around.before)
        or _NOT_SOON.search(around.before)
    ):
        return True
    if each.kind == "asap":
        return _AFTER_THAT.match(text, each.end) is not None
    if _RULED_OUT.match(around.after) and not _UNTIL.search(around.before):
        return True
    is_denied = _DENIED.search(around.before) and not _NOT_BEFORE.match(around.said)
    rest = _PAUSE.split(text[each.end :], maxsplit=1)[0]
    is_made = _MADE.search(around.clause + rest)
    is_of_call = each.kind in {"weekday", "next", "now"} and (
        _RINGS.search(around.clause) or _RINGS_AFTER.match(text, each.end)
    )
    is_old = not bare and around.said[:2].lower() == "z "
    is_over = _OVER.search(around.clause + rest) and not _TO_COME.search(around.before + around.said + rest)  # fmt: skip
    is_dead = _OF_THE_DEAD.match(f"{text[each.end :]}\n{text[: each.start]}")
    before = _END.split(text[max(0, each.start - _LOOK_BACK) : each.start])[-1]
    call = _CALL_ME.search(before) if each.kind in {"weekday", "next", "now"} else None
    said = {match.lastgroup for match in _WORD.finditer(call["then"] + rest)} if call else {"start"}
    is_then_called = said <= {"call", "other"}
    return any((is_denied, is_made, is_of_call, is_then_called, is_old, is_over, is_dead))


def _role(each: Date, around: _Around, *, bare: bool) -> Role:
    """Return the role of a time.

    :param bare: this answers when the works start
    """
    word = _word(around)
    is_led = _LED_DAY.search(around.before) or word in {"start", "after", "handover"}
    if each.kind == "number" and not bare and not is_led:
        return Role.NONE
    if word in {"handover", "start", "after"}:
        return Role.HANDOVER if word == "handover" else Role.START
    is_vague = each.kind in {"weekday", "span", "asap", "next"}
    if each.kind in {"date", "number"} and (
        _IS_UNTIL.match(around.said) or _UNTIL.search(around.before)
    ):
        return Role.UNTIL
    is_call = word == "call" and (is_vague or not bare) and not (bare and each.kind != "weekday")
    is_other = word == "other" and (not bare or each.kind == "weekday")
    if word in {"finish", "event"} or is_call or is_other:
        return Role.NONE
    return Role.START if word == "works" else Role.UNSAID


def _word(around: _Around) -> str | None:
    """Return the group of the nearest word that says what a time is: in its clause, else before."""
    words = [match.lastgroup for match in _WORD.finditer(around.clause)]
    if words:
        return "start" if words[-2:] == ["start", "works"] else words[-1]
    if match := _WORD.search(around.after):
        return match.lastgroup
    before = "" if around.before == around.clause else around.before
    started = any(match.lastgroup == "start" for match in _WORD.finditer(before))
    return "start" if started else None
