"""Checks that a model's reply says what the script says, and nothing else.

It compares what must be equal (numbers, addresses, links, the question) and looks for what models
invent: prices, promises, consent, being human. A false alarm costs a nicer sentence; a miss costs
a promise that the company never made. So any doubt rejects the reply.
"""

import re

from services.followups.routing import fold
from services.followups.understanding import language as languages

LONGER = 100
"""Characters allowed beyond twice the script's length."""

_NUMBER = re.compile(r"\d+(?:[\s.,]\d+)*")
_LINK = re.compile(
    r"https?://\S+|www\.\S+|\S+@\S+|\b[\w-]+\.(?:pl|com|eu|net|org|io|info)\b", re.IGNORECASE
)
_MARKUP = re.compile(r"[*_#`<>|]|\]\(")
_SAYS = re.compile(
    # numbers in words
    r"^(?:dw[aóo]\w*|dwie\w*|trzy\w*|trzech|czter\w*|piec\w*|pieciu|szesc\w*|siedem\w*|osiem\w*"
    r"|dziewiec\w*|dziesie\w*|sto|stu|dwiescie|tysi\w*|tys|milion\w*|polow\w*|jeden|jedna|jedno|jednego"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|hundred\w*|thousand\w*|million\w*|half"
    # prices
    r"|zl|zlot\w*|pln|eur\w*|cen[aeyo]\w*|koszt\w*|rabat\w*|zniz\w*|promocj\w*|gratis|darmow\w*|bezplatn\w*"
    r"|taniej|tani\w*|drog\w*|wyceni\w*|price\w*|cost\w*|discount\w*|free|cheap\w*|offer|estimate\w*"
    # promises
    r"|gwarant\w*|gwarancj\w*|obiec\w*|zapewni\w*|pewno|jutro|dzis\w*|wkrotce|niebawem|zaraz|godzin\w*|minut\w*"
    r"|dni|dnia|dniu|tydzien|tygodni\w*|miesiac\w*|miesiec\w*|ciagu|oddzwoni\w*|zadzwoni\w*|odezw\w*"
    r"|skontaktuj\w*|przyjed\w*|przyjdzi\w*|wysl\w*|przesl\w*|umow\w*|umawia\w*|zarezerw\w*|zdazy\w*"
    r"|guarantee\w*|promise\w*|tomorrow|today|soon|shortly|hour\w*|minute\w*|day|days|week\w*|month\w*"
    r"|within|call|calls|touch|contact|visit\w*|send|sends|book\w*|schedul\w*|certainly|definitely"
    # consent
    r"|zgod\w*|zgadza\w*|marketing\w*|newsletter\w*|rodo|dane|danych|regulamin\w*|consent\w*|agree\w*"
    r"|gdpr|privacy|data|subscri\w*"
    # who speaks
    r"|czlowiek\w*|ludzi\w*|bot|botem|botow|robot\w*|automat\w*|doradc\w*|konsultant\w*|specjalist\w*|nazywam"
    r"|imie|osobiscie|human\w*|person|advis\w*|consultant\w*|expert\w*|name|personally)$"
)
_SMALL = 4
"""Two words that share this many letters count as forms of one word: `metraż`, `metrów`."""


def unfaithful(reply: str, scripted: str, language: str) -> str | None:
    """Return why the reply may not replace the script; None if it may."""
    words, given = fold(reply), set(fold(scripted))
    differs = {
        "length": len(reply) > 2 * len(scripted) + LONGER,
        "markup": _MARKUP.search(reply),
        "link": sorted(_LINK.findall(reply)) != sorted(_LINK.findall(scripted)),
        "number": _numbers(reply) != _numbers(scripted),
        "claim": any(_SAYS.match(word) and word not in given for word in words),
        "language": languages.of(reply, language) != language,
        "question": not _asks_the_same(reply, scripted),
    }
    return next((reason for reason, found in differs.items() if found), None)


def _numbers(text: str) -> set[str]:
    return {re.sub(r"\D", "", number) for number in _NUMBER.findall(_LINK.sub(" ", text))}


def _asks_the_same(reply: str, scripted: str) -> bool:
    if reply.count("?") != scripted.count("?"):
        return False
    asked, wanted = _question(reply), _question(scripted)
    return not wanted or bool(_stems(asked) & _stems(wanted))


def _question(text: str) -> str:
    return " ".join(re.findall(r"[^.!?]*\?", text))


def _stems(text: str) -> set[str]:
    return {word[:_SMALL] for word in fold(text) if len(word) >= _SMALL}
