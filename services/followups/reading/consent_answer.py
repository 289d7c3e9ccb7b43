"""What a message means for consent: a grant is never inferred, a withdrawal is heard anywhere.

Each word has a kind, written as a letter; consent_words.toml lists them. A yes is a whole message
of listed words, some of which agree: one foreign word ("tak, ale", "za miesiąc") makes it none. A
no is wider, for it may stop a mail but never send one. A withdrawal counts in every turn; what
merely denies something ("nie mamy projektu") counts in none but the one that asked.
"""

import re
from typing import Literal

from services.followups.reading import name
from services.followups.reading.kinds import PATTERNS, TABLES, Kinds, pattern
from services.followups.reading.phrases import plain
from services.followups.reading.speech import heard, says
from services.followups.reading.text import MARK
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
_SIGNED = re.compile(rf"[.,!\n]\s*{MARK}[\s.]*$")
_BEGUN = re.compile(rf"\s*{MARK}\s*[.,\n]")
"""`Jan Kot. Zgadzam się`, but not `Jan Kot, zgadza się`, which confirms the name."""
_PHONE = re.compile(r"(?:\+48[ -]?)?(?<!\d)\d{3}([ -]?)\d{3}\1\d{3}(?![\s.-]*\d)")
_NO_OBSTACLE = re.compile("n*(?:h[nhb]*x|z)|n+x")
"""`Nie mam nic przeciwko`."""
_NAY = re.compile(
    r"(?<!czemu )(?<!czego )(?<!by )(?<!na )\b(?:n[ie][ey]|не)\s*[,.!;:–—-]+(?!\s*n[ie][ey] \w)"
)
"""`Nie, przeszkadza mi to`, but not `nie, nie przeszkadza`."""
_TELLS = re.compile(r"([^?]{2,40}?)(?:[.!]|, (?:a|i|and|do|und|а|і|и|czy)(?=.*\?)) ([^.!?]+)[.!?]?")
_YES = {name: Kinds(table["both"], table["yes"]) for name, table in TABLES.items()}
_TRAILS_OFF = re.compile("hm+|y+|e+|no+")
"""A last word that wavers: `ok hm`, `yes no`."""
_IS_YES = re.compile("(?=.*(?:[yo]|a.*[sgm]|[sgm].*a|w[^s]*[gm]|[gm][^s]*w))[yoawsgmb]+")
"""Something agrees, or is allowed, or wanted; and nothing else is said."""


def _words(text: str) -> list[str]:
    return _PAUSES.sub(" ", plain(text)).split()


def says_yes(message: str, language: str) -> bool:
    if _NOT_WHOLE.search(message) or len(message) > LONGEST_YES:
        return False
    if (beside := _without_calls(message)) != message:
        return says(beside, "ads may_be") and says_yes(beside, language)
    if _NAY.search(plain(message)):
        return False
    if says(message, "agrees in_person"):
        message = _BEGUN.sub("", _SIGNED.sub("", name.find(message)[0]))
    words = _words(_PHONE.sub(MARK, _HAPPY.sub(" ", message)))
    if not words:
        return bool(_THUMB_UP.search(message))
    if (words == ["ja"] and language == "pl") or _TRAILS_OFF.fullmatch(words[-1]):  # `I`
        return False
    # `no` is a filler (`well`) only in a Polish conversation.
    spoken = (each for each in _YES if each in {language, "en"} or "no" not in words)
    kinds = (_NO_OBSTACLE.sub("y", _YES[each].of(words)) for each in spoken)
    return any(map(_IS_YES.fullmatch, kinds))


def _without_calls(message: str) -> str:
    """`Maile tak, telefony nie`: the question is about mails only."""
    said = heard(message)
    calls = (span for span in sorted(said.all("calls no")) if said.stops(span[1]))
    return said.without(*[*calls][:1], mark="")


_PART = re.compile(r"(?<=[.!?;\n,])\s+|\s[-–—]\s")


def offers(text: str, language: str) -> bool:
    """Say whether a part of it agrees to mails of its own accord: `tak, możecie wysyłać mi oferty`.

    :param text: the message without its facts
    """
    if not says(text, "ads of"):
        return False
    parts = (part.strip(" ,:;.") for part in (text, *_PART.split(text)))
    return any(says(part, "ads of") and says_yes(part, language) for part in parts)


