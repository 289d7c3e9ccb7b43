"""The start of the works: of the times in a message, the one that is said to be it.

Each time has a role by the words around it: that of the start, of the handover, of a deadline or an event, of
the past, or of a call. vocabulary/time.toml has these words.
"""

from collections.abc import Iterable
from datetime import date
from enum import IntEnum
from itertools import groupby

from services.followups.reading import corrections, dates
from services.followups.reading.dates import Date
from services.followups.reading.text import MARK, Reading
from services.followups.reading.tokens import Match, Said, Token
from services.followups.rules.facts import Question

HANDOVER = "handover"
"""The name of a start after the handover: it gives way to one that is said as such."""
_STOPS = {";", ".", "!", "?"}
_UNTIL = {"do", "until", "by", "bis"}
_NOT_BEFORE = {"before", "przed", "wczesniej", "vor"}
_PAUSES = {"wiec", "czyli", "ale", "a", "i", "bo", "zeby", "aby"}
_LOOK_BACK, _LOOK_AHEAD, _LONGEST_LINK = 12, 7, 4
"""In tokens."""
_ROUGH = ("about", "week", "in_", "quarter", "half_year", "holidays", "before_", "after_", *dates.SEASONS)  # fmt: skip
_LIST = {"", ",", "(", ":", "-", "–", "albo", "lub", "czyli", "ok", ".", "okolo"}


def of_handover(start: str | None) -> bool:
    return start is not None and start.endswith(f" {HANDOVER}")


class Role(IntEnum):
    NONE = 0
    """An event, the past, a call."""
    UNTIL = 1
    """A deadline without a verb: a start only if that was asked."""
    HANDOVER = 2
    UNSAID = 3
    START = 4


_ROLES = {
    "none": None, "event": "event", "past": "other", "start": "start", "after": "after", "handover": "handover",
    "works": "works", "finish": "finish", "call": "call", "other": "other",
}  # fmt: skip
"""Of a word that has several, the first counts."""


class _Said(Said):
    def __init__(self, text: str, tokens: list[Token]) -> None:
        super().__init__(dates.WORDS, text, "beside_a_time", tokens=tokens)
        self.all_roles = _in_order(each for each in self.heard if each.name == "role")

    def roles(self, first: int, end: int) -> list[str]:
        return [value for start, stop, value in self.all_roles if first <= start and stop <= end]

    def is_pause(self, at: int) -> bool:
        token = self.tokens[at]
        return token.word in _PAUSES or (token.word in {",", *_STOPS} and self.is_loose(at))

    def is_end(self, at: int) -> bool:
        word = self.tokens[at].word
        return word in _STOPS and (word != "." or self.is_loose(at))

    def since(self, at: int, least: int, *, pause: bool = False) -> int:
        """Return where the sentence, or the clause, before this token begins."""
        stops = self.is_pause if pause else self.is_end
        return next((each + 1 for each in range(at - 1, least - 1, -1) if stops(each)), least)

    def until(self, at: int, most: int) -> int:
        """Return where the clause that begins here ends."""
        return next((each for each in range(at, most) if self.is_pause(each)), most)


def _in_order(heard: Iterable[Match]) -> list[tuple[int, int, str]]:
    """Return the words' roles, with their first token and the end."""
    found: list[tuple[int, int, str]] = []
    last = 0
    for start, each in groupby(heard, key=lambda match: match.start):
        said = {match.value: match.end for match in sorted(each, key=lambda match: match.end)}
        value = next(one for one in _ROLES if one in said)
        if start >= last:
            last = said[value]
            found += [(start, last, role)] if (role := _ROLES[value]) else []
    return found


def is_said(text: str) -> bool:
    """Return whether a day is said to be the start, not that of a call: `start 11.01, proszę o kontakt`."""
    said = _Said(text, dates.WORDS.tokens(text))
    stops = [at for at, each in enumerate(said.tokens) if said.is_end(at) or each.word[0].isdecimal()]  # fmt: skip
    for start, end, value in said.all_roles:
        at = next((each for each in stops if each >= end), end + 6)
        if value == "start" and at < end + 6 and not said.is_end(at):
            return "call" not in said.roles(start, at)
    return False


