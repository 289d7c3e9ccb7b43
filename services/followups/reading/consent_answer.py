"""What a message means for consent: a grant is never inferred, a withdrawal is heard anywhere.

Each word has a kind, written as a letter; consent_words.toml lists them. A yes is a whole message
of listed words, some of which agree: one foreign word ("tak, ale", "za miesiąc") makes it none. A
no is wider, for it may stop a mail but never send one. A withdrawal counts in every turn; what
merely denies something ("nie mamy projektu") counts in none but the one that asked.
"""

import re
from typing import Literal

from services.followups.reading.kinds import TABLES, Kinds
from services.followups.reading.name import FIRST_NAMES
from services.followups.reading.phrases import plain
from services.followups.reading.speech import heard
from services.followups.reading.text import MARK, beginnings, vocabulary
from services.followups.reading.tokens import Said, told
from services.followups.rules.facts import Question

Answer = Literal["yes", "no", "question"]
"""`question`: about the consent itself, which is asked for again."""

LONGEST_YES = 120
_PAUSES = re.compile(r"[\s,;:.!?()/–—-]+")
_NOT_WHOLE = re.compile(r"\?|\.\.|…")
_THUMB_UP = re.compile("[👍👌✅✔🆗]")
_THUMB_DOWN = re.compile("\\s*[👎🚫❌][👎🚫❌\N{VARIATION SELECTOR-16}\U0001f3fb-\U0001f3ff\\s]*")
_HAPPY = re.compile(
    "[\N{VARIATION SELECTOR-16}🙂😊😀😃😄😁😍🥰👍👌✅✔🆗🙏❤☺🤝🙌🤗👏🌷🌹🌸💪📩📧📨✉\U0001f3fb-\U0001f3ff]"
    r"|(?:[:=;]-?|(?<=\w))[)D]+(?!\S)"
)
_SIGNED = re.compile(r"[.,!\n]\s*([A-ZĆŁŚŹŻ][^\W\d_]+)(?: [A-ZĆŁŚŹŻ][\w-]*)?[\s.]*$")
_BEGUN = re.compile(r"\s*([A-ZĆŁŚŹŻ][^\W\d_]+)(?: [A-ZĆŁŚŹŻ][\w-]*)?\s*[.,\n]")
"""`Jan Kot. Zgadzam się`, but not `Jan Kot, zgadza się`, which confirms the name."""
_GREETED = re.compile(r"(?i:pozdrawiam|poważaniem|szacunku)(?=\s)")
_PHONE = re.compile(r"(?:\+48[ -]?)?(?<!\d)\d{3}([ -]?)\d{3}\1\d{3}(?![\s.-]*\d)")
_SPOKEN = {
    "pl": ("pl", "en", "uk", "de"),
    "en": ("en", "pl", "uk"),
    "de": ("de", "en", "uk"),
    "uk": ("uk", "pl", "en"),
}
"""In which a yes may be said, by the language of the question."""
_NO_OBSTACLE = re.compile("n[nhb]*x")
"""`Nie mam nic przeciwko`."""
_YES = {name: Kinds(table["both"], table["yes"]) for name, table in TABLES.items()}
_TRAILS_OFF = re.compile("hm+|y+|e+|no+")
"""A last word that wavers: `ok hm`, `yes no`."""
_IS_YES = re.compile("(?=.*(?:[yo]|a.*[sgm]|[sgm].*a|w[^s]*[gm]|[gm][^s]*w))[yoawsgmb]+")
"""Something agrees, or is allowed, or wanted; and nothing else is said."""
_STOPS = {"", ".", ",", ";", "!"}


_CONSENT = told("consent")
_MAY_NAME = frozenset(each[:4].strip("*") for each in _CONSENT["refuses"]["names"]) | {"nic"}
_MAY_LIMIT = vocabulary(
    "bez zadn jaki tylk wyla jedy kein ohne without with no only just без ніяк не"
)
"""How a word of each begins: without one a message costs no more than this look."""


def _words(text: str) -> list[str]:
    return _PAUSES.sub(" ", plain(text)).split()


def _says(text: str, name: str) -> bool:
    return heard(text, "consent").is_said(name)


def _after(said: Said, end: int) -> str:
    """Return the sign after these tokens; nothing at the end."""
    return said.text[said.tokens[end - 1].end :].lstrip()[:1]


