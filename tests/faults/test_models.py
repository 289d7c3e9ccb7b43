"""The models of docs/models, checked exhaustively by spin: each rule of the protocols is needed.

The budget is how much may go wrong in one run: deaths, cuts, lost replies, early reconciliations.
Without any one rule the model must fail, or it says nothing about that rule.
"""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support import checkers
from tests.support.stack import ROOT

MODELS = ROOT / "docs" / "models"
COMPILE = ("gcc", "-w", "-DSAFETY", "-DVECTORSZ=2048", "-o", "pan", "pan.c")
SEARCH = ("./pan", "-n", "-E", "-m400000")  # -E: no process ends, it has nothing left to do

CHECKS = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))
RULES, SMALL, BROKEN = CHECKS["rules"], CHECKS["small"], CHECKS["broken"]
Row = dict[str, Any]
FULL = pytest.mark.faults  # the greater budget, some minutes


def each(title: str) -> pytest.MarkDecorator:
    """Let a test have each search of this title."""

    def said(row: dict[str, Any]) -> str:
        return " ".join(str(word) for value in row.values() for word in _words(value))

    rows = CHECKS[title]
    marked = [pytest.param(row, marks=FULL if row.pop("full", False) else ()) for row in rows]
    return pytest.mark.parametrize("row", marked, ids=list(map(said, rows)))


def _words(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check(folder: Path, model: str, *flags: str, long: bool = False) -> str:
    """Search every state; the assertion that one violates, or nothing.

    :param long: worth the compiler's time to be quick
    :raises AssertionError: the search was not exhaustive
    """
    checkers.require("spin", "gcc")
    spin = ("spin", "-a", *(f"-D{flag}" for flag in flags), str(MODELS / f"{model}.pml"))
    for command in (spin, (*COMPILE, "-O2" if long else "-O0")):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    found = subprocess.run(SEARCH, cwd=folder, check=True, capture_output=True, text=True).stdout
    violated = re.search(r"pan:1: (.*)", found)
    if violated is None:
        assert "errors: 0" in found, found
        assert "Search not completed" not in found, found
        assert "max search depth too small" not in found, found
        return ""
    return violated[1]


def without(model: str, *rules: str) -> tuple[str, ...]:
    assert set(rules) <= {*RULES[model]}, "misspelt"
    return tuple(rule for rule in RULES[model] if rule not in rules)


@pytest.mark.promise("P1", "P3", "P4")
@each("whole")
def test_with_every_rule_no_state_breaks_a_promise(tmp_path: Path, row: Row) -> None:
    model = row["model"]
    assert check(tmp_path, model, *RULES[model], *row["more"], long=True) == ""


@pytest.mark.parametrize("second", ["WINDOW", "NEXT", "CAP"])
def test_only_one_of_two_hand_overs_of_a_step_or_a_day_is_sent(tmp_path: Path, second: str) -> None:
    more = ("NM=2", "K=2", "F0=0", "DLXLOSS", second)
    rules = without("permit_and_send", "NM=1")
    assert check(tmp_path, "permit_and_send", *rules, *more, long=True) == ""


# A 200 by returned permits alone; a proxy that can cut an attempt.
@pytest.mark.parametrize("instead", ["STRICT", "FENCE"])
@pytest.mark.parametrize("budget", ["F0=0", pytest.param("F0=1", marks=FULL)])
def test_without_the_quarantine_no_time_need_be_assumed(
    tmp_path: Path, instead: str, budget: str
) -> None:
    rules = without("permit_and_send", "BOUNDED")
    assert check(tmp_path, "permit_and_send", *rules, "DLXLOSS", budget, instead, long=True) == ""


@pytest.mark.control("P3", "P4")
@each("mail")
def test_a_mail_s_protocol_without_one_of_its_rules_breaks_a_promise(
    tmp_path: Path, row: Row
) -> None:
    rules = without("permit_and_send", *row["left_out"])
    found = check(tmp_path, "permit_and_send", *rules, *row["more"])
    assert re.search(BROKEN[row["broken"]], found)


@pytest.mark.control("P1")
@each("alert")
def test_an_alert_s_protocol_without_one_of_its_rules_breaks_a_promise(
    tmp_path: Path, row: Row
) -> None:
    rules = without("alert_ledger", *row["left_out"])
    found = check(tmp_path, "alert_ledger", *rules, *row["more"])
    assert re.search(BROKEN[row["broken"]], found)


@pytest.mark.control("P4")
@each("erasure")
def test_an_erasure_s_protocol_without_one_of_its_rules_breaks_a_promise(
    tmp_path: Path, row: Row
) -> None:
    found = check(tmp_path, "erasure", *without("erasure", row["left_out"]), f"F0={row['budget']}")
    assert re.search(BROKEN[row["broken"]], found)


@pytest.mark.promise("P9")
@each("whole_case")
def test_with_every_rule_a_case_is_answered_or_its_whole_chain_was_sent(
    tmp_path: Path, row: Row
) -> None:
    assert check(tmp_path, "answer", *SMALL[row["small"]], *row["more"], long=True) == ""


@pytest.mark.control("P9")
@each("case")
def test_a_case_s_protocol_without_one_of_its_rules_breaks_its_promise(
    tmp_path: Path, row: Row
) -> None:
    left_out = row["left_out"]
    ends = {"END": ("RES",), "DUE": ("FORGET",)}.get(left_out, ())
    flags = (f"NO_{left_out}", f"F0={row['budget']}", *SMALL[row["small"]], *ends)
    assert re.search(BROKEN[row["broken"]], check(tmp_path, "answer", *flags))


def test_a_place_shows_in_the_end_how_its_case_stands(tmp_path: Path) -> None:
    assert check(tmp_path, "answer", "TELL", "F0=3") == ""


@pytest.mark.parametrize("left_out", ["NOW", "TCAS", "REARM", "STICKY", "BOUNDED"])
def test_the_update_of_a_place_without_one_of_its_rules_leaves_it_outdated(
    tmp_path: Path, left_out: str
) -> None:
    flags = ("TELL", "F0=2", f"NO_{left_out}")
    assert re.search(BROKEN["PLACE_OUTDATED"], check(tmp_path, "answer", *flags))


@pytest.mark.promise("P12")
def test_with_every_rule_a_revoked_key_opens_nothing_after_the_200(tmp_path: Path) -> None:
    assert check(tmp_path, "revocation", "F0=3", long=True) == ""


@pytest.mark.control("P12")
@each("revocation")
def test_a_revocation_without_one_of_its_rules_leaves_a_key_that_opens(
    tmp_path: Path, row: Row
) -> None:
    found = check(tmp_path, "revocation", f"NO_{row['left_out']}", f"F0={row['budget']}")
    assert re.search(BROKEN["STILL_OPENS"], found)
