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
from services.followups.reading.text import MARK, beginnings, fold, has_any, vocabulary
from services.followups.rules.facts import Question

Answer = Literal["yes", "no", "question"]
"""`question`: about the consent itself, which is asked for again."""

LONGEST_YES = 120
_PAUSES = re.compile(r"[\s,;:.!?()/–—-]+")
_NOT_WHOLE = re.compile(r"\?|\.\.|…")
_THUMB_UP = re.compile("[👍👌✅✔🆗]")
_HAPPY = re.compile(
    "[\N{VARIATION SELECTOR-16}🙂😊😀😃😄😁😍🥰👍👌✅✔🆗🙏❤☺🤝🙌🤗👏🌷🌹🌸💪📩📧📨✉\U0001f3fb-\U0001f3ff]"
    r"|(?:[:=;]-?|(?<=\w))[)D]+(?!\S)"
)
_SIGNED = re.compile(
    r"(?:[.,!\n]|(?i:pozdrawiam|poważaniem|szacunku))\s*"
    r"(?P<name>(?!Pozdr)[A-ZĆŁŚŹŻ][a-ząćęłńóśźż]+)(?: [A-ZĆŁŚŹŻ][\w-]*)?[\s.]*$"
)
_BEGUN = re.compile(
    r"\s*(?P<name>[A-ZĆŁŚŹŻ][a-ząćęłńóśźż]+)(?: [A-ZĆŁŚŹŻ][\w-]*)?\s*[.,\n](?=.*(?i:zgadzam|wyra[żz]am|zgod[ęe]))"
)
"""`Jan Kot. Zgadzam się`, but not `Jan Kot, zgadza się`, which confirms the name."""
_PHONE = re.compile(r"(?:\+48[ -]?)?(?<!\d)\d{3}([ -]?)\d{3}\1\d{3}(?![\s.-]*\d)")
_SPOKEN = {"pl": ("pl", "en", "uk", "de"), "en": ("en", "pl", "uk"), "de": ("de", "en", "uk"), "uk": ("uk", "pl", "en")}  # fmt: skip
"""In which a yes may be said, by the language of the question."""
_NO_OBSTACLE = re.compile("n[nhb]*x")
"""`Nie mam nic przeciwko`."""
_YES = {name: Kinds(table["both"], table["yes"]) for name, table in TABLES.items()}
_TRAILS_OFF = re.compile("hm+|y+|e+|no+")
"""A last word that wavers: `ok hm`, `yes no`."""
_CALLS = r"(?:telefon\w*|dzwonieni\w+|rozmow\w*|sms(?:-?\w+)?|kontakt\w* telefoniczn\w+|(?:phone )?calls?)"
_NO_CALLS = re.compile(
    rf"(?:^|[\s,;.]+)(?:(?:ale|a|lecz|tylko|i|oraz|but|and)\s+)*(?:(?:na |przez )?{_CALLS}(?: to| ju[żz])? nie(?: (?:wyra[żz]am(?: zgody)?|chc[ęe]|zgadzam si[ęe]))?"
    rf"|(?:prosz[ęe] )?nie (?:dzwo[nń]\w*|telefonowa[ćc]|(?:na |przez ){_CALLS}|telefonicznie)|(?:bez|no) {_CALLS})(?:[.!]*$|(?=[,;.]))", re.IGNORECASE,
)  # fmt: skip
"""`Maile tak, telefony nie`: the question is about mails only."""
_IS_YES = re.compile("(?=.*(?:[yo]|a.*[sgm]|[sgm].*a|w[^s]*[gm]|[gm][^s]*w))[yoawsgmb]+")
"""Something agrees, or is allowed, or wanted; and nothing else is said."""


def _words(text: str) -> list[str]:
    return _PAUSES.sub(" ", fold(text)).split()


