"""Detects the language of a message."""

import re

from services.followups.reading.text import vocabulary

_POLISH = re.compile("[ąćęłńóśźż]")
_GERMAN = re.compile(r"[äöüß]|\b(?:gasgeruch|rohrbruch|kurzschluss|wasserschaden|feuer|hilfe)\b")
_CYRILLIC = re.compile("[а-яёіїєґ]{2,}")
_WORDS = {
    "pl": vocabulary(
        "i w na z do jest się sie dzień dzien dobry witam cześć czesc mam chcę chce chcialbym chciałabym "
        "proszę prosze tak nie od budżet budzet mieszkanie dom kuchnia łazienka remont około okolo zł "
        "tys mkw dla że ze pozdrawiam czy jak ile kiedy moze mozna mieszkania lazienka lazienki kuchni "
        "jestem mamy mi po za co to o przed nr tel dziekuje wycena wycene szukam potrzebuje interesuje"
    ),
    "en": vocabulary(
        "the and is are hello hi my we want would like please of for with have yes agree if only send me kitchen "
        "flat apartment house bathroom renovate about need looking thanks around you it at this "
        "i am who why an how much when can could i'm i'd your our from or do does what me to renovation floor "
        "there there's water gas smell smells smoke fire leak leaking flooding flooded help burning burst pipe ceiling everywhere beeping"
    ),
    "de": vocabulary(
        "ich wir und der die das ist sind ein eine einen für mit bitte hallo guten tag wohnung haus küche bad "
        "renovierung renovieren möchte möchten brauche suche nicht kein keine von zu auf quadratmeter danke "
        "sprechen sie deutsch mein meine unser haben habe wie viel wann kostet können budget euro badezimmer "
        "es im bei uns aus am riecht nach gas wasser brennt feuer hilfe rauch decke rohr rohrbruch läuft überall steckdose funken strom hier hat gasgeruch kurzschluss wasserschaden gasleitung qualmt"
    ),
}  # fmt: skip
_PLACES = re.compile(r"(?<=[a-z] )[A-ZĆŁŚŹŻ]\w+")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def of(message: str, current: str, *, begun: bool = False) -> str:
    """Return the language, changed only by clear evidence: not by a bare number, address or name.

    :param begun: something was said before, so that one word (`thanks`) changes nothing

    Cyrillic counts as Ukrainian, the only language with these letters that we answer in.
    """
    text = message.lower().replace("’", "'")
    if "@" in text:
        text = re.sub(r"\S+@\S+", " ", text)
    words = _WORD.findall(text)
    points = {language: sum(map(known.__contains__, words)) for language, known in _WORDS.items()}
    if current == "en" and points["en"] > 1:  # `do you work in Kraków`
        text = _PLACES.sub(" ", message).lower()
    points["pl"] += 2 * len(_POLISH.findall(text))
    if points["de"]:  # German letters alone may be part of a name: Müller
        points["de"] += 2 * len(_GERMAN.findall(text))
    if points["de"] < 2:
        points["de"] = 0
    points["uk"] = 2 * len(_CYRILLIC.findall(text)) if len(text) > 2 else 0
    best = max(points.values())
    leading = [language for language, count in points.items() if count == best]
    return current if len(leading) > 1 or (begun and best < 2) else leading[0]
