"""The models of docs/models, checked exhaustively by spin: each rule of the protocols is needed.

The budget is how much may go wrong in one run: deaths, cuts, lost replies, early reconciliations.
Without any one rule the model must fail, or it says nothing about that rule.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import checkers
from tests.support.stack import ROOT

MODELS = ROOT / "docs" / "models"
COMPILE = ("gcc", "-w", "-DSAFETY", "-DVECTORSZ=2048", "-o", "pan", "pan.c")
SEARCH = ("./pan", "-n", "-E", "-m400000")  # -E: no process ends, it has nothing left to do

FULL = pytest.mark.faults  # the greater budget, some minutes
RULES = {
    "erasure": ("FIRST", "WRITE_AHEAD", "OUTBOX", "EMPTY", "TOMBSTONE", "LOCK"),
    "alert_ledger": ("FIX_CAS", "FIX_PARK", "RECONCILE", "ORDER=3", "MAX_AGE"),
    "permit_and_send": (
        *("FIX_CAS", "FIX_PID", "FIX_UNK", "FIX_RETOB", "FIX_ACK", "FIX_VER"),
        *("LOCK", "WAIT", "DEADLINE", "BOUNDED", "RECONCILE", "WAIT_GRANT", "AGE", "NM=1"),
        *("NOT_AFTER", "IN_DOUBT", "UNKNOWN", "VOID"),
    ),
}

SMALL = {
    "a fallback": ("NS=1", "NG=1", "FB"),
    "a release": ("NS=1", "NG=2"),
    "two releases": ("NS=1", "NG=3"),
    "two steps": ("NS=2", "NG=1"),
}
"""Of one case, what a search of it covers: steps of its chain, generations, a fallback."""

LOST = {"alert_ledger": r"row\[0\]==0", "permit_and_send": r"row\[0\]>=4"}
UNTRUE_DEAD = r"!\(dead\[0\]\)"
UNEQUAL = r"assertion violated 0 "
AFTER_THE_RECEIPT = r"done_a&&row"
BOTH_LEFT = r"acc\[0\]\+acc\[1\]"
IN_THE_NIGHT = r"closed\[m\]"
UNTRUE_END = r"\|\|\(acc\[0\]==1\)"
LEFT = r"\((outbox|queue)==0\)"
AFTER_THE_200 = r"!\(done200\)"
UNANSWERED = r"gotall"
SILENCED = r"ver>0"
TWO_OWNERS = r"!\(bel\[\(1-p\)\]\)"
OWNER_LOST = r"!\(bel\[.\]\)\|\|\(\(st==2\)"
UNAWARE = r"gave\["
AFTER_THE_ANSWER = r"!\(closed\["
STILL_OPENS = r"!\(\(done200&&\(mem\[g\]==0\)\)\)"
NEVER_SENT = r"row\[\(\(gen"
OPEN_FOR_EVER = r"\(st!=1\)"
REVIVED = r"!\(ended\)"
OUTDATED = r"stale\[i\]"
PLACE_OUTDATED = r"\(place==ver\)"


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
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("alert_ledger", ("F0=2", "DLXLOSS", "BYHAND")),
        ("alert_ledger", ("F0=1", "DLXLOSS", "BYHAND", "HELD")),
        ("alert_ledger", ("F0=0", "DLXLOSS", "BYHAND", "HELD", "NM=2", "FALLBACK")),
        ("erasure", ("F0=3",)),
        ("permit_and_send", ("F0=1", "DLXLOSS")),
        ("permit_and_send", ("F0=0", "DLXLOSS", "REOPT")),
        ("permit_and_send", ("F0=0", "DLXLOSS", "LATE")),
        ("permit_and_send", ("F0=0", "DLXLOSS", "OPTIN")),
        pytest.param("alert_ledger", ("F0=1", "DLXLOSS", "BYHAND", "NM=2"), marks=FULL),
        pytest.param("alert_ledger", ("F0=3", "DLXLOSS", "BYHAND"), marks=FULL),
        pytest.param("alert_ledger", ("F0=2", "DLXLOSS", "BYHAND", "HELD"), marks=FULL),
        pytest.param("permit_and_send", ("F0=2", "DLXLOSS"), marks=FULL),
        pytest.param("permit_and_send", ("F0=1", "DLXLOSS", "REOPT"), marks=FULL),
        pytest.param("permit_and_send", ("F0=1", "DLXLOSS", "LATE"), marks=FULL),
        pytest.param("permit_and_send", ("F0=1", "DLXLOSS", "OPTIN"), marks=FULL),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_with_every_rule_no_state_breaks_a_promise(
    tmp_path: Path, model: str, more: tuple[str, ...]
) -> None:
    assert check(tmp_path, model, *RULES[model], *more, long=True) == ""


@pytest.mark.parametrize("second", ["WINDOW", "NEXT"])
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
@pytest.mark.parametrize(
    ("left_out", "more", "broken"),
    [
        (["FIX_CAS"], ["F0=1"], AFTER_THE_200),
        (["FIX_PID"], ["F0=0"], AFTER_THE_200),
        (["FIX_UNK"], ["F0=1"], AFTER_THE_200),
        (["FIX_RETOB", "BOUNDED"], ["F0=1", "STRICT"], UNANSWERED),
        (["FIX_ACK", "RECONCILE"], ["F0=1"], LOST["permit_and_send"]),
        (["FIX_VER"], ["F0=0", "REOPT"], AFTER_THE_200),
        (["LOCK"], ["F0=0"], AFTER_THE_200),
        (["WAIT"], ["F0=1"], AFTER_THE_200),
        (["DEADLINE"], ["F0=0"], AFTER_THE_200),
        (["BOUNDED"], ["F0=0"], AFTER_THE_200),
        (["RECONCILE"], ["F0=1", "DLXLOSS"], LOST["permit_and_send"]),
        (["WAIT_GRANT"], ["F0=0", "LATE"], SILENCED),
        (["AGE"], ["F0=0", "LATE"], AFTER_THE_200),
        (["VOID"], ["F0=0", "OPTIN"], AFTER_THE_200),
        (["NM=1", "NOT_AFTER"], ["F0=0", "NM=2", "K=2", "WINDOW"], IN_THE_NIGHT),
        (["NM=1", "IN_DOUBT"], ["F0=0", "NM=2", "K=2", "WINDOW"], UNTRUE_END),
        (["NM=1", "UNKNOWN"], ["F0=0", "NM=2", "K=2", "NEXT"], BOTH_LEFT),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mail_s_protocol_without_one_of_its_rules_breaks_a_promise(
    tmp_path: Path, left_out: list[str], more: list[str], broken: str
) -> None:
    rules = without("permit_and_send", *left_out)
    assert re.search(broken, check(tmp_path, "permit_and_send", *rules, *more))


@pytest.mark.control("P1")
@pytest.mark.parametrize(
    ("left_out", "more", "broken"),
    [
        (["ORDER=3"], ["F0=1", "ORDER=1"], LOST["alert_ledger"]),
        (["ORDER=3"], ["F0=1", "ORDER=2"], UNTRUE_DEAD),
        (["ORDER=3", "RECONCILE"], ["F0=1", "ORDER=4"], LOST["alert_ledger"]),
        (["FIX_CAS"], ["F0=1"], UNEQUAL),
        (["FIX_PARK", "RECONCILE"], ["F0=1"], LOST["alert_ledger"]),
        (["RECONCILE"], ["F0=1", "DLXLOSS"], LOST["alert_ledger"]),
        (["MAX_AGE"], ["F0=0", "HELD"], LOST["alert_ledger"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_an_alert_s_protocol_without_one_of_its_rules_breaks_a_promise(
    tmp_path: Path, left_out: list[str], more: list[str], broken: str
) -> None:
    rules = without("alert_ledger", *left_out)
    assert re.search(broken, check(tmp_path, "alert_ledger", *rules, *more))


@pytest.mark.control("P4")
@pytest.mark.parametrize(
    ("left_out", "budget", "broken"),
    [
        ("FIRST", 0, AFTER_THE_RECEIPT),
        ("WRITE_AHEAD", 1, AFTER_THE_RECEIPT),
        ("OUTBOX", 0, LEFT),
        ("EMPTY", 0, LEFT),
        ("TOMBSTONE", 0, AFTER_THE_RECEIPT),
        ("LOCK", 0, AFTER_THE_RECEIPT),
    ],
)
def test_an_erasure_s_protocol_without_one_of_its_rules_breaks_a_promise(
    tmp_path: Path, left_out: str, budget: int, broken: str
) -> None:
    rules = without("erasure", left_out)
    assert re.search(broken, check(tmp_path, "erasure", *rules, f"F0={budget}"))


@pytest.mark.promise("P9")
@pytest.mark.parametrize(
    ("small", "more"),
    [
        ("a fallback", ("F0=1", "RES", "MON")),
        ("a release", ("F0=1", "RES", "MON")),
        ("a release", ("F0=0", "RES", "MON", "FORGET")),
        ("two steps", ("F0=0", "RES", "MON")),
        pytest.param("a fallback", ("F0=2", "RES", "MON"), marks=FULL),
        pytest.param("two releases", ("F0=1",), marks=FULL),
        pytest.param("a release", ("F0=1", "RES", "MON", "FORGET"), marks=FULL),
        pytest.param("two releases", ("F0=0", "FORGET"), marks=FULL),
        pytest.param("two steps", ("F0=1", "RES", "MON"), marks=FULL),
        pytest.param("two steps", ("F0=1", "RES", "MON", "ALERT"), marks=FULL),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_with_every_rule_a_case_is_answered_or_its_whole_chain_was_sent(
    tmp_path: Path, small: str, more: tuple[str, ...]
) -> None:
    assert check(tmp_path, "answer", *SMALL[small], *more, long=True) == ""


@pytest.mark.control("P9")
@pytest.mark.parametrize(
    ("left_out", "budget", "small", "broken"),
    [
        ("LOCK", 0, "a fallback", TWO_OWNERS),
        ("COMMIT", 0, "a fallback", OWNER_LOST),
        ("KEY", 1, "a release", UNAWARE),
        ("TAKE", 0, "a fallback", AFTER_THE_ANSWER),
        ("MARK", 0, "a fallback", AFTER_THE_ANSWER),
        ("CREATE", 1, "a fallback", AFTER_THE_ANSWER),
        ("ROW", 0, "a fallback", AFTER_THE_ANSWER),
        ("ONE", 0, "a fallback", NEVER_SENT),
        ("ARM", 0, "a release", OPEN_FOR_EVER),
        ("OWN", 1, "two releases", OWNER_LOST),
        ("GEN", 0, "a release", AFTER_THE_ANSWER),
        ("CAS", 1, "a fallback", OUTDATED),
        ("WAIT", 0, "a fallback", OUTDATED),
        ("LATE", 1, "a fallback", OUTDATED),
        ("RENDER", 0, "a fallback", OUTDATED),
        ("TOLD", 0, "a fallback", OUTDATED),
        ("BOUNDED", 2, "a fallback", OUTDATED),
        ("END", 0, "two steps", REVIVED),
        ("DUE", 0, "two releases", OWNER_LOST),
    ],
)
def test_a_case_s_protocol_without_one_of_its_rules_breaks_its_promise(
    tmp_path: Path, left_out: str, budget: int, small: str, broken: str
) -> None:
    ends = {"END": ("RES",), "DUE": ("FORGET",)}.get(left_out, ())
    flags = (f"NO_{left_out}", f"F0={budget}", *SMALL[small], *ends)
    assert re.search(broken, check(tmp_path, "answer", *flags))


def test_a_place_shows_in_the_end_how_its_case_stands(tmp_path: Path) -> None:
    assert check(tmp_path, "answer", "TELL", "F0=3") == ""


@pytest.mark.parametrize("left_out", ["NOW", "TCAS", "REARM", "STICKY", "BOUNDED"])
def test_the_update_of_a_place_without_one_of_its_rules_leaves_it_outdated(
    tmp_path: Path, left_out: str
) -> None:
    flags = ("TELL", "F0=2", f"NO_{left_out}")
    assert re.search(PLACE_OUTDATED, check(tmp_path, "answer", *flags))


@pytest.mark.promise("P12")
def test_with_every_rule_a_revoked_key_opens_nothing_after_the_200(tmp_path: Path) -> None:
    assert check(tmp_path, "revocation", "F0=3", long=True) == ""


@pytest.mark.control("P12")
@pytest.mark.parametrize(
    ("left_out", "budget"),
    [
        ("FIRST", 0),
        ("NOTED", 0),
        ("MEMORY", 0),
        ("FILE", 1),
        ("NEWER", 1),
        ("LAST", 0),
        ("INSTANCE", 0),
        ("AGE", 1),
        ("YOUNG", 1),
        ("AWAY", 1),
    ],
)
def test_a_revocation_without_one_of_its_rules_leaves_a_key_that_opens(
    tmp_path: Path, left_out: str, budget: int
) -> None:
    found = check(tmp_path, "revocation", f"NO_{left_out}", f"F0={budget}")
    assert re.search(STILL_OPENS, found)
