"""What a message says besides facts: courtesy, questions, and refusals to answer.

vocabulary/small_talk.toml has the words.
"""

import re
from collections.abc import Sequence
from functools import cache

from services.followups.reading.phrases import fold
from services.followups.reading.speech import heard
from services.followups.reading.speech import says as _says
from services.followups.reading.tokens import Said, words_of

_COURTESY, _ABOUT_WORKS, _SUCH, _READ, _JOINS = (
    words_of("small_talk", kind) for kind in ("courtesy", "about_works", "such", "read", "joins")
)
_OF_A_QUESTION = _ABOUT_WORKS | _COURTESY - {"nie"}
_SENTENCE = re.compile(r"[.!;\n]")
_CLAUSE = re.compile(r"[.!;\n,:–—]|\s-|\d")
_YES = {"tak", "zgadza", "owszem", "yes"}


def says(rest: str, least: int = 2) -> bool:
    """Return whether a message has content besides facts and courtesy."""
    return "?" in rest or word_count(rest) >= least


def asks(rest: str, language: str = "pl") -> bool:
    if "?" in rest:
        return True
    for sentence in _SENTENCE.split(rest):
        said = heard(sentence, "small_talk")
        if _begins(said, language) or said.begins("asks first", 0) or said.is_said("asks later"):
            return True
    return "cie" in rest and any(map(begins_question, rest.split(",")[1:]))


def _begins(said: Said, language: str) -> bool:
    """Return whether a question begins it: `dzień dobry, do kiedy …`"""
    for at in range(len(said.tokens)):
        if any(said.begins(name, at) for name in ("question yes", "question you")) or (
            language == "de" and said.begins("question de", at)
        ):
            return True
        if not said.is_kind(at, "{lead}"):
            return False
    return False


def begins_question(clause: str) -> bool:
    return _begins(heard(clause, "small_talk"), "pl")


def answers_itself(message: str) -> bool:
    """Return whether it only repeats a question before the answer: `kiedy? maj albo czerwiec`."""
    before, _, answer = message.partition("?")
    echo = heard(before, "small_talk")
    is_echo = echo.tokens and all(echo.is_kind(at, "{echo}") for at in range(len(echo.tokens)))
    return bool(is_echo and fold(answer)) and not asks(answer)


def asks_more(message: str, before: str | None) -> bool:
    """Return whether a few words continue a question: `a w soboty`, after `robicie w niedziele?`"""
    said = fold(message)
    return 1 < len(said) < 5 and said[0] in _JOINS and before is not None and asks(before)


def asks_of_record(message: str) -> bool:
    """Return whether it asks what is noted here: `macie mój numer?`"""
    is_change = _says(message, "asks changes") and _says(message, "asks changed")
    return (is_change or _says(message, "asks record")) and "skad" not in fold(message)


def speaks_of(question: str, message: str) -> bool:
    """Return whether it names what was asked, to say that this is not the point or not known."""
    return _says(message, f"names {question}")


def asks_of_works(message: str, works: tuple[str, ...]) -> bool:
    """Return whether a question is about works: their time, price or kind."""
    is_of_works = _says(message, "asks works") or names_works(message, works)
    return is_of_works and not _says(message, "mails about")


def asks_for_more_mails(message: str) -> bool:
    """Return whether who gets no more mails makes sure of it."""
    return "?" in message and _says(message, "asks more_mails")


def by_mail(rest: str) -> bool:
    """Return whether an answer is wanted by mail, and not by phone: `proszę o kontakt mailowy`."""
    return _says(rest, "by mail") and not _says(rest, "by voice")


def is_of_number(message: str, action: str | None) -> bool:
    """Return whether it is about the number that another replaces: it erases no more than that
    (`mój skasujcie`), and forbids no calls (`tam nie odbieram`).
    """
    if action == "erasure":
        return _says(message, "replaced number") and not _says(message, "replaced all")
    is_only_unanswered = _says(message, "replaced unanswered")
    return action == "no_calls" and is_only_unanswered and not _says(message, "replaced no_calls")


def names_mails(message: str) -> bool:
    return _says(message, "mails of")


def unsubscribes(message: str) -> bool:
    """Return whether it asks to end mails (not SMS) that come, rather than to send none."""
    is_of_mails = not _says(message, "mails sms") or names_mails(message)
    return is_of_mails and _says(message, "mails end")


def has_words(rest: str) -> bool:
    return bool(fold(rest))


def only_works(said: str, works: tuple[str, ...], *, has_wish: bool) -> bool:
    """Return whether a clause names works of ours and nothing else: `robicie mieszkania pod klucz`.

    :param said: the clause, folded
    :param has_wish: the works are known, so that `coś takiego` names them
    """
    words = [word for word in said.split() if word not in _OF_A_QUESTION]
    is_known = has_wish and not _SUCH.isdisjoint(words)
    words = [word for word in words if not (is_known and word in _SUCH)]
    return (is_known or bool(words)) and all(word.startswith(_stems(works)) for word in words)


def names_works(message: str, works: tuple[str, ...]) -> bool:
    stems = _stems(works)
    return any(word.startswith(stems) for word in fold(message))


@cache
def _stems(works: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(stem for work in works for stem in fold(work))


def word_count(rest: str) -> int:
    return sum(word not in _COURTESY for word in _without_assents(rest))


def acknowledges(message: str) -> bool:
    """Return whether it only says that it was read, and answers no question: `ok, rozumiem`."""
    left = {*_without_assents(message)} - {"no", "hm", "hmm"}
    return left <= _READ and not {*fold(message)} <= {"no", "hm", "hmm"}


_ASSENTS = frozenset({"moze", "niech", "w", "pasuje"})


def _without_assents(text: str) -> Sequence[str]:
    """Return the words but `ok, może być`."""
    words = fold(text)
    if _ASSENTS.isdisjoint(words):
        return words
    said = heard(text, "small_talk")
    assents = {at for span in said.all("assents yes") for at in range(*span)}
    return [each.word for at, each in enumerate(said.tokens) if at not in assents]


def confirms(message: str) -> bool | None:
    """Return whether it says yes; None: it only begins so (`tak myślałem`, `tak, ale …`)."""
    words, begun = fold(message), fold(_CLAUSE.split(message.lstrip(" .,"), maxsplit=1)[0])
    if not _YES.intersection(words[:1]):
        return False
    turns = any(word in {"ale", "but"} or word.startswith(("now", "new")) for word in words)
    return None if turns or not (_COURTESY | _YES).issuperset(begun) else True


def declines(message: str) -> bool:
    """Return whether a person does not want to answer a question, or cannot."""
    return _says(message, "declines yes")
