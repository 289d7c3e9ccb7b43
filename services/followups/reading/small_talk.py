"""What a message says besides facts: courtesy, questions, and refusals to answer."""

import re
from functools import cache

from services.followups.reading.phrases import fold
from services.followups.reading.tokens import words_of

_COURTESY = words_of("small_talk", "courtesy")


_DECLINES = re.compile(
    r"\bnie (?:chce|chcial\w+|bede|wiem|znam|poda(?:m|je)|powiem|mowi\w*|zdradz\w+|ujawni\w+"
    r"|ustal\w+|okresl\w+|pamietam|mierzy\w+|liczyl\w+|mam (?:pojecia|zdania|budzetu)|jestem w stanie)\b"
    r"|\bwol\w* (?:nie|najpierw)\b|trudno powiedziec|\bto zalezy\b|\bzalezy (?:od|ile|jak|co|czy)\b|bez znaczenia|obojetn[ey]"
    r"|najpierw (?:\w+ )?(?:wycen|ofert)\w*|tajemnic\w*"
    r"|\b(?:rather|prefer) not\b|don t know|no idea|not sure"
)

_ASKS = re.compile(
    r"(?:(?:a|i|no|to|ok|aha|dobrze|dobra|jasne|tylko|jeszcze|tez|czyli|w takim razie|dzien dobry|witam|hej|halo|prosze) )*"
    r"(?:(?:umiesz|umie|mozesz|moze|mozecie|moglbys|moglabys|moglibyscie|mozna|chcial\w+|chce"
    r"|pan|pani|panstwo|mi|nam|sie|tez|(?:po)?wiedziec|dowiedziec|zapytac|spytac|pytam|pytanie"
    r"|powiedz\w*|napis\w+|odpowiedz\w*) )*"
    r"(?:(?:(?:w|na|do|od|za|o|po|z|u|dla|przez|pod) )?(?:czy|jaki(?!es)\w*|jaka|ile(?! razy| mozna)|gdzie|kto|czemu|dlaczego|kiedy|ktor(?:ej|ym|ych|y|a|e) (?:godz\w+|dni\w*|\w+cie)|ktorej)"
    r"|po co|co (?:z|jesli|jezeli|robi\w*|trzeba)|da(?:loby)? (?:sie|rade)|jak (?:dlugo|szybko|to|wyglada\w*|pracuj\w*|daleko|sie(?! (?:da|\w+(?:[ea]m|(?<!ci)e))\b)|u)"
    r"|(?!macie (?:mi|nam)|moze|przec|swiec|wiecie co)\w+(?:[aieu]c|dziec)ie|jestescie"
    r"|what|how|when|where|who|why|which|(?:can|could|do|will|are) you|is (?:it|there))\b"
    r"|(?:(?:і|и|а|та|але|ще|тоді|скажіть|підкажіть|скажите) )*(?:(?:за|на|до|в|у|від) )?(?:скільки|коли|де|хто|якии|яка|яке|які|як|чи|чому|куди|можна|сколько|когда|где|кто|какои|какая|какие|как|почему|можно|(?:ви |вы )?\w+(?:єте|[^\Wаеиоуюяі]ите|ете))\b"
)
"""Questions without a question mark: `Jaki macie czas realizacji`."""
_ASKS_IN_GERMAN = re.compile(
    r"(?:(?:und|auch|noch|oder|aber|ok|gut|sagen sie|hallo|guten tag|eine frage) )*"
    r"(?:(?:bis|ab|von|fur|mit|zu|in) )?(?:wie|wann|wo|wer|was|warum|welche\w*|wieviel|ob|kann (?:man|ich)|kommt|haben sie|gibt es|ist (?:es|das)|sind sie"
    r"|(?!rufen|schreiben|schicken|melden|kommen|geben|nehmen|senden|losch|streichen)\w+en sie)\b"
)
"""`Machen Sie auch die Planung`"""
_ASKS_LATER = re.compile(
    r"\b(?:powiedz\w*|napisz\w*|ciekaw\w+|pytanie|jesli tak|i|oraz|a)(?: \w+)?"
    r" (?:czy \w+cie|ile (?:trwa|kosztuje|placicie))\b"
    r"|(?<!nie wiem )\b(?:czy|ile|gdzie|kiedy|jak (?:dlugo|szybko)|(?:w|na|o|do|od) (?:jaki\w+|ktorej)) (?:\w+ ){0,2}?(?!swiec)\w+(?:[aieu]c|dziec|tes?c)ie\b"
    r"|^a (?:\w+ ){1,7}czy\b|^a (?:musz[ey]\w*|moge|mozna|trzeba|dacie|dajecie|bede musial\w*)\b"
    r"|\b(?:питання|чи (?:ви|вы|у вас)|ви \w+ чи)\b"
)
"""The same further on: `zanim zadzwonię, powiedz czy robicie sufity`."""
_ECHO = re.compile(
    r"^(?:(?:a|no|hm+|ale|czyli) )*(?:ile|kiedy|gdzie|jaki|metra[żz]|powierzchnia|bud[żz]et|termin|start|adres|miasto|telefon|numer|e?-?mail|imi[ęe]|kontakt|when|where|how (?:much|big))"
    r"(?: (?:mam|mamy|to|dok[łl]adnie|konkretnie|mniej wi[ęe]cej|metr[óo]w|metra[żz]|bud[żz]et|termin))?\s*\?++(?=.*\w)",
    re.IGNORECASE,
)
_RECORDED = re.compile("moj|zapisa|notowa|poprawi|zmieni|do you have|did you")
"""A part of each of its patterns: most messages cost no more than this look."""
_VERB_FIRST = re.compile(
    r"(?:(?:a|i|to|no) )*(?!chcec|wiec|mozec|bedzie|rozumie|macie (?:mi|nam|moj)|\w*(?:ku|ru|szy|my|kry|pi|zy|odbi)cie\b)\w+(?:[aieu]c|dziec)ie\b"
)
"""`Odpadł cokół, przyjeżdżacie do takich rzeczy`"""
_CONTINUES = re.compile(r"(?:a|albo|i|lub|oraz|and|or|und|oder|а|і|або)(?: \w+){1,3}")
_OF_THE_RECORD = re.compile(
    r"(?<!skad )\b(?:(?:macie|masz|maja panstwo|znacie|widzicie|dosta(?:liscie|lyscie)|dosz(?:lo|edl|la)|dotarl\w*)(?: juz)? moj\w* (?:(?:nowy|nr|numer|e) )?(?:nr|numer|telefon|mail|adres|wiadomosc|zgloszenie|metraz|budzet|termin)\w*"
    r"|(?:zapisal|zanotowal|odnotowal)[iy]scie|(?:zapisane|zanotowane|odnotowane)\b(?! w umow)|do you have my|did you (?:get|note))\b"
    r"|^(?=.*\b(?:metraz|numer|mail|adres|dane|danych|budzet|zgloszen)).*\b(?:poprawi|zmieni)(?:cie|sz)\b"
)
"""`Macie mój numer?`: about what is noted here."""
_UNSUBSCRIBES = re.compile(
    r"\b(?:stop|wypis\w*|przesta\w*|rezygnuj\w*|wylacz\w*|usun\w*|cofam|wycof\w*|unsubscribe"
    r"|abmelde\w*|nicht mehr)\b"
)
_ABOUT_WORKS = words_of("small_talk", "about_works")
_SUCH = words_of("small_talk", "such")
_OF_WORKS = re.compile(
    r"\b(?:ile (?:czasu|trwa\w*|potrwa|kosztuj\w*|bedzie kosztow\w*)|jak dlugo|gwarancj\w*"
    r"|kiedy (?:mozecie|mozna|moglib\w+|zacz\w+|ruszy\w*|ekipa)|faktur\w*|vat|ekip\w*|materialy?"
    r"|dojazd\w*|how long (?:does|will|would)|guarantee|invoice)\b"
)
_OF_MAILS = re.compile(
    r"\b(?:zgod|zgadza|mail|mejl|wiadomosc|wysyl|przysyl|pisa|pisz|wypis|wycof|cofn|newslet|reklam"
    r"|dane|danych|adres|e mail|consent|opt)"
)
_MAILS = re.compile(r"mail|mejl|newsl|wiadomosc|\b(?:na)?pis|reklam|ofert|\bslac|wysyl")
_OF_A_NUMBER = re.compile(r"\b(?:numer|nr|telefon|mail|adres)\w*(?! \d| \w+ \d)")
_FORBIDS_CALLS = re.compile(r"nie (?:\w+ )?(?:dzwo|telefon)")
_OF_ALL = re.compile(r"\b(?:dan(?:e|ych)|wszystk\w*|rodo|konto|baz\w+|system\w*)\b")
_BY_MAIL = re.compile(r"\b(?:e ?)?(?:mail|mejl)|\bpoczt")
_BY_VOICE = re.compile(
    r"dzwo|telef|\btel\b|numer|rozm|pogada|glos|spotk|pomiar|wizyt|przyje|obejrz|sms|call|ring|phone"
)
_MORE = re.compile(
    r"\bnic (?:\w+ ){0,2}nie (?:dostane|dostaniemy|przyjdzie|bedzie|wyslecie)"
    r"|(?:dostane|dostaniemy|przyjdzie|bedziecie|beda) (?:\w+ ){0,3}"
    r"(?:jeszcze|wiecej|pisac|maile|wiadomosci)"
    r"|jeszcze (?:cos )?(?:dostane|przyjdzie)|(?:nothing|no) more|any more"
)
_READ = words_of("small_talk", "read")
_OF_A_QUESTION = _ABOUT_WORKS | _COURTESY - {"nie"}
_SENTENCE = re.compile(r"[.!;\n]")
_CLAUSE = re.compile(r"[.!;\n,:–—]|\s-|\d")
_YES = {"tak", "zgadza", "owszem", "yes"}
_NAMES_OF = {
    "area": re.compile(r"\b(?:metraz\w*|metr\w*|m2|powierzchni\w*|area)\b"),
    "budget": re.compile(
        r"\b(?:budzet\w*|kwot\w*|budget|jak naj(?:mniej|taniej)|bez limitu|ile (?:bedzie )?trzeba|\d+ (?:\w+ )?(?:za|od|na) (?:jeden |1 )?(?:metr|m2?|mkw)|zl m2?)\b"
    ),
    "start": re.compile(
        r"\b(?:termin\w*|start date|kiedykolwiek|bez pospiechu|nie (?:\w+ )?(?:spieszy|pali)|(?:byle|tylko) nie (?:w|na|przed|latem|zima))\b"
    ),
}


