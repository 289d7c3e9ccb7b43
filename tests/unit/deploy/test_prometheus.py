"""The alert rules: what they ask for exists; each was seen to fire, and to be silent."""

import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml

from tests.support import checkers

FOLDER = Path(__file__).parents[3] / "deploy" / "prometheus"
# Whatever a process imports registers its metrics; these hold all of them.
SOURCES = (
    *(f"services.{name}.metrics" for name in ("gateway", "alerts", "consent", "followups")),
    *(
        f"libs.common.{name}"
        for name in ("broker", "cache", "consume", "outbox", "periodic", "web")
    ),
)
WORDS = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?=[\[{\s)]|$)")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def known() -> set[str]:
    for source in SOURCES:
        import_module(source)
    families = prometheus_client.REGISTRY.collect()
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_the_rules_ask_for_metrics_that_exist() -> None:
    language = {"by", "min", "max", "sum", "rate", "increase", "up"}
    labels = {"target"}
    asked = {
        word
        for rule in rules()
        for word in WORDS.findall(re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", rule["expr"]))
    }
    assert asked - language - labels <= known()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_rule_says_what_it_means_and_is_tested(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["alert"] in (FOLDER / "rules_test.yml").read_text(encoding="utf-8")


def test_each_rule_fires_when_it_should_and_is_silent_when_not() -> None:
    checkers.require("promtool")
    done = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
