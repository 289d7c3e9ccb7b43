"""Detects a writer who cannot consent: a child, or someone who names another person's mailbox."""

import re
from typing import Literal

from services.followups.reading.text import fold, has_any, vocabulary, words

Barred = Literal["child", "another"]
"""Why consent is not asked for: the writer is a child, or the mailbox is another person's."""

_KIN_PL = (
    r"(?:mam[yae]|mamusi|matk[ia]|tat[yae]|tatusia|ojca|ojcu|rodzicow|zon[yae]|zonie|mez[ae]|mezowi|syna|synowi|cork[ia]|corce|brata|bratu"
    r"|siostr[ya]|siostrze|babci|dziadk\w+|cioci\w*|ciotk\w+|wuj\w*|stryj\w*|tesci\w*|szwag\w+|kuzyn\w*|wnu[kc]\w*|zieci\w*|synow[aey]j?|opiekun\w*"
    r"|koleg[iae]|koledze|kolezan\w+|kump\w+|znajom\w+|szef\w*|sasiad\w*|partner\w*|chlopaka|dziewczyny|narzeczon\w+|klient\w*|przyjaci\w+"
    r"|wspolnik\w*|wspollokator\w*|kierownik\w*|dyrektor\w*|prezes\w*|asystent\w*|sekretar\w+)"
)
_KIN_NAMED_PL = r"(?:mama|tata|zona|maz|syn|corka|brat|siostra|ciocia|wujek|babcia|dziadek|szef|kolega|kolezanka)"
_BOX_PL = r"(?:e ?-?mail\w*|mail\w*|mejl\w*|adres\w*|skrzynk\w*|poczt\w*)"
_KIN_EN = (
    r"(?:mum|mom|mother|dad|father|parents|wife|husband|son|daughter|brother|sister|boss|friend|partner|neighbou?r|colleague"
    r"|assistant|secretary|girlfriend|boyfriend|fiancee?|client)"
)
_BOX_EN = r"(?:e ?-?mail|mail|address|inbox|mailbox)"
_KIN_DE = r"(?:frau|mann(?:es)?|mutter|vaters?|sohn\w*|tochter|bruders?|schwester|chefs?|freund\w*|nachbar\w*|kolleg\w*)"
_KIN_UK = r"(?:мами|мамина|тата|батька|дружини|чоловіка|сина|доньки|брата|сестри|друга|подруги|сусід\w*|начальник\w*)"
_ANOTHERS = re.compile(
    rf"@[\w.-]{{1,80}}[ ,;:-]{{1,4}}(?:\({_KIN_NAMED_PL}|(?:(?:to|jest|nalezy|do|od|moj\w*|{_BOX_PL}) ){{1,4}}{_KIN_PL})\b"
    r"|\b(?:" + "|".join((
        rf"{_BOX_PL}(?: (?:to|jest|na|do|od|e|mail))*(?: (?:moj\w*|nasz\w*|swoj\w*|jej|jego))? {_KIN_PL}\b",
        rf"(?:pis\w+|wyslij\w*|wysyla\w+|wyslac|slij\w*|kontakt\w*)(?: (?:prosze|lepiej|raczej))* (?:do|na (?:\w+ )?(?:adres|maila?)) (?:moj\w+ )?{_KIN_PL}\b",
        rf"{_KIN_NAMED_PL} (?:ma|uzywa) {_BOX_PL}|(?:{_KIN_NAMED_PL}|wnuczka|wnuk) (?:(?:go|ja|to|mi) )?(?:obsluguje|prowadzi|sprawdza)\b",
        rf"(?:(?<=do )|(?!mamy))(?:{_KIN_PL}|{_KIN_NAMED_PL})[ :(-]{{1,3}}(?:(?:to|jest|ma|na|{_BOX_PL})[ :]{{1,2}}){{0,3}}[\w.+-]{{1,64}}@",
        r"(?!ich e?-?maile)(?:jej|jego|ich) (?:e ?-?mail|mail|mejl|skrzynk|poczt|adres\w* (?:e ?-?)?(?:mail|mejl|poczt))",  # `ich maile Ihnen`
        r"to (?:jej|jego|ich) adres[ .!]*$",
        rf"(?:nie moj|cudzy|nie moja) {_BOX_PL}",
        rf"(?:my|our|his|her|a) {_KIN_EN}(?:'?s)? (?:\w+ )?{_BOX_EN}\b",
        rf"{_BOX_EN} (?:is |of |belongs to )+(?:my|our) {_KIN_EN}",
        rf"(?:write|e ?-?mail|send it) to (?:my|our) {_KIN_EN}\b|not my (?:own )?{_BOX_EN}",
        rf"(?:e ?-?mail|mail|adresse|postfach)\w*(?: \w+)? (?:meine[rs]?|von meine[rm]|unsere[rs]?) {_KIN_DE}\b",
        rf"(?:пошта|поштa|адреса|мейл|імейл|скринька)(?: (?:моєї|мого|моя|це))* {_KIN_UK}\b",
    )) + ")"
)  # fmt: skip
_THEIR_ADDRESS = re.compile(
    r"\b(?:jej|jego|ich) adres(?!s)\w*(?! (?:to |jest )?(?:ul|al|os|pl)\w*\b)"
)
"""In a message that names a mailbox; `jego adres to Lipska 4` is where he lives, `ich adressiere` is German."""
_TEENS_PL = "siedem|osiem|dziewiec|dziesiec|jedenascie|dwanascie|trzynascie|czternascie|pietnascie|szesnascie|siedemnascie"  # fmt: skip
_AGE = r"(?:[5-9]|1[0-7])"
_CHILD = re.compile(
    "|".join((
        rf"(?:^|[.,!?;] *|\b(?:ja|a|i|bo|ale|tak|nie|tylko|dopiero) )mam (?:dopiero |tylko )?(?:{_AGE}|{_TEENS_PL}) lat(?! (?:doswiadcz|gwaranc|temu|na\b|pracy|w\b))",
        r"\bjestem (?:dzieck|niepelnoletni|nieletni|maloletni|nastolat)\w*|\bnie mam (?:jeszcze )?(?:18|osiemnastu|16|szesnastu) lat\b",
        r"\b(?:chodze do|ucze sie w)(?: \w+)? (?:podstawow\w+|gimnazjum|przedszkol\w+|klas\w+)\b|\bjestem (?:uczniem|uczennica|w \w+ klasie)\b",
        rf"\bjestem [^\W\d]{{2,20}},? lat {_AGE}\b|\bjestem {_AGE}-?latk\w+|\bmam (?:{_AGE}|{_TEENS_PL}) latek\b",
        r"\b(?:mama|tata|tato|rodzice)(?: sie)?(?: mi| nam)? (?:pozwol|pozwal)\w*",
        rf"\b(?:i'?m|i am)(?: only| just)? {_AGE}(?: (?:years|yrs?)(?: old)?| yo)?(?=$| *[.,!?;])",
        r"\b(?:i'?m|i am) (?:a )?(?:kid|child|minor|under ?-?age|teenager|underage)\b",
        rf"\bich bin(?: erst)? {_AGE}(?: jahre(?: alt)?)?(?=$| *[.,!?;])|\bich bin (?:minderjahrig|ein kind)",
        rf"\bмені(?: лише| тільки)? {_AGE}(?: рок\w*)?|\bмне {_AGE} (?:лет|год)",
    ))
)  # fmt: skip


