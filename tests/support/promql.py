"""What an expression of Prometheus asks for, and what there is to be asked for."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from http import HTTPStatus
from importlib import import_module
from typing import Any, get_args

import prometheus_client
import yaml

from deploy.inspection.rabbitmq import configured, expected
from deploy.up.environment import EXAMPLE_CONFIG, ROOT, SERVICES
from libs.common import beside
from services.alerts.rules.delivery import BreakerState
from services.alerts.store.cases import queries as case_queries
from services.alerts.upkeep import ledger_check
from services.followups.inbox.acting import Outcome
from services.followups.rules.sequence import STATES
from services.gateway.pages import docs

PROMETHEUS = ROOT / "deploy" / "prometheus"
_TABLE = beside.toml(__file__)
_OTHERS = {name: tuple(labels) for name, labels in _TABLE["others"].items()}
PATRONI = tuple(name for name in _OTHERS if name.startswith("patroni_"))
_LANGUAGE = {"or", "and", "unless", "by", "without", "on", "ignoring", "Inf"}
_STRING = r'"(?:[^"\\]|\\.)*"'
_WORD = re.compile(
    rf"(?P<name>[a-zA-Z_:][\w:]*)\s*(?:\{{(?P<matchers>(?:[^}}\"]|{_STRING})*)\}}|(?P<call>\())?"
)
_MATCHER = re.compile(rf"(?P<label>\w+)\s*(?P<operator>=~|!~|!=|=)\s*(?P<value>{_STRING})")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_right)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple[tuple[str, str, str], ...]
    """Label, operator, value."""


def selectors(expression: str) -> list[Selector]:
    bare = re.sub(r"\[[^]]*\]", " ", _GROUPING.sub(" ", expression))
    return [
        Selector(
            word["name"],
            tuple(
                (each["label"], each["operator"], each["value"][1:-1].replace("\\\\", "\\"))
                for each in _MATCHER.finditer(word["matchers"] or "")
            ),
        )
        for word in _WORD.finditer(bare)
        if not word["call"] and word["name"] not in _LANGUAGE
    ]


def grouped(expression: str) -> set[str]:
    """Return the labels by which it groups."""
    return {
        label.strip()
        for clause in _GROUPING.findall(expression)
        for label in clause.split(",")
        if label.strip()
    }


def known() -> dict[str, tuple[str, ...]]:
    """Each series that there may be, with its labels but for `job` and `instance`."""
    # Whatever a process imports registers its metrics; these hold all of them.
    for name in SERVICES:
        import_module(f"services.{name}.metrics")
    for name in _TABLE["common"]:
        import_module(f"libs.common.{name}")
    found: dict[str, tuple[str, ...]] = dict(_OTHERS)
    for name, collector in prometheus_client.REGISTRY._names_to_collectors.items():
        more = ("le",) if name.endswith("_bucket") else ()
        found[name] = (*getattr(collector, "_labelnames", ()), *more)
    return found


@cache
def queues() -> list[str]:
    """Return every queue of the shipped configuration."""
    return [*expected(configured(EXAMPLE_CONFIG / "alerts.toml")), "alerts.epoch.0"]


@cache
def _told() -> Mapping[tuple[str, str], list[Any] | type[Enum]]:
    """Return what a metric's label may be; only what is told here may be asked for."""
    return {
        ("alerts_breaker_state", "state"): BreakerState,
        **{
            (each, "target"): ["slack", "subscription.1"]
            for each in ("alerts_breaker_state", "alerts_ledger_rows")
        },
        ("alerts_ledger_rows", "state"): list(ledger_check.WATCHED),
        ("alerts_ledger_term", "term"): list(ledger_check.TERMS),
        ("alerts_case_term", "term"): list(case_queries.TERMS),
        ("ALERTS", "alertstate"): ["pending", "firing"],
        ("cache_reads_total", "answer"): ["hit", "miss"],
        ("broker_consumed_total", "outcome"): ["ack", "retry", "dead", "requeue"],
        ("gateway_budget_requests_total", "used"): ["low", "most", "all"],
        ("http_requests_total", "route"): list(docs.load()["paths"]),
        ("followups_mails_total", "outcome"): [*get_args(Outcome), "unreadable"],
        ("followups_ended_total", "status"): [*STATES],
        ("http_requests_total", "status"): [status.value for status in HTTPStatus],
        ("rabbitmq_detailed_queue_messages", "queue"): queues(),
        ("rabbitmq_detailed_queue_consumers", "queue"): queues(),
    }


@cache
def values(metric: str, label: str) -> list[str]:
    """:raises KeyError: nobody has told them yet"""
    if label == "job":
        return [
            job["job_name"]
            for name in ("three-hosts.yml", "patroni.yml")
            for job in yaml.safe_load((PROMETHEUS / name).read_text("utf-8"))["scrape_configs"]
        ]
    told = _told()[metric, label]
    return [str(each.value if isinstance(each, Enum) else each) for each in told]


def faults(expression: str) -> Iterator[str]:
    """Say what it asks for that there is not."""
    existing = known()
    asked = selectors(expression)
    labels: set[str] = {"job", "instance"}
    for selector in asked:
        if selector.metric not in existing:
            yield f"no metric {selector.metric}"
            continue
        labels |= set(existing[selector.metric])
        for label, operator, value in selector.matchers:
            if label not in {"job", "instance", *existing[selector.metric]}:
                yield f"{selector.metric} has no label {label}"
                continue
            there = values(selector.metric, label)
            alternatives = _alternatives(value) if operator in {"=~", "!~"} else [re.escape(value)]
            for each in alternatives:
                if not any(re.fullmatch(each, one) for one in there):
                    yield f"{selector.metric} has never {label} {each}"
    for label in grouped(expression) - labels:
        yield f"nothing has the label {label}"


def _alternatives(pattern: str) -> list[str]:
    """Take `a|b(c|d)` apart into `a` and `b(c|d)`."""
    found, depth = [""], 0
    for character in pattern:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return found
