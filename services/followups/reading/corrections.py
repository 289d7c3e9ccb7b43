"""What a message says of something said before: `80, nie 60`, `i jeszcze garaż`, `góra może za rok`."""

from collections.abc import Sequence

from services.followups.reading import amounts
from services.followups.reading.amounts import Amounts
from services.followups.reading.text import has_any

LOOK_BACK = 40
_NOT = ("nie", "zamiast", "not", "instead", "nicht", "statt", "не", "заміст", "być", "byc")
"""Without one of these nothing is rejected."""

_ON_TOP = ("jeszcze", "dodatkowo", "tego", "tym", "dochodzi", "also", "on top", "additionally")


def _read(text: str) -> Amounts:
    return amounts.read(text, "corrections")


def is_rejected(text: str, start: int) -> bool:
    """Return whether the value that starts here is negated: `nie 60`."""
    before = text[max(0, start - LOOK_BACK) : start]
    if not has_any(before.lower(), _NOT):
        return False
    said = _read(before)
    return said.is_rejected(len(said.tokens))


def rejected(text: str) -> float | None:
    """Return the number that another replaces: 46 in `64, nie 46`."""
    said = _read(text)
    found = said.of("instead")
    return next((each.said["amount"][-(each.value == "last")] for each in found), None)


def adds(text: str) -> bool:
    """Return whether it names something on top of what was said before: `i jeszcze garaż 36 m2`."""
    if not has_any(text.lower(), _ON_TOP):
        return False
    said = _read(text)
    first = next((at for at in range(len(said.tokens)) if not said.is_kind(at, "{and}")), 0)
    return said.begins("on_top yes", first)


def meant(text: str, found: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the person's own value (`mój`, `nowy`), else the first that is not negated, else the
    last of those that correct one another or form a range.

    :param found: where each begins and ends
    """
    if len(found) < 2:
        return next((each for each in found if not is_rejected(text, each[0])), None)
    first = max(0, found[0][0] - LOOK_BACK)
    said = _read(text[first : found[-1][0]])
    spans = {each: (said.at(each[0] - first), said.at(each[1] - first)) for each in found}
    own = [each for each, (start, _) in spans.items() if _is_own(said, start)]
    chosen: tuple[int, int] | None = None
    for each in own or found:
        start = spans[each][0]
        if said.is_rejected(start):
            continue
        if chosen is None or said.replaces(spans[chosen][1], start):
            chosen = each
    return chosen


def _is_own(said: Amounts, at: int) -> bool:
    return said.has("own yes", said.since(at, ",", ";", "@", most=4), at)


def is_later_stage(text: str) -> bool:
    """Return whether a time is that of a later stage: `góra może za rok`."""
    said = _read(text)
    everything = 0, len(said.tokens)
    return said.has("later yes", *everything) and not said.has("later moved", *everything)


def is_aside(text: str, wish: str) -> bool:
    """Return whether it is about other rooms than those wanted: `kuchnię zrobimy za rok`."""
    said, wanted = _read(text), _read(wish)
    rooms = {each.value for each in said.of("room")}
    if not rooms or said.has("said too", 0, len(said.tokens)):
        return False
    asked = wanted.of("room")
    denied = {each.value for each in asked if wanted.ends("said no", each.start)}
    left = {each.value for each in asked} - denied
    return bool(left) and rooms.isdisjoint(left)


def corrects(words: str) -> bool:
    said = _read(words) if len(words) <= LOOK_BACK else None
    return said is not None and said.corrects(0, len(said.tokens))