def says(rest: str, least: int = 2) -> bool:
    """Return whether a message has content besides facts and courtesy."""
    return "?" in rest or word_count(rest) >= least


def asks(rest: str, language: str = "pl") -> bool:
    if "?" in rest:
        return True
    begins = _ASKS_IN_GERMAN if language == "de" else _ASKS
    for sentence in _SENTENCE.split(rest):
        said = " ".join(fold(sentence))
        if begins.match(said) or _ASKS_LATER.search(said):
            return True
    return "cie" in rest and any(
        _VERB_FIRST.match(" ".join(fold(each))) for each in rest.split(",")[1:]
    )


def answers_itself(message: str) -> bool:
    """Return whether it only repeats a question before the answer: `kiedy? maj albo czerwiec`."""
    echo = _ECHO.match(message) if "?" in message else None
    return echo is not None and not asks(message[echo.end() :])


def asks_more(message: str, before: str | None) -> bool:
    """Return whether a few words continue a question: `a w soboty`, after `robicie w niedziele?`"""
    is_short = before and _CONTINUES.fullmatch(" ".join(fold(message)))
    return bool(is_short) and asks(str(before))


def asks_of_record(message: str) -> bool:
    """Return whether it asks what is noted here: `macie mój numer?`"""
    said = " ".join(fold(message))
    return "skad" not in said and bool(_RECORDED.search(said) and _OF_THE_RECORD.search(said))


