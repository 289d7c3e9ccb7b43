"""docs/promises.md says what the markers say, and tests/flaky is short."""

from datetime import UTC, date, datetime

import pytest

from deploy.up.environment import ROOT
from tests.support import promises


def test_the_page_is_what_the_markers_say() -> None:
    assert promises.PAGE.read_text(encoding="utf-8") == promises.page()


@pytest.mark.parametrize("promise", promises.promises())
def test_a_promise_is_attacked_and_once_in_make_test(promise: str) -> None:
    found = [each for each in promises.tests() if promise in each.promises]
    assert len(found) > 1
    assert promise == "P10" or any(each.quick for each in found)  # three hosts need root


def test_no_other_promise_is_marked() -> None:
    marked = {name for each in promises.tests() for name in each.promises | each.controls}
    assert marked == set(promises.promises())


def test_few_tests_may_be_repeated_and_each_is_named_with_its_date() -> None:
    lines = (ROOT / "tests" / "flaky").read_text(encoding="utf-8").splitlines()
    names = {f"{each.file}::{each.name}" for each in promises.tests()}
    assert len(lines) <= 5
    for line in lines:
        day, _, test = line.partition(" ")
        assert date.fromisoformat(day) <= datetime.now(UTC).date()
        assert test.partition("[")[0] in names
