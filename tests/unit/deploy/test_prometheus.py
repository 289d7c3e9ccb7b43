"""The alert rules: what they ask for exists; each was seen to fire, and to be silent."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.up.environment import ROOT
from libs.common import beside
from tests.support import checkers
from tests.support.promises import promises
from tests.support.promql import PROMETHEUS, faults, known

TABLE = beside.toml(__file__)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_rule_uses_existing_metrics_has_a_description_and_a_test(
    rule: dict[str, Any],
) -> None:
    assert list(faults(rule["expr"])) == []
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["alert"] in (PROMETHEUS / "rules_test.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("expression", "fault"), TABLE["unknown"])
def test_an_expression_with_an_unknown_metric_is_reported(expression: str, fault: str) -> None:
    assert list(faults(expression)) == [fault]


def test_no_metric_of_ours_has_a_label_that_prometheus_puts_aside_for_its_own() -> None:
    assert [name for name, labels in known().items() if {"job", "instance"} & {*labels}] == []


def test_each_rule_has_a_runbook_of_its_name_and_the_list_names_all() -> None:
    folder = PROMETHEUS.parents[1] / "docs" / "runbooks"
    listed = re.findall(
        r"^\|(?: `(\w+)`)? \|.*\| \[([a-z-]+)\]\(\2\.md\) \|$",
        (folder / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    pages = {page.stem for page in folder.glob("*.md")} - {"README"}
    assert sorted(page for _, page in listed) == sorted(pages)
    urls = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules()}
    assert urls == {rule: f"docs/runbooks/{page}.md" for rule, page in listed if rule}
    for rule, url in urls.items():
        title = (PROMETHEUS.parents[1] / url).read_text(encoding="utf-8").splitlines()[0]
        assert re.match(rf"# {rule}:", title), url
        assert Path(url).stem == re.sub(r"(?<!^)(?=[A-Z])", "-", rule).lower()


def test_the_drill_quotes_what_the_rules_say() -> None:
    summaries = {rule["alert"]: rule["annotations"]["summary"] for rule in rules()}
    page = (ROOT / "docs" / "drill.md").read_text(encoding="utf-8")
    quotes = re.findall(r"`([A-Z]\w+): ([^`]+)`", page)
    assert quotes
    for rule, quoted in quotes:
        fixed = re.split(r"\{\{.*\}\}", summaries[rule])  # from the first value to the last
        assert re.fullmatch(".+".join(map(re.escape, fixed)), quoted), rule


def test_the_table_of_metrics_names_every_promise_and_rule() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## What shows a promise")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith(("| P", "| every"))]
    shown = [f"| {name}" for name in promises() if name not in {"P10", "P17"}]
    assert [row[0] for row in rows] == [*shown, "| every queue"]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[1])} <= known().keys()
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row[2])}
    assert told == {rule["alert"] for rule in rules()}


def test_each_rule_fires_when_it_should_and_is_silent_when_not() -> None:
    checkers.require("promtool")
    done = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