def speaks_of(question: str, message: str) -> bool:
    """Return whether it names what was asked, to say that this is not the point or not known."""
    names = _NAMES_OF.get(question)
    return names is not None and bool(names.search(" ".join(fold(message))))


def asks_of_works(message: str, works: tuple[str, ...]) -> bool:
    """Return whether a question is about works: their time, price or kind."""
    said = " ".join(fold(message))
    if _OF_MAILS.search(said):
        return False
    return bool(_OF_WORKS.search(said)) or names_works(message, works)


def asks_for_more_mails(message: str) -> bool:
    """Return whether who gets no more mails makes sure of it."""
    return "?" in message and bool(_MORE.search(" ".join(fold(message))))


def by_mail(rest: str) -> bool:
    """Return whether an answer is wanted by mail, and not by phone: `proszę o kontakt mailowy`."""
    said = " ".join(fold(rest))
    return bool(_BY_MAIL.search(said)) and not _BY_VOICE.search(said)


def is_of_number(message: str, action: str | None) -> bool:
    """Return whether it is about the number that another replaces: it erases no more than that
    (`mój skasujcie`), and forbids no calls (`tam nie odbieram`).
    """
    said = " ".join(fold(message))
    if action == "erasure":
        return _OF_A_NUMBER.search(said) is not None and _OF_ALL.search(said) is None
    return action == "no_calls" and "nie odbier" in said and not _FORBIDS_CALLS.search(said)