def find(text: str, today: date, asked: Question | None) -> Reading:
    bare = asked == "start"
    tokens = dates.WORDS.tokens(text)
    found = dates.read(text, tokens, today, bare=bare)
    if not found:
        return text, {}
    said = _Said(text, tokens)
    rated: list[tuple[Role, Date]] = []
    is_past = False
    gone = -1  # the end of `wiosna 2026`: its year holds for a month after it
    for number, each in enumerate(found):
        begin = found[number - 1].end if number else 0
        end = found[number + 1].start if number + 1 < len(found) else len(said.tokens)
        role = _Around(said, each, begin, end, bare=bare).role()
        if role == Role.UNTIL and bare and len(found) == 1:
            role = Role.UNSAID
        day = each.said.partition(" ")[0]
        is_had = role == Role.HANDOVER and day == f"{today.year + 1}-{today:%m}"
        is_listed = gone >= 0 and _LIST.issuperset(said.words(gone, each.start))
        is_gone = (is_had or is_listed) and not any(
            "{year}" in token.kinds for token in said.tokens[each.start : each.end]
        )
        if role > Role.UNTIL and (is_gone or day < today.isoformat()[: len(day)]):
            is_past = is_past or bare or role == Role.START
            gone = each.end if (is_gone and not is_had) or each.said[8:] in dates.SEASONS else gone
        elif role > Role.UNTIL:
            rated.append((role, each))
    if not rated:
        return text, {"past_start": True} if is_past else {}
    role, chosen = _chosen(said, rated) if len(rated) > 1 else rated[0]
    is_handover = role == Role.HANDOVER and chosen.said != "asap"
    start = f"{chosen.said} {HANDOVER}" if is_handover else chosen.said
    before, after = said.tokens[chosen.start].start, said.tokens[chosen.end - 1].end
    return f"{text[:before]} {MARK} {text[after:]}", {"start": start}


def _chosen(said: _Said, rated: list[tuple[Role, Date]]) -> tuple[Role, Date]:
    """Return the first with the strongest role, or what corrects it."""
    best = max(role for role, _ in rated)
    strongest = [each for role, each in rated if role == best]
    clauses = {each: (said.since(each.start, 0, pause=True), each.start) for each in strongest}
    yours = [each for each in strongest if said.has("beside yours", *clauses[each])]
    meant = [each for each in yours or strongest if not said.has("beside hoped", *clauses[each])]
    chosen = (meant or strongest)[0]
    for role, each in rated:
        if each.start > chosen.start and _corrects(said, chosen, each, role):
            chosen, best = each, role
    for role, each in rated if chosen.said == "asap" else ():
        is_then = said.words(each.end, chosen.start)[-1:] == ["i"]  # `w maju wpadniecie i od razu`
        if each.said != "asap" and (role == Role.HANDOVER or is_then):
            return role, each  # `klucze w marcu, zacząć jak najszybciej`
    return best, chosen


def _corrects(said: _Said, chosen: Date, each: Date, role: Role) -> bool:
    """Return whether a later time replaces one: `przed świętami, ale to niemożliwe, więc po nich`."""
    first, end = chosen.end, each.start
    if corrections.corrects(said.text[said.tokens[first - 1].end : said.tokens[end].start]):
        return True
    is_too_soon = said.has("beside too_soon", first, end) and not said.has("beside if", first, end)
    return (
        (end - first <= _LONGEST_LINK and said.has("beside better", first, end))
        or (role == Role.START and said.has("beside so", first, end))
        or (role >= Role.UNSAID and (is_too_soon or _is_closer(said, chosen, each)))
    )


def _is_closer(said: _Said, chosen: Date, each: Date) -> bool:
    """Return whether it says the same more exactly: `po świętach, koło 7 stycznia`."""
    span = chosen.end, each.start
    if chosen.said == "asap":
        is_apart = any(map(said.is_pause, range(*span)))
    else:
        is_apart = each.said[:7] < chosen.said[:7]
    if is_apart or said.roles(*span) or said.has("beside at_latest", *span):
        return False
    return span[1] - span[0] <= _LONGEST_LINK and _exactness(each) > _exactness(chosen)


def _exactness(each: Date) -> int:
    day, _, named = each.said.partition(" ")
    if day == "asap":
        return 0
    if named.startswith(_ROUGH):
        return 1 if named in dates.SEASONS else 2
    return len(day.split("-")) + (each.kind != "weekday")


