"""The dashboard, as far as it can be checked without Grafana: its shape, and what it asks for."""

import json
from typing import Any

import pytest
import yaml

from deploy.up.environment import ROOT
from tests.support.promql import faults, known, selectors

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "ostoja.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_asks_the_provisioned_prometheus_for_what_exists(panel: dict[str, Any]) -> None:
    (source,) = yaml.safe_load((GRAFANA / "datasources.yml").read_text())["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for asked in (panel, *panel["targets"]):
        assert asked["datasource"] == wanted
    for target in panel["targets"]:
        assert list(faults(target["expr"])) == []


def test_every_promise_and_every_rule_has_its_metric_on_it() -> None:
    shown = {selector.metric for asked in expressions() for selector in selectors(asked)}
    assert shown <= known().keys()
    groups = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"]
    told = {
        selector.metric
        for group in groups
        for rule in group["rules"]
        for selector in selectors(rule["expr"])
    }
    assert told <= shown
    for promise in {f"P{number}" for number in range(1, 10)}:
        assert promise in json.dumps(DASHBOARD)