def says_yes(message: str, language: str) -> bool:
    if _NOT_WHOLE.search(message) or len(message) > LONGEST_YES:
        return False
    if (beside := _NO_CALLS.sub("", message)) != message:
        return has_any(fold(beside), _MAY_BE_ADS) and says_yes(beside, language)
    signed = _SIGNED.search(message)
    if signed and fold(signed["name"]) in FIRST_NAMES:
        message = message[: signed.start("name")]
    begun = _BEGUN.match(message)
    if begun and fold(begun["name"]) in FIRST_NAMES:
        message = message[begun.end() :]
    words = _words(_PHONE.sub(MARK, _HAPPY.sub(" ", message)))
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


_OF_ADS = re.compile(
    r"\b(?:mail|mejl)(?:e|i|ow|ami|ing)|zg[oa]d.*(?:mail|mejl)|na zgode|newsl|reklam|promo|promk|marketing|ofert|handlow|przypomn|rabat|znizk|inspirac|nowosci|send|offers|news|ads|\bt[ae] zgod|\bwyraza\w+ zgode|consent"
)
_IN_FULL = re.compile(r"newsl|reklam|marketing|handlow|consent|agree to .*mail|\bzgode (?:wyrazam|daje|udzielam)\b|\b(?:wyrazam|daje|udzielam|wyrazamy|ta|te)\b.*\bzgod|\bzgod\w+ na (?:\w+ )?(?:e-)?maile\b|\bzgadza\w+ sie na\b.*(?:mail|mejl|ofert)|\b(?:wysyl|przysyl|przesyl|slac|slij|dostawa|otrzymyw)\w*.*\b(?:maile|mejle|ofert[ay]?)\b")  # fmt: skip
"""Can be about nothing but the consent, unlike `zgadza się` or `tak, mailem`."""
_MAY_BE_ADS = ("zgod", "zgadza", "consent", "mail", "mejl", "newsl", "reklam", "prom", "market", "ofert", "handl", "rabat", "inspir", "offer")  # fmt: skip
_PART = re.compile(r"(?<=[.!?;\n,])\s+|\s[-–—]\s")


def offers(text: str, language: str) -> bool:
    """Say whether a part of it agrees to mails of its own accord: `tak, możecie wysyłać mi oferty`.

    :param text: the message without its facts
    """
    if not has_any(text.lower(), _MAY_BE_ADS):
        return False
    parts = (part.strip(" ,:;.") for part in (text, *_PART.split(text)))
    return any(_OF_ADS.search(fold(part)) and says_yes(part, language) for part in parts)


def consents_in_full(message: str) -> bool:
    return bool(_IN_FULL.search(fold(message))) and says_yes(message, "pl")


_POSTPONES = re.compile(
    r"\b(?:pozniej|dopiero|wczesniej nie|zobacz(?:ymy|e)|zastanow\w*|pomysl\w*|kiedys|innym razem|nie teraz|na razie nie|jeszcze nie"
    r"|later|not yet|not now|another time|let me think)\b"
)


