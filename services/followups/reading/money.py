"""Budgets, with their currency."""

import re
from datetime import date
from typing import Any

from services.followups.reading import corrections
from services.followups.reading.corrections import Quantity
from services.followups.reading.kinds import shortened
from services.followups.reading.numbers import HAS_DIGIT, NUMBER, in_digits, times, value
from services.followups.reading.text import (
    Reading,
    bare,
    fold,
    has_any,
    is_bare,
    take,
    vocabulary,
    words,
)
from services.followups.reading.units import (
    ANY_CURRENCY,
    CURRENCY,
    METRES,
    MILLION,
    MONEY,
    THOUSAND,
)
from services.followups.rules.facts import Question

_LEAST = 100
"""Less is the price of a tile."""
MOST_SAID = 100_000_000
"""A larger number is a phone number or a joke."""
_DASH = r"\s?(?:-|–|—|do|to|bis)\s?"
_BETWEEN = r"(?:mi[ęe]dzy|pomi[ęe]dzy|between|zwischen)\s+"
_AMOUNT = re.compile(
    r"(?=\s?[\d€£$]|eur|pln|mi|pomi|betw|zwis)"  # cheap, where none begins
    rf"(?P<before>€|£|\$|eur\s|pln\s)?\s?"
    rf"(?:(?P<least>{NUMBER})\s?(?:{THOUSAND}|{MILLION}|{ANY_CURRENCY})?{_DASH}"
    rf"|{_BETWEEN}(?P<from>{NUMBER})\s?(?:{THOUSAND}|{MILLION}|{ANY_CURRENCY})?\s(?:a|i|and|und)\s)?"
    rf"(?P<number>{NUMBER})[\s-]?(?:par[ęe]\s|kilka\s)?(?P<scale>{THOUSAND}|{MILLION})?\s?(?P<currency>{ANY_CURRENCY})?",
    re.IGNORECASE,
)
_HALF = re.compile(
    rf"\b(?P<words>ćwierć|cwierc|pół|pol|półtora|poltora|quarter of a|half a)\s+(?:{MILLION})|\b(?P<one>milion\b|a million\b)(?!\s+(?:\d|sto|dwie[śs]cie|trzysta|czterysta|pi[ęe][ćc]set))",
    re.IGNORECASE,
)
_THOUSAND = re.compile(THOUSAND, re.IGNORECASE)
_HALVES = vocabulary("cwierc pol poltora quarter half milion million")
_WORDS = {
    "ćwierć": 250_000, "cwierc": 250_000, "quarter of a": 250_000,
    "pół": 500_000, "pol": 500_000, "half a": 500_000,
    "półtora": 1_500_000, "poltora": 1_500_000,
}  # fmt: skip
_BUDGET = r"budż\w*|budz[eż]\w*|budget\w*|(?<!rok\s)bud\b[.:]?\s*$|бюджет\w*"
_FOR = re.compile(
    rf"\b(?P<budget>{_BUDGET})"
    r"|\b(?P<other>czynsz\w*|decyzj\w*\s+o\s+kredy\w*|kredyt\w*\s+(?:\w+\s+)?(?:na\s+(?:mieszkani|dom|zakup)|hipote)\w*|chcia[łl]a?\b|chcieli\b|krzycz\w*|policzy[łl]\w*|wadi\w*|(?:za|od|per)\s+(?:jeden\s+|1\s+|ka[żz]dy\s+)?(?:punkt\w*|m2|m²|metr\w*|mb|sztuk\w*|szt|(?:robocz)?o?godzin\w*|dni[óo]wk\w*)|zaliczk\w*|faktur\w*|rachun\w*|kaucj\w*|wp[łl]aci\w*|zap[łl]aci\w*|rent|rate?|rat[ayę]\w*(?:\s+kredyt\w*)?|deposit|mandat\w*|zarabia\w*|pensj\w*|(?:emerytur|pensj|wyp[łl]at)\w*\s+mam\w?(?=\s*$)|kosztorys\w*(?!\s+do\b)|ofert\w*\s+(?:za|na)(?=\s*$)|dzia[łl]k\w*\s+za|cen[aęyie]\w*|stawk\w*|price"
    r"|cost\s+of|(?:z)?robili[śs]my|kosztowa[łl]\w*|w\s+(?:19|20)\d\d|paid|bought|kupi\w*|kupn\w*|nabyli\w*|wart[ey]?|warto[śs]\w*|wyceni\w*|wycen[ęeay]|wk[łl]ad\w*|wynaj(?!em\b|[ęe]ci)\w*|wynaj(?:em|[ęe]ci\w*)\s+(?:to\s+|za\s+)?(?=$)"
    r"|(?:kod|nr|numer)(?=\s*$)|kar[ay]|rabat\w*|zni[żz]k\w*|premi\w*|sprzeda\w*|umow\w*|s[ąa]siad\w*|znajom\w*|metr\w*\s+(?:za|po)|nie\s+chc\w*\s+(?:wyda|p[łl]aci)\w*(?!\s+(?:wi[ęe]cej|ponad|powy))"
    r"|(?:konkurencj\w*|deweloper|(?:inn|poprzedni)[aey]?\s+\w+|firma|ekipa|wykonawca|fachowiec)(?:\s+(?:chc[eą]\w*|wzi[ęe]\w*|bierz\w*|liczy\w*))?"
    r"|(?!(?:chc|mog|m[óo]g|wol|my[śs]l|plan|mie|od[łl]o|przezn|uzbier|zebra|zaoszcz|dosta|przygot)\w*)\w+(?:[łl][ae]m|li[śs]my|[łl]y[śs]my))\b"
    r"|\b(?P<own>wyda[ćjm]\w*|spend\w*|przeznacz\w*|w[łl]o[żz]\w*|zosta[łl]\w*|szykuj\w*|przygotowa\w*|dla\s+(?:was|pa[ńn]stwa)|left|na\s+(?:to|wszystko|reszt[ęe]|(?:remont|wyko[ńn]czenie)\s+(?:mamy?|jest))|ca[łl]o[śs]\w*)\b"
    r"|\b(?P<has>kwot\w*|kwoc\w*|koszt\w*|afford|got[óo]w\w*|mam(?:y)?|dyspon\w*|kredyt\w*|dotacj\w*|dofinansow\w*|od[łl]o[żz]\w*|oszcz[ęe]d\w*|sta[ćc]\s+(?:nas|mnie)|have|habe[n]?"
    r"|chc\w*|zmie[śs]ci\w*|(?:wy)?starczy|zrobi(?:cie|[ćc])|cost)\b"
    r"|\b(?P<work>remont\w*|wyremont\w*|wyko[ńn]cz\w*)",
    re.IGNORECASE,
)
"""Words that say what the money is for; the nearest one before an amount counts."""
_FOR_AFTER = re.compile(
    rf"\s*(?:jest\s+)?(?:na|for|für)\s+(?:\w+\s+)?(?:remont\w*|wyko[ńn]cz\w*|od[śs]wie[żz]\w*|ca[łl]o[śs]\w*|the\s+renovation)|\s*(?:wy)?starczy|\s*(?:{_BUDGET})\b",
    re.IGNORECASE,
)
_THAT_MUCH = re.compile(
    r"[^\d;]{0,60}\b(?:tyle\s+(?:mam|mo[żz]|wyda|przezn)|wi[ęe]cej\s+nie\s+(?:mam|dam|wyda|mo[gż])|(?:wi[ęe]c|czyli)\s+(?:w[łl]a[śs]nie\s+)?tyle\W*$)",
    re.IGNORECASE,
)
"""`za 15 000 się da? bo tyle mam`"""
_IS_IT_MUCH = re.compile(r"\s*to\s+(?:du[żz]o|ma[łl]o|drogo|tanio)\b", re.IGNORECASE)
"""`2000 zł to dużo?`: a price, unless it is said to be a budget."""
_PER_UNIT = re.compile(
    r"\s*(?:netto|brutto)?\s*(?:/|(?:za|od|per|na|pro|je|a)\s+(?:(?:jeden|ka[żz]dy|1)\s+)?)\s*(?:m\b|m2|m²|metr\w*|mb\b|m\.b|mkw|sqm|square|qm|szt\w*|godz\w*|h\b|hour|"
    r"dzie[ńn]|day|miesi\w*|month|osob\w*|punkt\w*)|\s*miesi[ęe]czn\w*",
    re.IGNORECASE,
)
_SPENT_AFTER = re.compile(
    r"\s*(?:zaliczk\w*|czynsz\w*|kaucj\w*|rachunk\w*|raty\b|rat\b|mandat\w*|od\s+(?:konkurencji|innej|s[ąa]siad\w*)"
    r"|na\s+(?:mieszkanie|dom)\b[^,;.]{0,10}\b(?:wzi[ęe]t\w*|sp[łl]ac\w*)|na\s+zakup\b|(?:dwu|trzy)dziest\w+)",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\b(?:kuchni\w*|[łl]azien\w*|salon\w*|sypialni\w*|pok[óo]j\w*|materia[łl]\w*|robocizn\w*|mebl\w*|agd|p[łl]ytk\w*|pod[łl]og\w*|wyposa[żz]\w*|reszt\w*|drzwi|okna|elektry\w*|hydrauli\w*"
    r"|instalacj\w*|projekt\w*|wykonani\w*|kitchen|bathroom|materials?|labou?r)\b",
    re.IGNORECASE,
)
_ON_A_PART = re.compile(rf"\b(?:(?:na|za)\s+)?{_PART.pattern}", re.IGNORECASE)
_SHARED = re.compile(
    rf"\b(?P<to>na|za)\s+(?:[^\W\d_]+\s+)?\d{{1,3}}(?=\s*(?:,|i\b|a\b|oraz\b|plus\b|\+)\s*(?:[^\W\d_]+\s+){{0,2}}(?P=to)\s+(?:[^\W\d_]+\s+)?\d{{1,3}}\s*(?P<after>{THOUSAND}))"
    rf"|(?<![\d.,])\d{{1,3}}(?=\s+(?:na|za)\s+\w+\s*(?:,|i\b|a\b|oraz\b|plus\b|\+)\s*\d{{1,3}}\s*(?P<before>{THOUSAND})\s+(?:na|za)\b)",
    re.IGNORECASE,
)
"""`kuchnia za 40, łazienka za 30 tys`: one scale for both amounts."""
_OWN = r"(?:(?:jeszcze|nasze|naszych|swoje|swoich|moje|moich|w[łl]asne|w[łl]asnych)\s+)"
_OWN_ON_TOP = re.compile(
    rf"\d\s?(?P<scale>{THOUSAND})\b[^,;.\d]{{0,30}}(?:\b(?:i|oraz|a|plus)\s|\+)\s*"
    rf"(?:{_OWN}{{1,2}}\d{{1,3}}(?=\s*(?:[,;!?]|\.(?!\d)|$))|{_OWN}?\d{{1,3}}(?=\s+(?:swo|w[łl]asn|oszcz)))",
    re.IGNORECASE,
)
"""`40 tys z urzędu i swoje 20`, `80 tys z kredytu + 20 oszczędności`"""
_TWICE = re.compile(
    rf"\b(?P<number>{NUMBER})\s?(?P<scale>{THOUSAND}|{ANY_CURRENCY})\b[^.;!?\d]{{0,30}}\bdrugie\s+tyle\b",
    re.IGNORECASE,
)
"""`Dofinansowanie 18 tys, dołożymy drugie tyle`"""
_GIVES = re.compile(
    r"(?<!nie )(?<!nie chcę )(?<!nie chce )(?<!nie mogę )\b(?:da[ćc]|damy|dam|wyda[ćc]|wydamy|wydam|przeznacz\w+|do(?:[łl]o[żz]|rzuc|p[łl]ac|ci[ąa]gn|bi|jd)\w+\s+do|podnie[śs]\w+|podnios[ęe]|podnosi\w*|zwi[ęe]ksz\w+|wy[łl]o[żz]\w+|w[łl]o[żz]\w+|mie[śs]ci\w+|od[łl]o[żz]on\w+|oszcz[ęe]dzon\w+|uzbieran\w+|mam\w?(?=\s+(?:g[óo]r|ma[xk]|najw)))"
    r"\s+(?:(?:do|na|to|nawet|g[óo]r[aęy]|najwy[żz]ej|maks\w*|max|z|ze|jakie[śs]|oko[łl]o|ok\.?|si[ęe]|w)\s+){0,3}$",
    re.IGNORECASE,
)
"""`Możemy dać 300`: thousands."""
_GIVES_AFTER = re.compile(
    r"\s*(?:dam|damy|do[łl]o[żz]\w+|wy[łl]o[żz]\w+|przeznacz\w+)\b", re.IGNORECASE
)
_BUDGET_IS = re.compile(rf"(?:{_BUDGET})[^\d,;!?]{{0,30}}$", re.IGNORECASE)
_SAME_SCALE = re.compile(
    rf"\d\s?(?P<scale>{THOUSAND})(?=\D*\d)\.*[^.;!?\d]{{0,40}}\b(?:(?:{corrections.WORDS})(?:[,\s]+[^\W\d_]+\s+(?:m[óo]wi|chce|twierdzi)\w*,?(?:\s+[żz]e(?:by)?)?)?|czyli|razem|[łl][ąa]cznie|w\s+sumie|g[óo]ra|maks\w*|max|najwy[żz]ej|nawet|(?:mo[żz]e|zosta[łl]\w*|na\s+(?:remont|wyko[ńn]czenie)(?:\s+mam\w?)?|do(?:[łl]o[żz]|rzuc|k[łl]ad)\w+(?:\s+(?:z|ze|jeszcze|ok\.?|jakie[śs]))?)(?=\s\d+\s*(?:[,;!?]|\.\s|\.?$)))[\s,]+(?:(?:to|na|do|ju[żz]|jednak|raczej|max|maks|jakie[śs]|ok\.?|w\s+sumie|razem)\s+){{0,3}}\d{{1,3}}"
    rf"(?!\d|[.,]\d|\s?(?:{METRES}|{MONEY}|%|lat|rok|dni|tyg|mies|pok))",
    re.IGNORECASE,
)
"""`mam 30 tys, a właściwie to 35`"""
_PHONE_GOES_ON = re.compile(r"[\s-]?\d\d[\s-]\d\d\b")
_AT_MOST = re.compile(r"\s*(?:max|maks\w*|najwy[żz]ej)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[;!?]|\bczyli\b|\.\s+(?=[A-ZĄĆĘŁŃÓŚŹŻ])")


_COUNTS = {"": 1, "dwie": 2, "trzy": 3, "cztery": 4, "piec": 5, "szesc": 6, "siedem": 7, "osiem": 8, "dziewiec": 9}  # fmt: skip
_SLANG = re.compile(
    r"(?<!\bza\s)\b(?P<unit>dych|dyszk|st[óo]w)(?:a|i|y|ę|e|k[aęei])?\b", re.IGNORECASE
)
_OF_SLANG = ("dych", "dysz", "stów", "stow")
_COUNT = re.compile(
    r"\b(?P<count>[2-9]|dwie|trzy|cztery|pi[ęe][ćc]|sze[śs][ćc]|siedem|osiem|dziewi[ęe][ćc])\s+$",
    re.IGNORECASE,
)
_OF_MONEY = re.compile(
    rf"\b(?:{_BUDGET}|kas[aęey]|pieni\w+|mam|mamy|wyda\w+|(?:wy)?starczy\w*|na\s+(?:to|wszystko|ca[łl]\w+|remont\w*))\b",
    re.IGNORECASE,
)


def _in_thousands(text: str, asked: Question | None) -> str:
    """Write out slang: `dwie dychy` is 20 thousand, `stówka` is 100 thousand."""
    match = _SLANG.search(text) if has_any(text.lower(), _OF_SLANG) else None
    if match is None or not (asked == "budget" or _OF_MONEY.search(text)):
        return text
    counted = _COUNT.search(text[: match.start()])
    count = counted["count"] if counted else ""
    number = int(count) if count.isdecimal() else _COUNTS[fold(count)]
    each = 100 if match["unit"].lower().startswith("st") else 10
    start = counted.start() if counted else match.start()
    return f"{text[:start]}{number * each} tys{text[match.end() :]}"


_A_BUDGET = re.compile(_BUDGET, re.IGNORECASE)
_LIKE_BUDGET = re.compile(r"\bb[^\W\d_]{4,7}\b", re.IGNORECASE)
_NEAR_BUDGET = frozenset(shortened("budzet")) | frozenset(shortened("budget"))


def _respelt(text: str) -> str:
    """Correct `budżet` with one slip: `budrzet`, `bużdet`."""
    for match in _LIKE_BUDGET.finditer(text):
        word = fold(match[0]).replace("rz", "z")
        if not _A_BUDGET.fullmatch(match[0]) and not _NEAR_BUDGET.isdisjoint(shortened(word)):
            return f"{text[: match.start()]}budżet{text[match.end() :]}"
    return text


def find(text: str, _: date, asked: Question | None) -> Reading:
    text = _in_thousands(text, asked)
    if HAS_DIGIT.search(text):
        text = _respelt(text)
    match = None if _HALVES.isdisjoint(words(text)) else _HALF.search(text)
    if match:
        budget = _WORDS[match["words"].lower()] if match["words"] else 1_000_000
        if not re.search(r"\d\s*(?:i\s*)?$", in_digits(text[: match.start()])):
            return take(text, match), {"budget": budget, "currency": "PLN"}
    taken, news = _find(text, asked)
    if news or (said := in_digits(text)) == text:
        return taken, news
    return _find(said, asked, otherwise=text)


def _find(text: str, asked: Question | None, otherwise: str | None = None) -> Reading:
    if not HAS_DIGIT.search(text):
        return otherwise or text, {}
    text = _SHARED.sub(lambda match: f"{match[0]} {match['after'] or match['before']}", text)
    if "drugie tyle" in text and (twice := _TWICE.search(text)):
        text = f"budżet {round(2 * value(twice['number']))} {twice['scale']}{text[twice.end() :]}"
    text = _SAME_SCALE.sub(lambda match: f"{match[0]} {match['scale']}", text)
    if has_any(text.lower(), ("swo", "mo", "asn", "nasz", "oszcz")):
        text = _OWN_ON_TOP.sub(lambda match: f"{match[0]} {match['scale']}", text)
    amounts = [*_AMOUNT.finditer(text)]
    is_answer = asked == "budget" and not all(each["scale"] or each["currency"] for each in amounts)
    alone = {each.span("number") for each in bare(text, beside=_ON_A_PART)} if is_answer else set()
    amended = corrections.amended(text) if is_answer else None
    is_bare_text = bool(alone) and is_bare(text, beside=_ON_A_PART)
    found: list[Quantity] = []
    said: list[re.Match[str]] = []
    currency = "PLN"
    last_end = 0
    for match in amounts:
        before = text[max(last_end, match.start() - 64) : match.start()]  # bounds the look back
        is_amended = amended is not None and match.start("number") == amended.start(
            "number"
        )  # `jednak bardziej 32, bo doszła kuchnia`
        is_alone = is_amended or match.span("number") in alone
        each = _amount(
            text,
            match,
            before,
            is_answer=is_alone,
            is_whole=is_amended or (is_alone and is_bare_text),
            is_asked=asked == "budget",
        )
        if each is not None:
            currency = _currency(match) if not found else currency
            said.append(match)
            found.append(each)
        if match["scale"] or match["currency"]:
            last_end = match.end()
    is_range = _is_range(text, found)
    total = found[1].value if is_range else corrections.amount(text, found)
    if total is None:
        return otherwise or text, {}
    first, last = found[0].start, found[-1].end
    of = next((_currency(one) for one, each in zip(said, found, strict=True) if each.value == total), currency)  # fmt: skip
    news: dict[str, Any] = {"budget": round(total), "currency": of}
    of_one = _least(said[0], total) if len(said) == 1 else None
    if least := found[0].value if is_range else of_one:
        news["budget_from"] = round(least)
    before = text[max(0, first - 64) : first]
    if len(said) == 1 and times(before) == 1 and _EACH.search(before) and _FLAT.match(text, last):
        news["is_each"] = True
    return f"{text[:first]} • {text[last:]}", news


_OR_MORE = re.compile(r"\s*,?\s*(?:a\s+)?(?:mo[żz]e|max|maks\w*)\b\s*(?:(?:do|nawet|i)\b\s*)?", re.IGNORECASE)  # fmt: skip
_EACH = re.compile(r"\bpo\s*$", re.IGNORECASE)
_FLAT = re.compile(
    r"\s*(?:(?:za|na|od)\s+)?(?:ka[żz]d\w+|jedn[oaą])\b"
    r"|\s*(?:za|na|od)\s+(?:mieszkani|lokal|kawalerk|apartament|[łl]azien|pok[óo]j|dom\b)",
    re.IGNORECASE,
)


def _is_range(text: str, found: list[Quantity]) -> bool:
    """`25k może 30k`, `9 tysi, max 10`"""
    is_rise = len(found) == 2 and found[0].value < found[1].value
    return is_rise and _OR_MORE.fullmatch(text, found[0].end, found[1].start) is not None


def _least(match: re.Match[str], most: float) -> float | None:
    """Return the lower end of a range: `150-180 tys.`"""
    if (number := match["least"] or match["from"]) is None:
        return None
    least, top = value(number), value(match["number"])
    scale = most / top if top else 1
    return least if scale == 1 or least >= 1_000 > top else least * scale


_MOST_BARE = 10_000_000
"""A longer number without a currency is a mistyped phone number."""


def _amount(
    text: str, match: re.Match[str], before: str, *, is_answer: bool, is_whole: bool, is_asked: bool
) -> Quantity | None:
    """Return the amount if the context says that it is money and a budget; else None."""
    if corrections.is_rejected(text, match.start()):
        return None
    before = _SENTENCE.split(before)[-1]
    after = text[match.end() : match.end() + 40]
    gives = _GIVES.search(f"{before} ") is not None
    is_for = _FOR_AFTER.match(after) or _THAT_MUCH.match(text, match.end())
    what = "own" if gives or is_for else _whose(before)
    is_price = what is None and _IS_IT_MUCH.match(after)
    if what == "other" or is_price or _PER_UNIT.match(after) or _SPENT_AFTER.match(after):
        return None
    number, scale = value(match["number"]), match["scale"]
    if scale:
        number *= 1_000 if _THOUSAND.fullmatch(scale) else 1_000_000
    elif not match["currency"] and not match["before"]:
        if _PHONE_GOES_ON.match(after):
            return None
        if number >= 1_000:
            is_year = 1_900 <= number <= 2_100
            is_money = is_answer or (what in {"budget", "own", "has"} and not is_year)
            is_sum = is_asked and not is_year and number % 500 == 0  # `zakładamy 95 000 netto`
            is_money = is_money or (is_sum and _ends(after.removeprefix("netto")))
            is_money = is_money and number < _MOST_BARE
        else:  # `250` to "what budget?" means thousands
            is_said = (
                ((gives or _BUDGET_IS.search(before)) and _ends(after))
                or _GIVES_AFTER.match(after)
                or (is_asked and _AT_MOST.match(after))
            )
            is_money = number >= 5 and (is_whole or bool(is_said))
            number *= 1_000
        if not is_money:
            return None
    if not _LEAST <= number <= MOST_SAID:
        return None
    number *= times(before)
    of = "part" if _PART.search(before) or _PART.match(after.removeprefix(" na").strip()) else None
    return Quantity(*match.span(), number, of, weight=int(what in {"budget", "own", "work"}))


def _whose(before: str) -> str | None:
    """Classify an amount by the nearest word before it."""
    said: re.Match[str] | None = None
    for word in _FOR.finditer(before):
        between = before[said.end() : word.start()] if said else ""
        if word.lastgroup == "work" and said and said.lastgroup == "other" and "," not in between:
            continue  # `kupione do remontu za 300 tys`
        said = word
    return said.lastgroup if said else None


def _ends(after: str) -> bool:
    """Return whether a number stands alone: `budżet 75`, not `budżet na 2 pokoje`."""
    return re.match(r"\s*(?:[^\w\s]|$|(?:bo|ale|wi[ęe]c|[żz]eby)\b)", after) is not None


_CURRENCIES = {code: re.compile(each, re.IGNORECASE) for code, each in CURRENCY.items()}


def _currency(match: re.Match[str]) -> str:
    said = (match["currency"] or match["before"] or "").strip()
    if said == "$":
        return "USD"
    return next((code for code, each in _CURRENCIES.items() if each.fullmatch(said)), "PLN")
