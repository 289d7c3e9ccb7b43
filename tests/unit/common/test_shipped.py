"""A company's file over the shipped one, and files of before, which are whole."""

import re
from pathlib import Path
from typing import Any

import pytest

from libs.domain import company, forms, shipped
from services.alerts.config import targets
from tests.support.shipped import EXAMPLE, whole
from tests.unit.alerts.test_config import ENV

FILES = [path for path in EXAMPLE.rglob("*") if path.is_file()]


def alerts(folder: Path, more: str) -> targets.Config:
    path = folder / "alerts.toml"
    text = (EXAMPLE / "alerts.toml").read_text(encoding="utf-8")
    text = text.replace("shipped = true", "")
    text = re.sub(r'(?m)^(name = "(?:Jan|Maria).*)', r'\1\nemail = "someone@firma.pl"', text)
    path.write_text(f"{more}\n{text}", encoding="utf-8")
    return targets.load(path, ENV)[0]


def test_a_company_has_little_to_write_and_each_file_says_what_it_is_for() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in FILES}
    assert sum(len(text.splitlines()) for text in texts.values()) <= 120
    assert all("# " in text or "X-WR-CALDESC:" in text for text in texts.values())


def test_only_a_file_that_says_so_is_put_over_the_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "forms.toml"
    path.write_text("[forms]\n", encoding="utf-8")
    assert forms.load(path) == {}
    path.write_text("shipped = true\n[forms]\ncontact = false\n", encoding="utf-8")
    assert forms.load(path) == {}
    path.write_text("shipped = true\n[targets]\nsms = false\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="targets: is not known"):
        forms.load(path)
    path.write_text('shipped = "yes"\n', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"forms\.toml:1: shipped: is not known"):
        forms.load(path)


def asked(configured: targets.Config) -> dict[str, list[str]]:
    return {name: [step.to for step in each.chain] for name, each in configured.answers.items()}


@pytest.mark.parametrize("name", ["monday", "sms", "slack", "webhook"])
def test_a_target_that_is_left_out_is_asked_nowhere(tmp_path: Path, name: str) -> None:
    ours = alerts(tmp_path, f"shipped = true\n[targets]\n{name} = false\n")
    other = {"sms": "email", "slack": "email"}.get(name, "")
    assert ours.targets.keys() == whole("alerts")["targets"].keys() - {name}
    for event, routed in whole("alerts")["routes"].items():
        instead = (other if each == name else each for each in routed)
        assert ours.routes[event] == tuple(filter(None, dict.fromkeys(instead)))
    assert name not in {to for chain in asked(ours).values() for to in chain}
    assert all(asked(ours).values())


def test_an_option_is_changed_by_name_and_a_fault_has_its_line(tmp_path: Path) -> None:
    ours = alerts(
        tmp_path, 'shipped = true\n[targets.slack]\nrate_per_minute = 60\n[routes]\nown = ["slack"]'
    )
    assert (ours.targets["slack"].rate_per_minute, ours.targets["slack"].fallback) == (60, "email")
    assert ours.route("own", None) == ("slack",)
    with pytest.raises(SystemExit, match=r"alerts\.toml:3: targets\.slack\.colour: is not"):
        alerts(tmp_path, 'shipped = true\n[targets.slack]\ncolour = "red"')
    with pytest.raises(SystemExit, match="none for escalation: no one would be notified"):
        alerts(tmp_path, "shipped = true\n[routes]\nescalation = false")


def test_what_is_shipped_has_no_company_in_it() -> None:
    for file in shipped.FOLDER.glob("*.toml"):
        text = file.read_text(encoding="utf-8")
        named: Any = company.load(EXAMPLE / "company.toml").company
        assert named.name not in text
        assert ".example" not in text