def says_yes(message: str, language: str) -> bool:
    if _NOT_WHOLE.search(message) or len(message) > LONGEST_YES:
        return False
    if (beside := _without_calls(message)) != message:
        return _says(beside, "ads may_be") and says_yes(beside, language)
    words = _words(_PHONE.sub(MARK, _HAPPY.sub(" ", _without_name(message))))
    if not words:
        return bool(_THUMB_UP.search(message))
    if words == ["ja"] and language == "pl":  # `I`
        return False
    if _TRAILS_OFF.fullmatch(words[-1]):
        return False
    # `no` is a filler (`well`) only in a Polish conversation.
    spoken = [each for each in _SPOKEN[language] if each in {language, "en"} or "no" not in words]
    kinds = (_NO_OBSTACLE.sub("y", _YES[each].of(words)) for each in spoken)
    return any(map(_IS_YES.fullmatch, kinds))


def _without_calls(message: str) -> str:
    """`Maile tak, telefony nie`: the question is about mails only."""
    said = heard(message, "consent")
    for start, end in sorted(said.all("calls no"), reverse=True):
        before = said.text[: said.tokens[start].start].rstrip()
        if (
            not before or before[-1] in " ,;." or start == 0 or said.is_kind(start, "{too}")
        ) and _after(said, end) in _STOPS:
            return f"{before} {said.text[said.tokens[end - 1].end :]}"
    return message


def _without_name(message: str) -> str:
    signed = _SIGNED.search(_GREETED.sub(lambda greeting: f"{greeting[0]},", message))
    if signed and plain(signed[1]) in FIRST_NAMES:
        message = message[: message.rindex(signed[1])]
    begun = _BEGUN.match(message)
    is_name = begun is not None and plain(begun[1]) in FIRST_NAMES
    return (
        message[begun.end() :]
        if begun and is_name and _says(message, "agrees by_name")
        else message
    )


_PART = re.compile(r"(?<=[.!?;\n,])\s+|\s[-–—]\s")


def offers(text: str, language: str) -> bool:
    """Say whether a part of it agrees to mails of its own accord: `tak, możecie wysyłać mi oferty`.

    :param text: the message without its facts
    """
    if not _says(text, "ads of"):
        return False
    parts = (part.strip(" ,:;.") for part in (text, *_PART.split(text)))
    return any(_says(part, "ads of") and says_yes(part, language) for part in parts)


def consents_in_full(message: str) -> bool:
    return _says(message, "ads in_full") and says_yes(message, "pl")


def postpones(message: str) -> bool:
    """Say whether the question is left for another time: `może później`. It is asked no more."""
    return _says(message, "postpones yes")


# --- no ---------------------------------------------------------------------------------------

_NO = {
    name: Kinds(*(TABLES[each][part] for each in (*TABLES, name) for part in ("both", "no")))
    for name in TABLES
}
"""In every language, whatever the talk was in; a word of two languages is the talk's own."""
_LONGER = {"remo": "remov", "wyre": "wyrej", "chce": "chcem", "wiec": "wiece"}
"""`remont`, `wyremontować`, `chcę` and `więc` say nothing."""
_SIGNALS = {_LONGER.get(each, each) for each in _NO["pl"].beginnings("acefgmosu", 4)}
"""Every withdrawal has such a word: most messages have none, and cost no more than this look."""
_SENTENCE = re.compile(r"(?<=[.!?\n])")
_CLAUSE = re.compile(
    r"[.!?;:\n]+|,(?!\s*(?:ze|aby|by)\w*\b)|\s[-–—]\s|\s(?:bo|poniewaz|gdyz|because|weil|бо)\s"
)
_DENIED = re.compile("n[lpwc]*[rfhue]|q(?!.*a).*|(?:x[lp]*n[lp]*[os]|n[lp]*[os][lp]*x)(?!.*m)")
"""`Nie wycofuję zgody`, `jak wycofać zgodę`, `SMS-ów nie słać`."""
_WITHDRAWS = re.compile(
    "a"
    "|[rf][lp]*[cm]|c[lpm]*r"  # wycofuję zgodę, rezygnuję z maili
    "|u[lp]*(?:[pm]|$)|pl*u|e[lp]*[pm]|p[lp]*e"  # wypiszcie mnie, usuńcie mój adres
    "|[hf][lpg]*[msog]"  # przestańcie pisać, dość maili
    "|n[lpcgb]*w[lpwcgb]*m|m[lp]*n[lp]*w"  # nie chcę dostawać maili, maili nie czytam
    "|n[lpw]*g[lpb]*(?:m|$)|nl*w(?=[ls]*p)[lps]*s[lp]*m?$"  # nie chcę, żebyście do mnie pisali
    "|n[lp]*[os][lpb]*(?:m|$)|[os][lp]*n[lp]*m?$"  # proszę nie pisać, schreiben Sie nicht mehr
    "|n[lp]*[os][lp]*x[lpxn]*m"  # proszę nie kontaktować się telefonicznie ani mailowo
    "|^[lpw]*b[lpb]*m[lpm]*$"  # proszę bez maili i ofert
    "|m[lp]*h$"  # z tymi mailami koniec
    "|j[lpm]*(?:m[lp]*k|k[lp]*m)"  # niech mi nic na maila nie przychodzi
    "|t[lp]*m"  # rozmyśliłam się z tymi mailami
)
_IS_FINAL = re.compile("[lp]*f[lp]*")
_TAKES_BACK = re.compile("(?=.*(?:v[lpw]*[nd]|n[lpw]*v|n[lp]*w[lp]*c|[tfr]))[lpnwycdvtfr]+")
"""Nothing but this: `oj, jednak nie, rozmyśliłam się`."""
_REFUSES = re.compile(
    "[lpwvj]*(?:[ndk]|b[lp]*[cm])[^y]*|[^q]*(?:vl*n|pn|t)|[^qy]*m[lp]*n|[lp]*c[lp]*n[lp]*w[^qy]*"
)
_LAST_WORD = re.compile(r"\w{4}[.!]+ nie[.!]*$")


