"""The start of the works: of the times in a message, the one that is said to be it.

Each time has a role by the nearest word that has one: that of the start, of the handover, of a deadline or an
event, of the past, or of a call. vocabulary/beside_a_time.toml has these words, and the phrases around a time.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from enum import IntEnum
from typing import NamedTuple

from services.followups.reading import amounts, dates
from services.followups.reading.dates import Date, Times
from services.followups.reading.numbers import HAS_DIGIT
from services.followups.reading.text import Reading
from services.followups.reading.tokens import Said, Vocabulary
from services.followups.rules.facts import Facts, Question

HANDOVER = "handover"
"""The name of a start after the handover: it gives way to one that is said as such."""
_STOPS = {";", ".", "!", "?"}
_LOOK_BACK, _LONGEST_LINK = 12, 6
"""In tokens."""
_ROLES = ("none", "past", "start", "after", "handover", "works", "write", "done", "call", "other")
"""Of a word that has several, the first counts."""


def of_handover(start: str | None) -> bool:
    return start is not None and start.endswith(f" {HANDOVER}")


class Role(IntEnum):
    NONE = 0
    """An event, a deadline, the past, a call."""
    HANDOVER = 1
    UNSAID = 2
    WORKS = 3
    START = 4


class _Time(NamedTuple):
    date: Date
    at: int
    sentence: int
    clause: int
    end: int
    """Tokens: its own, where its sentence and its clause begin, and where its clause ends."""


class _Said(Said):
    """A message with each of its times as one token."""

    vocabulary = Vocabulary("beside_a_time")

    def __init__(self, text: str, times: Sequence[Date]) -> None:
        tokens = self.vocabulary.tokens(text)
        for each in reversed(times):
            kinds = ("{time}", *(f"{{{kind}}}" for kind in each.kinds))
            span = slice(each.start, each.end)
            tokens[span] = [self.vocabulary.joined(tokens[span], *kinds)]
        super().__init__(text, tokens)
        self._roles = self.apart("role", order=_ROLES)
        loose = filter(self.is_loose, range(len(tokens)))
        pauses = [at for at in loose if self.is_kind(at, "{stop}")]
        stops = [at for at in pauses if tokens[at].word in _STOPS]
        at = (at for at in range(len(tokens)) if self.is_kind(at, "{time}"))
        self.times = [self._time(*each, stops, pauses) for each in zip(times, at, strict=True)]

    def _time(self, date: Date, at: int, stops: list[int], pauses: list[int]) -> _Time:
        sentence = max(at - _LOOK_BACK, 0, *(each + 1 for each in stops if each < at))
        clause = max(sentence, *(each + 1 for each in pauses if each < at), 0)
        end = next((each for each in pauses if each > at), len(self.tokens))
        return _Time(date, at, sentence, clause, end)

    def roles(self, first: int, end: int) -> list[str]:
        within = (each.value for each in self._roles if first <= each.start and each.end <= end)
        return ["other" if each == "past" else each for each in within if each != "none"]


def find(text: str, today: date, asked: Question | None) -> Reading:
    bare = asked == "start"
    may_have = HAS_DIGIT.search(text) or Times.vocabulary.may_be_in(text)
    times = Times(text) if may_have else None
    found = dates.read(times, today, bare=bare) if times else []
    if not times or not found:
        return text, {}
    said = _Said(text, found)
    rated: list[tuple[Role, _Time]] = []
    soon = f"{today + timedelta(21)}"
    is_past = False
    for each in said.times:
        role = _role(said, each, soon, bare=bare)
        day = each.date.said.partition(" ")[0]
        if role and day < today.isoformat()[: len(day)]:
            is_past = is_past or bare or role == Role.START
        elif role:
            rated.append((role, each))
    if not rated:
        return text, {"past_start": True} if is_past else {}
    role, chosen = _chosen(said, rated)
    both = [each.date.said for other, each in rated if other == role != Role.HANDOVER]
    if len(both) == 2 and chosen.said == both[0] and _are_apart(*both):
        return text, {"either": [Facts(start=each) for each in both]}
    is_handover = role == Role.HANDOVER and chosen.said != "asap"
    start = f"{chosen.said} {HANDOVER}" if is_handover else chosen.said
    return times.without((chosen.start, chosen.end)), {"start": start}


def _chosen(said: _Said, rated: list[tuple[Role, _Time]]) -> tuple[Role, Date]:
    """Return the first with the strongest role, or what corrects it."""
    best, chosen = max(rated, key=lambda each: each[0])
    for role, each in rated:
        if each.at > chosen.at and _corrects(said, chosen, each, role):
            chosen, best = each, role
    for role, each in rated if chosen.date.said == "asap" else ():
        narrows = (chosen.at, each.at + 1) in said.all("after_time narrowed")
        if each.date.said != "asap" and (narrows or role in {Role.HANDOVER, Role.START}):
            return role, each.date  # `klucze w marcu, zacząć jak najszybciej`; `pilnie, start 7.12`
    return best, chosen.date


def _are_apart(*starts: str) -> bool:
    """Return whether two dates are months apart, unlike those of `na przełomie lutego i marca`."""
    months = [int(each[:4]) * 12 + int(each[5:7] or 0) for each in starts if each != "asap"]
    return len(months) == 2 and abs(months[1] - months[0]) > 1


def _corrects(said: _Said, last: _Time, each: _Time, role: Role) -> bool:
    """Return whether a later time replaces one: `w maju, a nie, w czerwcu`; `latem, w lipcu`."""
    if amounts.corrects(said.text[said.tokens[last.at].end : said.tokens[each.at].end]):
        return True
    old, new = last.date.said, each.date.said
    is_near = each.at - last.at <= _LONGEST_LINK + 1 and new[:7] >= old[:7]
    is_near = is_near and not said.begins("after_time or", last.at)
    return role >= Role.UNSAID and is_near and old.partition(" ")[2] in dates.NARROWED


def _role(said: _Said, time: _Time, soon: str, *, bare: bool) -> Role:
    """Return the role of the time, by the nearest word of its clause that has one: before it, else after.

    :param soon: a single day before it is one of a visit, if no word says that it is the start
    :param bare: this answers when the works start
    """
    at = time.at
    before, after = said.roles(time.clause, at), said.roles(at + 1, time.end)
    word = next(iter(before[-1:] or after), "")
    is_never = said.ends("before_time never", at + 1) or said.begins("after_time never", at)
    is_never = is_never or said.begins("after_time until", at)  # `am 15. Januar, bis dahin fertig`
    is_strong = word in {"start", "after", "handover"}
    is_led = is_strong or bare or said.ends("before_time led", at + 1)
    is_number = said.is_kind(at, "{day_number}") and not is_led  # `3/4`
    if is_never or is_number or _is_past(said, time):
        return Role.NONE
    if said.begins("after_time then", at):
        return Role.START
    if is_strong:
        return Role.HANDOVER if word == "handover" else Role.START
    is_deadline = said.ends("before_time until", at + 1) and not bare
    is_near = time.date.said < soon and said.is_kind(at, "{weekday}", "{day}", "{date}")
    is_aside = word in {"write", "done"} or (word in {"call", "other"} and (is_near or not bare))
    is_unled = not (bare or said.ends("before_time from", at + 1))
    is_visit = is_near and is_unled and not said.has("role works", time.sentence, time.end)
    if is_aside or is_deadline or is_visit:
        return Role.NONE
    if word in {"", "works"} and said.ends("before_time so", at + 1):
        return Role.START
    return Role.WORKS if word == "works" else Role.UNSAID


def _is_past(said: _Said, time: _Time) -> bool:
    """Return whether its clause is about what is over: `w maju malowaliście`; `umówił się, ale zmarł`."""
    is_open = said.has("over no", time.sentence, time.end)
    is_dead = said.is_said("dead yes") and said.has("dead arranged", time.sentence, time.at)
    return is_dead or (not is_open and said.has("over yes", time.clause, time.end))
