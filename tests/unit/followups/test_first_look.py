"""Readers look for a word of theirs before they search; here, that no match is without one."""

import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.followups.reading import addresses, ids, numbers
from services.followups.reading.text import beginnings, words

_SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]
Look = Callable[[str], bool]


def has_word(vocabulary: frozenset[str]) -> Look:
    return lambda text: not vocabulary.isdisjoint(words(text))


def has_beginning(vocabulary: frozenset[str]) -> Look:
    return lambda text: not vocabulary.isdisjoint(beginnings(text))


LOOKS: list[tuple[re.Pattern[str], Look]] = [
    (addresses._SPELT, lambda text: "@" in text or has_word(addresses._SPELLED)(text)),
    (ids._IDS, has_beginning(ids._LEADS)),
    (numbers._AND_A_HALF, has_word(numbers._HALF)),
]


@pytest.mark.parametrize(("pattern", "lets_through"), LOOKS, ids=map(str, range(len(LOOKS))))
def test_a_first_look_lets_each_match_through(pattern: re.Pattern[str], lets_through: Look) -> None:
    @settings(max_examples=30, derandomize=True, suppress_health_check=_SLOW)
    @given(st.from_regex(pattern))
    def check(text: str) -> None:
        assert lets_through(text), pattern.pattern

    check()
