"""The goals that were set for these figures, beside what was measured last."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.alerts import accept, drain, shipped
from bench.consent import requests, size
from bench.followups import poll, turns
from bench.gateway import proxy
from bench.measure import median, percentile, ratio
from bench.part import table

INTAKE = list(drain.OURS)[1]


@dataclass(frozen=True)
class Goal:
    what: str
    of: str
    """The file of figures: <what>.<part>."""
    found: Callable[[Any], float]
    least: float | None = None
    most: float | None = None
    form: str = ".2f"
    bound: str = ""
    """What bounds it, for the page."""

    def row(self, figures: Any) -> tuple[str, str, str, str]:
        value = self.found(figures)
        if self.least is not None:
            wanted, reached = f"≥ {self.least:{self.form}}", value >= self.least
        else:
            wanted, reached = f"≤ {self.most:{self.form}}", value <= (self.most or 0)
        verdict = "reached" if reached else f"**not reached**: {self.bound}"
        return self.what, wanted, f"{value:{self.form}}", verdict


def _gateway(connections: int) -> Callable[[Any], float]:
    def found(figures: Any) -> float:
        runs = figures["runs"][str(connections)]
        return ratio(runs[proxy.OURS], runs[proxy.BARE], "cpu")

    return found


def _drain(of: str, before: float) -> Callable[[Any], float]:
    """Return the CPU to that of the floor, as a part of what that was before batches."""

    def found(figures: Any) -> float:
        runs = figures["runs"]
        return ratio(runs[INTAKE], runs[drain.FLOOR], of) / before

    return found


def _shipped(latency: int) -> Callable[[Any], float]:
    def found(figures: Any) -> float:
        own = figures[f"{latency} ms, {shipped.CONCURRENCY}"]
        return ratio(own, [{"rate": run["allowed"]} for run in own], "rate")

    return found


def _poll(figures: Any) -> float:
    looks = figures["looks"]
    return max(
        percentile(looks[f"{poll.FULL}, {due:,} due"], 0.5)
        / percentile(looks[f"{poll.EMPTY}, {due:,} due"], 0.5)
        for due in (0, poll.DUE_NOW)
    )


GOALS = (
    Goal(
        "accept → delivered, to the naive form",
        "alerts.delivered",
        lambda figures: ratio(figures[accept.OURS], figures[accept.NAIVE], "rate"),
        least=2.6,
        bound="the CPU of gateway and alerts: each alert passes RabbitMQ twice and is claimed",
    ),
    Goal(
        "from `alerts.intake`, to the raw floor",
        "alerts.drain",
        lambda figures: ratio(figures["runs"][INTAKE], figures["runs"][drain.FLOOR], "rate"),
        least=0.45,
        bound="the worker's CPU: each alert passes RabbitMQ twice and is inserted and claimed",
    ),
    *(
        Goal(
            f"from `alerts.intake`, CPU of {of}, to that of commit 3c39c30",
            "alerts.drain",
            _drain(name, before),
            most=most,
        )
        for of, name, before, most in (
            ("the worker", "cpu", 2.80, 0.65),
            ("RabbitMQ and PostgreSQL", "servers", 3.31, 0.7),
        )
    ),
    *(
        Goal(
            f"{shipped.CONCURRENCY} at a time to a target that answers after {latency} ms, "
            "to what its latency allows",
            "alerts.shipped",
            _shipped(latency),
            least=0.9,
            bound="a slot is held while its row is claimed, which takes a commit",
        )
        for latency in shipped.LATENCIES
        if latency
    ),
    *(
        Goal(
            f"gateway over {connections} connections, CPU to that of a bare aiohttp proxy",
            "gateway.proxy",
            _gateway(connections),
            most=most,
            bound="aiohttp's own server, which both use; see the profile in that section",
        )
        for connections, most in ((64, 0.65), (16, 0.75))
    ),
    Goal(
        "status reads, to a constant",
        "consent.status",
        lambda figures: ratio(figures[requests.LOOKED_UP], figures[requests.FIXED], "rate"),
        least=0.8,
        bound="the CPU of consent, which looks the address up",
    ),
    Goal(
        "a chat turn, CPU seconds per 1,000",
        "followups.turns",
        lambda figures: median(figures[turns.OURS], "cpu"),
        most=1.25,
        bound="followups' CPU: the statements of a turn, and what is understood of its text",
    ),
    Goal(
        "a poll with ten million past steps, to one with none",
        "followups.poll",
        _poll,
        most=1.1,
        bound="not profiled",
    ),
    Goal(
        "verify of ten million rows of the trail, rows a second",
        "consent.size",
        lambda figures: median(figures["verify"][f"{size.ROWS:,}"], "rate"),
        least=100_000,
        form=",.0f",
        bound="the process and PostgreSQL take turns",
    ),
    Goal(
        "its memory, to that of one million rows",
        "consent.size",
        lambda figures: (
            median(figures["verify"][f"{size.ROWS:,}"], "peak")
            / median(figures["verify"][f"{size.SHORT:,}"], "peak")
        ),
        most=1.05,
        bound="not profiled",
    ),
)


def render(measured: Mapping[str, Any]) -> str:
    """:param measured: the figures of each part that has any"""
    rows = [
        goal.row(measured[goal.of])
        if goal.of in measured
        else (goal.what, "", "", "**not measured**")
        for goal in GOALS
    ]
    return f"""\
## Goals

{table(("", "goal", "measured", ""), rows)}

A ratio is of rates, unless CPU or memory is named. Each figure is from its section below, whose
last line says when, and of which commit, it was taken."""