def postpones(message: str) -> bool:
    """Say whether the question is left for another time: `może później`. It is asked no more."""
    return bool(_POSTPONES.search(fold(message)))


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
_NOT_NEEDED = (
    r"(?:jak|jesli|jezeli|skoro) nie (?:musz|trzeba|jest (?:to )?(?:koniecz|wymag))\w*,? to nie"
)
_LAST_WORD = re.compile(
    r"\w{4}[.!]+ nie[.!]*$|^(?!.*zgadzam).*\btylko (?:\w+ )?wycen.*\bnic wiecej[.! ]*$"
    r"|^(?:nie,? )?(?:tylko|wylacznie|jedynie|sama) (?:sama )?wycen[ae](?: prosze)?[.! ]*$"
    rf"|^{_NOT_NEEDED}[.! ]*$"
)
_NO_ADS = re.compile(
    r"\bzadn\w+ (?:newsl\w+|reklam(?!ac)\w*|spam\w*|mailing\w*|marketing\w*)|"
    r"\bbez (?:zadn\w+ |jakich\w+ )?(?:newsl\w+|reklam(?!ac)\w*|spam\w*|ofert\b(?! \w+ej\b)|mailing\w*|marketing\w*|promocj\w*"
    r"|(?:maili|wiadomosci|informacji|tresci|materialow) (?:reklam|marketing|handl|promoc)\w*)"
    r"|\b(?:keine|ohne|без|ніякої|не надсилайте|без всякой) (?:werbung|werbe\w*|newsletter|spam|реклам\w*|спаму)"
    r"|\b(?:without|no) (?:any )?(?:newsletters?|advertising|ads|marketing|spam|promotions)\b"
)
_ONLY = r"\b(?:tylko|wylacznie|jedynie)(?: prosze)?"
_REPLY_ONLY = re.compile(rf"{_ONLY}(?: (?:sama|do|po|na|o|w sprawie)){{0,2}} wycen\w*(?: prosze)?[.!]*$")  # fmt: skip
_ABOUT_IT = r" (?:w sprawie|do|w celu|odnosnie) (?:kontaktu )?(?:w sprawie )?(?:(?:tej|samej|mojej|mojego|naszej|naszego|tego) )?(?:wycen\w*|oferty|remontu|zapytania|zlecenia|mieszkania|umowy|kontaktu)(?=\W*$| (?:prosze|i nic)|[,.;!] )"
_CONTACT_ONLY = re.compile(
    rf"\b(?:kontakt(?:u|owac)?|numer|nr|tel|telefon|e?-?maile?|adres|dzwonic|dzwoncie|pisac|piszcie)\b[^.!?;]{{0,30}}?{_ONLY}{_ABOUT_IT}"
    rf"|{_ONLY} w sprawie (?:\w+ )?\w+,? (?:i )?nic (?:wiecej|innego)\b"
    r"|\b(?:only|just)(?: contact| call| e?-?mail| write)?(?: me| us)?(?: about| for| with)? (?:the|my|this) (?:quote|estimate|request)\b"
)
_MAY_BE_REPLY_ONLY = vocabulary(
    "bez zadn wyce tylk wyla jedy kein ohne без ніяк не with no only just"
)
_AGREES = re.compile(r"\b(?:tak|zgod\w*|zgadza\w*|chetnie|ok\w*|yes|agree)\b|\?")
_THUMB_DOWN = re.compile("\\s*[👎🚫❌][👎🚫❌\N{VARIATION SELECTOR-16}\U0001f3fb-\U0001f3ff\\s]*")


_IF_IT_CAN = re.compile(
    r"\b(?:if|provided|jesli|jezeli|o ile|skoro|byle|pod warunkiem|wenn|sofern)\b[^.!?]*\b(?:can|could|may|moge|mozna|moglbym|moglabym|bede mogl|bede mogla|bylo mozna|kann|darf)\b[^.!?]*"
)
"""`If I can unsubscribe` puts a condition on a yes, and withdraws nothing."""


def says_withdrawal(message: str, language: str) -> bool:
    if _SIGNALS.isdisjoint(beginnings(message)):
        return False
    folded = _IF_IT_CAN.sub("", fold(message))
    kinds = _NO[language]
    if _IS_FINAL.fullmatch(kinds.of(_words(folded))):
        return True
    for sentence in _SENTENCE.split(folded):
        for clause in _CLAUSE.split(sentence):
            said = kinds.of(_words(clause)).replace("v", "l")
            asks = "?" in sentence and said.lstrip("l").startswith("q")
            if not asks and _WITHDRAWS.search(_DENIED.sub(".", said)):
                return True
    return False