_OWN = re.compile(
    rf"\b(?:moj|swoj|my|mein\w*|мій|моя) (?:(?:wlasny|prywatny|own) )?(?:{_BOX_PL}|{_BOX_EN}|adresse|пошта)"
)
_OF_A_MAILBOX = (
    "mail", "mejl", "adres", "skrzyn", "poczt", "box", "address", "postfach", "пошт", "мейл", "скрин", "pis", "wys", "slij", "kontakt", "write", "send",
    " lat", "jestem", "chodze", "ucze", "@", "mama", "tat", "rodzic", "i'm", "i am", "ich bin", "мені", "мне",
)  # fmt: skip
_OF_A_CHILD = vocabulary("jestem mam chodze ucze mama tata tato rodzice im m am bin мені мне")


_SURNAME = re.compile(r"\b(?!M[óo]j|Nasz|To|E-?mail|Mail|Adres)([A-ZĆŁŚŹŻ][a-ząćęłńóśźż]+) Wnuk\b")
"""`Agata Wnuk a@wp.pl`: no grandson."""


def barred(message: str) -> Barred | None:
    folded = fold(_SURNAME.sub(r"\1", message) if "Wnuk" in message else message)
    if not has_any(folded, _OF_A_MAILBOX):
        return None
    if not _OF_A_CHILD.isdisjoint(words(message)) and _CHILD.search(folded):
        return "child"
    is_anothers = _ANOTHERS.search(folded) or ("@" in folded and _THEIR_ADDRESS.search(folded))
    return "another" if is_anothers else None


def is_own(message: str) -> bool:
    """Whether whoever writes calls an address their own."""
    return bool(_OWN.search(fold(message)))