# --- no ---------------------------------------------------------------------------------------

_NO = {
    name: Kinds(*(TABLES[each][part] for each in (*TABLES, name) for part in ("both", "no")))
    for name in TABLES
}
"""In every language, whatever the talk was in; a word of two languages is the talk's own."""
_NO["ru"] = _NO["uk"]  # one list has both
_SENTENCE = re.compile(r"(?<=[.!?\n])")
_STOP = re.compile("[^.!?]*")
_CLAUSE = re.compile(
    r"[.!?;:\n]+|,(?!\s*(?:ze|aby|by)\w*\b)|\s[-–—]\s|\s(?:bo|poniewaz|gdyz|because|weil|бо)\s"
)
_DENIED = re.compile("n[lpwc]*[rfhue]|q(?!.*a).*|(?:x[lp]*n[lp]*[os]|n[lp]*[os][lp]*x)(?!.*m)")
"""`Nie wycofuję zgody`, `jak wycofać zgodę`, `SMS-ów nie słać`."""
_WITHDRAWS, _IS_FINAL, _UNWANTED = (
    re.compile("|".join(map(pattern, PATTERNS[each])))
    for each in ("withdraws", "final", "unwanted")
)
_NAMES = {"refuses names", "refuses nothing"}
_PARTS = re.compile(
    r"[.!;\n]+|,(?!\s*(?:ze|aby|by)\w*\b)|(?<!\S)\S*[\d@]\S*"
    r"|(?:^|\s)(?:a|i|ale|bo|tylko(?! nie)|and|but)\s"
)
_SIGNALS = {*"acefghmosu"}
"""Kinds of which each withdrawal has one."""
_TAKES_BACK = re.compile("(?=.*(?:v[lpw]*[nd]|n[lpw]*v|n[lp]*[wd]|[tfr]))[lpnwycdvtfr]+")
"""Nothing but this: `oj, jednak nie, rozmyśliłam się`."""
_REFUSES = re.compile(
    "[lpwvj]*(?:[ndk]|b[lp]*[cm])[^y]*|[^q]*(?:vl*n|pn|t)|[^qy]*m[lp]*n|[lp]*c[lp]*n[lp]*w[^qy]*"
)
_LAST_WORD = re.compile(r"\w{4}[.!]+ nie[.!]*$")
_STATES = re.compile(r"[lpv]*n[lp]*\.[lp.]*\.[lpn.]*")
"""`Nie ma windy w bloku`: foreign words follow without a pause, and no word is about mails."""


def says_withdrawal(message: str, language: str) -> bool:
    said, kinds = heard(message), _NO[language]
    for start, end in said.all("if it_can"):  # `if I can unsubscribe` is a condition on a yes
        before, after = said.text[: said.tokens[start].start], said.text[said.tokens[end - 1].end :]
        message = before + _STOP.sub("", after, count=1)
    folded = plain(message)
    read = kinds.of(_words(folded))
    if _SIGNALS.isdisjoint(read):
        return False
    if _IS_FINAL.search(read):
        return True
    for sentence in _SENTENCE.split(folded):
        for clause in _CLAUSE.split(sentence):
            read = kinds.of(_words(clause)).replace("v", "l")
            asks = "?" in sentence and read.lstrip("l").startswith("q")
            if not asks and _WITHDRAWS.search(_DENIED.sub(".", read)):
                return True
    return False


def _is_unwanted(message: str, language: str) -> bool:
    """Say whether a clause names mails or the consent, and wants none: `marketing: nie trzeba`."""
    said, folded = heard(message), plain(message)
    if says(message, "refuses_for_body") or said.is_said("refuses unknown"):
        return True
    # `Oferty tak, reklamy nie` is asked about.
    if said.names.isdisjoint(_NAMES) or said.is_said("agrees some"):
        return False
    return any(
        heard(part).is_whole("refuses nothing")
        or (says(part, "refuses names") and _UNWANTED.search(_NO[language].of(_words(part))))
        for part in _PARTS.split(folded)
        if not part.endswith("?")
    )