def wants_reply_only(text: str, *, gives_email: bool) -> bool:
    """Say whether the person wants an answer, and no other mails.

    Beside a yes it is none: `tak, ale bez reklam` is asked about.

    :param text: the message without its address
    :param gives_email: it has one, so that `tylko wycena` says what that is for
    """
    if _MAY_BE_REPLY_ONLY.isdisjoint(beginnings(text)):
        return False
    said = " ".join(fold(text).replace(MARK.lower(), " ").split()).strip(" ,;-")
    if _AGREES.search(said):
        return False
    is_of_address = gives_email and (_NO_ADS.search(said) or _REPLY_ONLY.search(said))
    return bool(is_of_address or _CONTACT_ONLY.search(said))


def takes_back(message: str, language: str = "pl") -> bool:
    """Say whether a message takes a yes back, after which nothing else was asked."""
    said = _NO[language].of(_words(message))
    return "?" not in message and bool(_TAKES_BACK.fullmatch(_DENIED.sub(".", said)))


def says_no(message: str, language: str) -> bool:
    """Say whether an answer to the question refuses."""
    before, asks, tail = message.rpartition("?")
    if asks and not fold(before).lstrip().startswith(("nie,", "nein,", "ні,")):
        return 0 < len(tail.split()) <= 2 and says_no(tail, language)  # `spam? nie, dziękuję`
    said, folded = _NO[language].of(_words(_HAPPY.sub(" ", message))), fold(message)
    is_limited = _NO_ADS.search(folded) or _CONTACT_ONLY.search(folded)
    is_refusal = (
        _REFUSES.fullmatch(said)
        or _LAST_WORD.search(folded)
        or _THUMB_DOWN.fullmatch(message)
        or (is_limited and not _AGREES.search(folded))
    )
    return bool(is_refusal) or takes_back(message, language)


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


_NAMES_IT = re.compile(r"\b(?:zgod[yea]?\b|reklam(?!ac)|marketing|newsl|spam|promo[ck]|mailing|ofert(?:ami|om)?\b|handlow|przypomn|consent|advert|ads\b)")  # fmt: skip
_MAY_NAME_IT = ("zgod", "reklam", "marketing", "newsl", "spam", "promo", "mailing", "ofert", "handlow", "przypomn", "consent", "advert", "ads")  # fmt: skip
_UNWANTED = re.compile("[lpwgsod]*[mcy][lpmcwg]*n[lpwgsomc]*|[lpwmc]*n[lp]*w[lpgscmb]*|[lpmcygs]*[dhb][lpmcgsnwdbx]*")  # fmt: skip
"""Of a clause of listed words only: `reklam mi nie trzeba`, but not `nie wyrażam zgody na dopłatę`."""
_DECLINES = re.compile("[lpv]*(?:d|n[lp]*[wd]?)[lp]*")
_TO_NO = re.compile(rf"\b(?:to|no|raczej) nie$|^{_NOT_NEEDED}$")
_TAKES_SOME = re.compile(r"(?<!wyceny )(?<!\bi )\b(?:tak|moga byc|yes)\b|\b(?:zgoda|ok|dobra)(?:[,.]|,? (?:ale|tylko|lecz|but)) ")  # fmt: skip
"""`Oferty tak, reklamy nie` is asked about."""
_A_BODY = re.compile(
    r"\b(?:wspolnota|spoldzielnia|firma|spolka|fundacja|szkola|parafia|zarzad|zona|maz)(?: mieszkaniowa)? nie (?:udziela|wyraza|daje|chce|zgadza sie|zyczy sobie)\b"
)
_ADS = re.compile(r"\b(?:marketing|reklam(?!ac)|handlow|newsl|mailing)")
"""`Zgody marketingowej wspólnota nie udziela`, but not `spółdzielnia nie daje zgody na klimatyzację`."""
_NOTHING = re.compile(
    r"(?:^|[,.;!] )nie (?:zgadzam|zgadzamy|godze|godzimy) sie na (?:kompletnie |absolutnie )?nic(?: wiecej| takiego)?\s*(?:$|[,.;!]|(?:poza|oprocz) (?:wycen|kontakt|telefon|rozmow))"
    r"|\b(?:nie (?:wiem,? (?:co|po co|o co|do czego|na co)\b|rozumiem|znam)|co to)[^?]*\b(?:zgod\w*(?! na (?!mail|mejl|market|reklam|ofert))|reklam(?!ac)\w*|marketing\w*|newsl\w*)[^?]*\b(?:lepiej|raczej|wole|wolal\w+|to|wiec) nie[.! ]*$"
)
_PARTS = re.compile(r"[.!;\n]+|,(?!\s*(?:ze|aby|by)\w*\b)|(?<!\S)\S*[\d@]\S*|(?:^|\s)(?:a|i|ale|bo|tylko(?! nie)|and|but)\s")  # fmt: skip
_PIECE = re.compile(r"(?:[^:?–—-]|(?<!\s)[–—-])+\??")