def says_withdrawal(message: str, language: str) -> bool:
    if _SIGNALS.isdisjoint(beginnings(message)):
        return False
    folded, said = plain(message), heard(message, "consent")
    for start, end in said.all("if it_can"):  # `if I can unsubscribe` is a condition on a yes
        first = said.tokens[start].start
        stop = re.search("[.!?]|$", message[said.tokens[end - 1].end :])
        folded = (
            plain(message[:first] + message[said.tokens[end - 1].end + stop.start() :])
            if stop
            else folded
        )
    kinds = _NO[language]
    if _IS_FINAL.fullmatch(kinds.of(_words(folded))):
        return True
    for sentence in _SENTENCE.split(folded):
        for clause in _CLAUSE.split(sentence):
            read = kinds.of(_words(clause)).replace("v", "l")
            asks = "?" in sentence and read.lstrip("l").startswith("q")
            if not asks and _WITHDRAWS.search(_DENIED.sub(".", read)):
                return True
    return False


def wants_reply_only(text: str, *, gives_email: bool) -> bool:
    """Say whether the person wants an answer, and no other mails.

    Beside a yes it is none: `tak, ale bez reklam` is asked about.

    :param text: the message without its address
    :param gives_email: it has one, so that `tylko wycena` says what that is for
    """
    if _MAY_LIMIT.isdisjoint(beginnings(text)):
        return False
    said = heard(text.replace(MARK, " "), "consent")
    if "?" in text or said.is_said("agrees yes"):
        return False
    is_last = any(end == len(said.tokens) for _, end in said.all("only quote"))
    return (gives_email and (said.is_said("ads none") or is_last)) or _is_contact_only(said)


def _is_contact_only(said: Said) -> bool:
    """`Telefon tylko w sprawie wyceny`"""
    if said.is_said("only nothing_else") or said.is_said("only quote_in_english"):
        return True
    return any(
        said.has("only contact", max(0, start - 6), start)
        and (_after(said, end) in _STOPS or said.words(end, end + 1) in (["prosze"], ["i"]))
        for start, end in said.all("only about")
    )


def takes_back(message: str, language: str = "pl") -> bool:
    """Say whether a message takes a yes back, after which nothing else was asked."""
    said = _NO[language].of(_words(message))
    return "?" not in message and bool(_TAKES_BACK.fullmatch(_DENIED.sub(".", said)))


def says_no(message: str, language: str) -> bool:
    """Say whether an answer to the question refuses."""
    before, asks, tail = message.rpartition("?")
    if asks and not plain(before).lstrip().startswith(("nie,", "nein,", "ні,")):
        return 0 < len(tail.split()) <= 2 and says_no(tail, language)  # `spam? nie, dziękuję`
    said = heard(message, "consent")
    is_limited = said.is_said("ads none") or _is_contact_only(said)
    is_refusal = (
        _REFUSES.fullmatch(_NO[language].of(_words(_HAPPY.sub(" ", message))))
        or _LAST_WORD.search(plain(message))
        or _THUMB_DOWN.fullmatch(message)
        or _is_only_quote(said)
        or (is_limited and not said.is_said("agrees yes"))
    )
    return bool(is_refusal) or takes_back(message, language)


def _is_only_quote(said: Said) -> bool:
    """`Tylko wycena`, `tylko wycenę i nic więcej`, `jak nie trzeba, to nie`"""
    size = len(said.tokens)
    if (0, size) in said.all("only all") or (0, size) in said.all("refuses not_needed"):
        return True
    is_last = any(end == size for _, end in said.all("only no_more"))
    return is_last and not said.is_said("agrees fully")


_AND = re.compile(rf"{_CLAUSE.pattern}|,|\s(?:i|oraz|a|ale|and|but|und|aber)\s")


