"""What a message says besides facts: courtesy, questions, wishes, and refusals to answer.

vocabulary/small_talk.toml has the words, and wish.toml those of a wish.
"""

import re
from functools import cache

from services.followups.reading import speech
from services.followups.reading.phrases import fold, plain
from services.followups.reading.speech import heard
from services.followups.reading.tokens import Said, words_of
from services.followups.rules.facts import Question

_COURTESY, _ABOUT_WORKS, _PLACES, _SUCH, _READ = (
    words_of("small_talk", kind) for kind in ("courtesy", "about_works", "places", "such", "read")
)
_OF_A_QUESTION = _ABOUT_WORKS | _COURTESY - {"nie"}
_SENTENCE = re.compile(r"[.!;\n]")
_CLAUSE = re.compile(r"[.!;\n,:–—]|\s-|\d")
questions = re.compile(r"[^.!?;:\n]+\?").findall
_PLAIN = re.compile(r"[\w .,;:!?%/’'()–-]{8,120}")
_CONTACT = re.compile(r"(\d[ -]?){6}|\w\.\w{2}|[^\W\d]/\w{2}")
_CONTACTS = re.compile(r"(?:\b(?:numer|nr|tel)\W*)?\+?\d(?:[\s()-]{0,3}\d){6,}|\S+@\S+")
_PART = re.compile(r"[.;!?](?!\d)|\n")
_WORTH_QUOTING = 3
_YES = {"tak", "zgadza", "owszem", "yes"}


def says(rest: str, least: int = 2) -> bool:
    """Return whether a message has content besides facts and courtesy."""
    return word_count(rest) >= (1 if "?" in rest else least)


def asks(rest: str, language: str = "pl") -> bool:
    if "?" in rest:
        return True
    for sentence in _SENTENCE.split(rest):
        said = heard(sentence)
        if _begins(said, language) or said.begins("asks first", 0) or said.is_said("asks later"):
            return True
    return "cie" in rest and any(_begins(heard(clause), language) for clause in rest.split(",")[1:])


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


def only_works(said: str, works: tuple[str, ...], *, has_wish: bool) -> bool:
    """Return whether a clause names works or places of ours, and nothing else.

    :param said: the clause, folded
    :param has_wish: the works are known, so that `coś takiego` names them
    """
    words = [word for word in said.split() if word not in _OF_A_QUESTION]
    is_known = has_wish and not _SUCH.isdisjoint(words)
    words = [word for word in words if not (is_known and word in _SUCH)]
    stems = _stems(works)[0]
    is_ours = all(word in _PLACES or word.startswith(stems) for word in words)
    return is_ours and (is_known or bool(words))


def quoted(message: str, *, asks: bool) -> str | None:
    """Return the last question, or else the message, without its courtesy.

    None: it is long, rude, says little, or has more than words.
    """
    asked = questions(message) if asks else []
    text = asked[-1].strip(" ,-") if asked else message.strip(" .,:-")
    first, _, rest = text.partition(", ")
    text = rest if rest and not word_count(first) else text
    is_other = _CONTACT.search(text) or speech.says(text, "rude yes")
    is_plain = _PLAIN.fullmatch(text) and not is_other
    return text if is_plain and word_count(text) >= _WORTH_QUOTING else None


def when(message: str) -> str:
    """Return the part that says at which hours to call, without the number."""
    parts = _PART.split(_CONTACTS.sub(";", message))
    when = next((each.strip(" ,:-") for each in parts if speech.says(each, "hours yes")), "")
    return when.removeprefix("ale ").removeprefix("but ")


def word_count(rest: str) -> int:
    return sum(word not in _COURTESY for word in fold(rest))


def acknowledges(message: str) -> bool:
    """Return whether it only says that it was read, and answers no question: `ok, rozumiem`."""
    left = {*fold(message)} - {"no", "hm", "hmm"}
    return left <= _READ and not {*fold(message)} <= {"no", "hm", "hmm"}


def confirms(message: str) -> bool | None:
    """Return whether it says yes; None: it only begins so (`tak myślałem`, `tak, ale …`)."""
    words, begun = fold(message), fold(_CLAUSE.split(message.lstrip(" .,"), maxsplit=1)[0])
    if not _YES.intersection(words[:1]):
        return False
    turns = any(word in {"ale", "but"} or word.startswith(("now", "new")) for word in words)
    return None if turns or not (_COURTESY | _YES).issuperset(begun) else True


# --- What the person wants done, in their own words -------------------------------------------

_LETTERS = re.compile(r"[^\W\d_]{3,}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZĄĆĘŁŃÓŚŹŻ])")


@cache
def _stems(works: tuple[str, ...]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return how words of works begin, and their first three letters, which are looked for first."""
    stems = tuple(map(plain, works))
    return stems, frozenset([stem[:3] for stem in stems])


def names_works(message: str, works: tuple[str, ...]) -> bool:
    stems, first = _stems(works)
    return any(word.startswith(stems) for word in fold(message) if word[:3] in first)


def is_wish(message: str, rest: str, asked: Question | None, works: tuple[str, ...]) -> bool:
    """:param rest: the message without its facts"""
    if speech.says(message, "desire none"):
        return False
    letters = len(_LETTERS.findall(rest))
    desires = asked != "consent" and letters >= 2 and speech.says(message, "desires")
    if names_works(rest, works) or desires:
        return True
    return asked == "wish" and letters >= 3 and not rest.endswith("?")


def wish(message: str, works: tuple[str, ...]) -> str:
    """Return the sentences that name works; if there are none, the whole message."""
    sentences = _SENTENCE_END.split(message)
    telling = [
        text for text in sentences if names_works(text, works) or speech.says(text, "desires")
    ]
    return " ".join(telling or sentences)