class _Around:
    """The words around a time: of its sentence before it, and of its clause."""

    def __init__(self, said: _Said, each: Date, begin: int, end: int, *, bare: bool) -> None:
        """`begin` is where the time before it ends, and `end` where the next one begins.

        :param bare: this answers when the works start
        """
        self.said, self.each, self.bare = said, each, bare
        self.before = said.since(each.start, max(begin, each.start - _LOOK_BACK))
        self.clause = said.since(each.start, self.before, pause=True)
        self.after = said.until(each.end, min(end, each.end + _LOOK_AHEAD))
        self.rest = said.until(each.end, len(said.tokens))
        self.first = said.tokens[each.start].word

    def _is_before(self, name: str) -> bool:
        return self.said.ends(name, self.each.start, self.before)

    def _is_after(self, name: str) -> bool:
        return self.said.begins(name, self.each.end)

    def _is_none(self) -> bool:
        """Return whether it cannot be the start, whatever verb is near: `nie w maju`, `faktura z lipca`."""
        said, start = self.said, self.each.start
        if self.each.kind in {"asap", "now"} and (
            self._is_before("soon before") or self._is_after("soon after") or self._is_not_soon()
        ):
            return True
        if self.each.kind == "asap":
            is_then = self._is_after("soon then") and not self._is_after("soon not_then")
            return is_then or said.begins("soon potem", self.each.end - 1)
        sentence = said.since(start, max(0, start - _LOOK_BACK))
        is_last = self._is_after("never last") and said.ends("never last", self.after)
        is_until = self.first in _UNTIL or self._is_before("until yes")
        is_over = said.has("over yes", self.clause, self.rest) and not said.has("over no", self.before, self.rest)  # fmt: skip
        is_dead = said.has("dead yes", 0, len(said.tokens)) and said.has("dead arranged", sentence, start)  # fmt: skip
        return (
            is_over
            or is_dead
            or ((is_last or self._is_after("never after")) and not is_until)
            or (self._is_before("never before") and self.first not in _NOT_BEFORE)
            or (not self.bare and self.first == "z")
            or (self.each.kind in {"weekday", "next", "now"} and self._is_call(sentence))
        )

    def _is_not_soon(self) -> bool:
        """`Nie szukam nikogo na już`"""
        first, start = max(self.before, self.each.start - 6), self.each.start
        return self.said.has("soon near", first, start) and not self.said.has("soon unless", first, start)  # fmt: skip

    def _is_call(self, sentence: int) -> bool:
        """`Proszę nie dzwonić w piątek`, `żeby ktoś zadzwonił, może w przyszłym tygodniu`"""
        said, start, end = self.said, self.each.start, self.each.end
        near = said.until(end, min(end + 5, len(said.tokens)))
        if said.has("rings yes", self.clause, start) or said.has("rings yes", end, near) or self._is_after("rings hour"):  # fmt: skip
            return True
        asked = [at for at in range(sentence, start) if said.begins("rings yes", at) or said.begins("rings me", at)]  # fmt: skip
        if not asked or said.has("rings not_me", asked[-1], start):
            return False
        return {*said.roles(asked[-1], self.rest)} <= {"call", "other"}

    def role(self) -> Role:
        """Return the role of the time."""
        kind, bare, word = self.each.kind, self.bare, self._word()
        if self._is_none():
            return Role.NONE
        if kind == "number" and not bare and not (self._is_before("led yes") or word in {"start", "after", "handover"}):  # fmt: skip
            return Role.NONE
        if word in {"handover", "start", "after"}:
            return Role.HANDOVER if word == "handover" else Role.START
        if kind in {"date", "number"} and (self.first in _UNTIL or self._is_before("until yes")):
            return Role.UNTIL
        is_aside = word in {"call", "other"} and (not bare or kind == "weekday")
        if word in {"finish", "event"} or is_aside:
            return Role.NONE
        return Role.START if word == "works" else Role.UNSAID

    def _word(self) -> str | None:
        """Return the role of the nearest word that has one: in its clause, else before."""
        words = self.said.roles(self.clause, self.each.start)
        if words:
            return "start" if words[-2:] == ["start", "works"] else words[-1]
        if words := self.said.roles(self.each.end, self.after):
            return words[0]
        return "start" if "start" in self.said.roles(self.before, self.clause) else None