def beside_answer(message: str, language: str) -> list[str]:
    """Return the clauses of an answer that say something else: `..., tylko telefon`."""
    if says_yes(message, language):
        return []
    return [
        part
        for part in _AND.split(message)
        if part.strip() and answer(part, language, "consent") not in {"yes", "no"}
    ]


# --- the answer -------------------------------------------------------------------------------

_UNWANTED = re.compile(
    "[lpwgsod]*[mcy][lpmcwg]*n[lpwgsomc]*|[lpwmc]*n[lp]*w[lpgscmb]*|[lpmcygs]*[dhb][lpmcgsnwdbx]*"
)
"""Of a clause of listed words only: `reklam mi nie trzeba`, but not `nie wyrażam zgody na dopłatę`."""
_DECLINES = re.compile("[lpv]*(?:d|n[lp]*[wd]?)[lp]*")
_PARTS = re.compile(
    r"[.!;\n]+|,(?!\s*(?:ze|aby|by)\w*\b)|(?<!\S)\S*[\d@]\S*"
    r"|(?:^|\s)(?:a|i|ale|bo|tylko(?! nie)|and|but)\s"
)
_PIECE = re.compile(r"(?:[^:?–—-]|(?<!\s)[–—-])+\??")


def _refuses_unasked(message: str, language: str) -> bool:
    """Say whether a clause names mails or the consent, and wants none: `marketing: nie trzeba`."""
    if _MAY_NAME.isdisjoint(beginnings(message)):
        return False
    said = heard(message, "consent")
    if _refuses_all(said) and not said.is_said("refuses works"):
        return True
    if not said.is_said("refuses names") or _takes_some(said):
        return False
    is_refused = said.is_said("refuses body") and said.is_said("ads marketing")
    return is_refused or _is_unwanted(message, language)


def _is_unwanted(message: str, language: str) -> bool:
    """Say whether a part that names them says so, or what follows a question about them."""
    folded, kinds = plain(message), _NO[language]
    question, asks, tail = folded.rpartition("?")
    if asks and _says(question, "refuses names") and not _says(question, "refuses works"):
        last = re.split(r"[.!;\n]\s", tail.strip(" .!"))[-1]
        size = len(heard(last, "consent").tokens)
        ends = heard(last, "consent").ends("refuses no", size) or (0, size) in heard(
            last, "consent"
        ).all("refuses not_needed")
        if _DECLINES.fullmatch(kinds.of(_words(last))) or ends:
            return True
    for part in (*_PARTS.split(folded), folded):
        for each in {part, *_PIECE.findall(part)}:
            is_named = not each.endswith("?") and _says(each, "refuses names")
            if is_named and _UNWANTED.fullmatch(kinds.of(_words(each))):
                return True
    return False


def _refuses_all(said: Said) -> bool:
    """`Nie zgadzam się na nic`, `co to za zgoda, to raczej nie`"""
    for _, end in said.all("refuses nothing"):
        if _after(said, end) in _STOPS or said.begins("refuses but", end):
            return True
    is_last = said.ends("refuses rather_not", len(said.tokens)) and "?" not in said.text
    return is_last and said.is_said("refuses unknown")


def _takes_some(said: Said) -> bool:
    """`Oferty tak, reklamy nie`"""
    stops = (_after(said, end) for _, end in said.all("agrees stops"))
    return said.is_said("agrees some") or any(stop in {",", "."} for stop in stops)


def _is_about_it(message: str) -> bool:
    """Return whether a question is about the consent: `a muszę?`, but not `robicie w soboty?`"""
    said = heard(message, "consent")
    at = 0
    while said.is_kind(at, "{before_question}") and not said.begins("asks bare", at):
        at += 1
    return said.is_said("asks of_it") or said.begins("asks bare", at)


def answer(
    message: str, language: str, asked: Question | None, *, agreed: bool = False
) -> Answer | None:
    """Return what a whole message means for consent.

    :param language: of the conversation, in which the question was asked
    :param agreed: consent was given here, and nothing has been asked since
    """
    if (
        _refuses_unasked(message, language)
        or says_withdrawal(message, language)
        or (agreed and takes_back(message, language))
    ):
        return "no"
    asks = message.rstrip().endswith("?")
    if asked == "consent":
        if says_yes(message, language):
            return "yes"
        if says_no(message, language):
            return "no"
        said = _NO[language].of(_words(message)).lstrip("l")
        is_question = (asks or said.startswith(("q", "iq"))) and _is_about_it(message)
        return "question" if is_question else None
    is_about_consent = asks and {"c", "u"} & set(_NO[language].of(_words(message)))
    return "question" if is_about_consent else None
