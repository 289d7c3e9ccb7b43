"""The words that the reader knows are data, and a mistake in them does not stay silent."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from services.followups.reading import amounts, dates, speech, starts, tokens

READING = Path(tokens.__file__).parent
FILES = sorted((READING / "vocabulary").glob("*.toml"))
ALL = {file.stem: tomllib.loads(file.read_text(encoding="utf-8")) for file in FILES}
TOLD = {name: told for name, told in ALL.items() if told.keys() & {"words", "lists"}}
"""Those with phrases: `domains` and `calendar` are tables."""
OF_NUMBERS = {
    "side",
    "amount",
    "date",
    "day_month",
    "number",
    "count",
    "day",
    "year",
    "word",
    "mail",
    "run",
    "digits",
    "time",
    "asap",
    "now",
    "season",
    "feast",
    "bare_year",
    "span",
    "next",
}
LONGEST_PATTERN = 100
LONGEST_FUNCTION = 40


def phrases(file: str) -> list[str]:
    told = {name: values for name, values in TOLD[file].items() if name not in {"words", "unlike"}}
    lists = told.pop("lists", {})
    return [each for values in [*told.values(), lists] for some in values.values() for each in some]


@pytest.mark.parametrize("file", TOLD)
def test_each_class_that_a_phrase_names_has_words(file: str) -> None:
    known = OF_NUMBERS.union(
        *(told.get("words", {}) for told in TOLD.values()), TOLD[file].get("lists", {})
    )
    named = {name for phrase in phrases(file) for name in re.findall(r"\{(\w+)\}", phrase)}
    assert named - known == set()


@pytest.mark.parametrize("files", [speech._FILES, amounts._FILES])
def test_no_list_has_the_name_of_a_class_in_a_file_that_is_read_with_it(
    files: tuple[str, ...],
) -> None:
    lists = Counter(name for file in files for name in TOLD.get(file, {}).get("lists", ()))
    classes = {name for file in files for name in TOLD.get(file, {}).get("words", ())}
    assert [name for name, times in lists.items() if times > 1 or name in classes] == []


def test_each_meaning_of_a_time_is_in_the_vocabulary_and_the_other_way_round() -> None:
    assert dates._RULES.keys() == TOLD["time"].keys() - {"words", "lists", "unlike", "next_year"}
    assert {*starts._ROLES} == TOLD["beside_a_time"]["role"].keys()


@pytest.mark.parametrize("file", sorted(READING.glob("*.py")), ids=lambda file: file.stem)
def test_no_pattern_is_longer_than_a_line_and_no_function_than_a_page(file: Path) -> None:
    nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    raw = [node.value for node in nodes if isinstance(node, ast.Constant)]
    patterns = [each for each in raw if isinstance(each, str) and "\\" in each]
    parts = [part for each in patterns for part in each.split("|(")]
    assert [each for each in parts if len(each) > LONGEST_PATTERN] == []
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    lengths = {each.name: (each.end_lineno or 0) - each.body[0].lineno for each in functions}
    assert {name for name, length in lengths.items() if length >= LONGEST_FUNCTION} == set()


def test_a_phrase_is_found_with_the_values_of_its_classes() -> None:
    said = dates.Times("Najlepiej 10-15 MARCA 2027!")
    (match,) = [
        each for each in said.heard if len(each.said.get("day", ())) == 2 and "year" in each.said
    ]
    assert (match.name, match.value, match.start, match.end) == ("day", "month", 1, 6)
    assert match.said == {"day": [10, 15], "until_day": ["yes"], "month": [3], "year": [2027]}
    assert " ".join(each.word for each in said.tokens) == "najlepiej 10 - 15 marca 2027 !"