def wants_reply_only(text: str, asked: Question | None, *, gives_email: bool) -> bool:
    """Say whether the person wants an answer, and no other mails.

    Beside a yes it is none: `tak, ale bez reklam` is asked about.

    :param text: the message without its address
    :param gives_email: it has one, so that `tylko wycena` says what that is for
    """
    said = heard(text)
    is_refusal = asked == "consent" and not gives_email
    if is_refusal or said.is_said("agrees yes"):
        return False
    return said.is_said("wants_limits") if gives_email else said.is_said("only contact")


def takes_back(message: str, language: str = "pl") -> bool:
    """Say whether a message takes a yes back, after which nothing else was asked."""
    said = _NO[language].of(_words(message))
    return "?" not in message and bool(_TAKES_BACK.fullmatch(_DENIED.sub(".", said)))


def says_no(message: str, language: str) -> bool:
    """Say whether an answer to the question refuses."""
    before, asks, tail = message.rpartition("?")
    told = (each for each in _AND.split(message) if _NO[language].of(_words(each)).strip("l"))
    first = next(told, message)  # `przepraszam, jednak nie maj`
    begins = _NO[language].of(["not" if word == "no" else word for word in _words(first)])
    if asks and (first == before or not _REFUSES.fullmatch(begins)):
        return 0 < len(tail.split()) <= 2 and says_no(tail, language)  # `spam? nie, dziękuję`
    is_other = _STATES.fullmatch(begins) and not says(first, "refuses it")
    if is_other or heard(first).begins("refuses figure", 0):  # `nie 45, 54 tysiące`
        return False
    said, read = heard(message), _NO[language].of(_words(_HAPPY.sub(" ", message)))
    is_refusal = (
        _REFUSES.fullmatch(read)
        or (_NAY.match(plain(message)) and "y" not in read)
        or _LAST_WORD.search(plain(message))
        or said.is_said("refuses last")
        or _THUMB_DOWN.fullmatch(message)
        or (said.is_said("wants_limits") and not said.is_said("agrees yes"))
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


def _agreed(message: str) -> str:
    """Return the plain yes before a question of works, or a sentence that only measures them."""
    said = _TELLS.fullmatch(message.strip())
    of = "asks_of_works" if "?" in message else "measures"
    is_plain = said and says(said[1], "agrees plain") and says(said[2], of)
    return said[1] if said and is_plain else message


def _is_about_it(message: str) -> bool:
    """Return whether a question is about the consent: `a muszę?`, but not `robicie w soboty?`"""
    said = heard(message)
    begun = (at for at in range(len(said.tokens)) if not said.is_kind(at, "{before_question}"))
    return said.is_said("asks of_it") or said.begins("asks bare", next(begun, 0))


def answer(
    message: str, language: str, asked: Question | None, *, agreed: bool = False
) -> Answer | None:
    """Return what a whole message means for consent.

    :param language: of the conversation, in which the question was asked
    :param agreed: consent was given here, and nothing has been asked since
    """
    if (
        _is_unwanted(message, language)
        or says_withdrawal(message, language)
        or (agreed and takes_back(message, language))
    ):
        return "no"
    asks = message.rstrip().endswith("?")
    if asked == "consent":
        if says_yes(_agreed(message), language):
            return "yes"
        if says_no(message, language):
            return "no"
        read = _NO[language].of(_words(message)).lstrip("l")
        is_question = ("?" in message or read.startswith(("q", "iq"))) and _is_about_it(message)
        return "question" if is_question or says(message, "agrees to_contact") else None
    is_about_consent = asks and {"c", "u"} & set(_NO[language].of(_words(message)))
    return "question" if is_about_consent else None


# --- Who cannot consent: a child, or who names another person's mailbox (vocabulary/mailbox.toml) --

Barred = Literal["child", "another"]
"""Why consent is not asked for: the writer is a child, or the mailbox is another person's."""


def barred(message: str) -> Barred | None:
    said = heard(message.replace("Wnuk", "•"))  # a family's name
    is_child = any(said.stops(end, "?", ":") for _, end in said.all("child last"))
    if is_child or said.is_said("child yes"):
        return "child"
    return "another" if says(said.text, "another") else None