def names_mails(message: str) -> bool:
    return bool(_MAILS.search(" ".join(fold(message))))


def unsubscribes(message: str) -> bool:
    """Return whether it asks to end mails (not SMS) that come, rather than to send none."""
    said = " ".join(fold(message))
    return bool(_UNSUBSCRIBES.search(said)) and ("sms" not in said or bool(_MAILS.search(said)))


def has_words(rest: str) -> bool:
    return bool(fold(rest))


def begins_question(said: str) -> bool:
    """:param said: a clause, folded"""
    return bool(_ASKS.match(said))


def only_works(said: str, works: tuple[str, ...], *, has_wish: bool) -> bool:
    """Return whether a clause names works of ours and nothing else: `robicie mieszkania pod klucz`.

    :param said: the clause, folded
    :param has_wish: the works are known, so that `coś takiego` names them
    """
    words = [word for word in said.split() if word not in _OF_A_QUESTION]
    if has_wish and _SUCH & set(words):
        words = [word for word in words if word not in _SUCH]
        return all(word.startswith(_stems(works)) for word in words)
    return bool(words) and all(word.startswith(_stems(works)) for word in words)


def names_works(message: str, works: tuple[str, ...]) -> bool:
    stems = _stems(works)
    return any(word.startswith(stems) for word in fold(message))


@cache
def _stems(works: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(stem for work in works for stem in fold(work))


_ASSENTS = re.compile(r"\b(?:(?:moze|niech) (?:tak )?(?:byc|bedzie)|w porzadku|pasuje)\b")
"""`Ok, może być`: no news for staff."""


def word_count(rest: str) -> int:
    said = _ASSENTS.sub("", " ".join(fold(rest)))
    return sum(word not in _COURTESY for word in said.split())


def acknowledges(message: str) -> bool:
    """Return whether it only says that it was read, and answers no question: `ok, rozumiem`."""
    words = set(_ASSENTS.sub("ok", " ".join(fold(message))).split()) - {"no", "hm", "hmm"}
    return bool(words) and _READ.issuperset(words)


def confirms(message: str) -> bool | None:
    """Return whether it says yes; None: it only begins so (`tak myślałem`, `tak, ale …`)."""
    words, begun = fold(message), fold(_CLAUSE.split(message.lstrip(" .,"), maxsplit=1)[0])
    if not _YES.intersection(words[:1]):
        return False
    turns = any(word in {"ale", "but"} or word.startswith(("now", "new")) for word in words)
    return None if turns or not (_COURTESY | _YES).issuperset(begun) else True


def declines(message: str) -> bool:
    """Return whether a person does not want to answer a question, or cannot."""
    return bool(_DECLINES.search(" ".join(fold(message))))