def _refuses_unasked(folded: str, language: str) -> bool:
    """Say whether a clause names mails or the consent, and wants none: `marketing: nie trzeba`."""
    may_be = has_any(folded, _MAY_NAME_IT)
    if (may_be or "na nic" in folded) and _NOTHING.search(folded) and not _TO_WORKS.search(folded):
        return True
    if may_be and _ADS.search(folded):
        folded = _A_BODY.sub("nie zgadzam sie", folded)
    if not may_be or not _NAMES_IT.search(folded) or _TAKES_SOME.search(folded):
        return False
    kinds = _NO[language]
    question, asks, tail = folded.rpartition("?")
    if asks and _NAMES_IT.search(question) and not _TO_WORKS.search(question):
        last = re.split(r"[.!;\n]\s", tail.strip(" .!"))[-1]
        if _DECLINES.fullmatch(kinds.of(_words(last))) or _TO_NO.search(last):
            return True
    for part in (*_PARTS.split(folded), folded):
        for each in {part, *_PIECE.findall(part)}:
            is_named = not each.endswith("?") and _NAMES_IT.search(each)
            if is_named and _UNWANTED.fullmatch(kinds.of(_words(each))):
                return True
    return False


_TO_WORKS = re.compile(r"\b(?:wspoln|sasiad|sasied|spoldz|administr|konserw|wlascic|urzed|budow)")
_OF_IT = re.compile(
    r"\b(?:zg[oa]d|consent|agree|mail|mejl|spam|reklam|pis[az]|wys[yl]|przys[yl]|dosta|otrzym|newsl|market|promo|ofert|przypomn|informac|wycof|wypis|odwol|cofn|rozmysl|rezygn|czest|send|offers?\b|unsubscribe|withdraw|reminder|einwillig|werbung|schick)"
)
_BARE_QUESTION = re.compile(
    r"(?:(?:a|no|ale|i|czy|but|und|hm+|nie wiem)[ ,]+)*(?:po co|czemu|dlaczego|musz\w*|trzeba|koniecznie|na co|co to|czyli|jak to|jak rozumiec|do czego|co (?:mi |nam )?(?:to|z tego)(?: mi| nam)? (?:da|daje|mam|bede)|why|what|must|do i|warum|wozu|muss\w*)\b"
)


def _is_about_it(folded: str) -> bool:
    """Return whether a question is about the consent: `a muszę?`, but not `robicie w soboty?`"""
    return bool(_OF_IT.search(folded) or _BARE_QUESTION.match(folded))


def answer(
    message: str, language: str, asked: Question | None, *, agreed: bool = False
) -> Answer | None:
    """Return what a whole message means for consent.

    :param language: of the conversation, in which the question was asked
    :param agreed: consent was given here, and nothing has been asked since
    """
    if (
        _refuses_unasked(fold(message), language)
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
        is_question = (asks or said.startswith(("q", "iq"))) and _is_about_it(fold(message))
        return "question" if is_question else None
    is_about_consent = asks and {"c", "u"} & set(_NO[language].of(_words(message)))
    return "question" if is_about_consent else None
