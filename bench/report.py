"""Figures → bench/results/<what>.<part>.json → docs/benchmarks.md."""

import json
import os
import pkgutil
import platform
import subprocess
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from string import Template
from typing import Any

import bench
from bench import goals
from bench.part import Part

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
WHATS = ("gateway", "alerts", "consent", "followups", "chat")  # in the order of the page

HEAD = """\
# Benchmarks

`make bench [WHAT=gateway|alerts|consent|followups|chat]` generates this page from the figures in
`bench/results/`. The machine is small and shared: trust **ratios within a round** and **CPU seconds
per 1,000** (user and system, of the process tree), not absolute rates. A figure is the median of
its rounds, with the smallest and the largest in brackets. The cases of a round run one after the
other, and each round begins with a different case. A ratio is the median of the ratios within each
round. Unless a row says otherwise, queues are durable quorum queues with persistent messages, and
PostgreSQL commits with fsync.
"""


def found() -> list[str]:
    """Return the benchmarks that exist."""
    names = {module.name for module in pkgutil.iter_modules(bench.__path__)}
    return [what for what in WHATS if what in names]


def parts(what: str) -> tuple[Part, ...]:
    found: tuple[Part, ...] = import_module(f"bench.{what}").PARTS
    return found


def keep(what: str, part: Part, figures: Any, load: float, seconds: float) -> None:
    """:param load: before the run; `seconds` is how long it took"""
    RESULTS.mkdir(exist_ok=True)
    under = {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "load": round(load, 2),
        "seconds": round(seconds),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": _commit(),
    }
    document = {"under": under, "parameters": dict(part.parameters), "figures": figures}
    _path(what, part).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write() -> None:
    """Write the page; parts that were not measured this time keep their figures."""
    documents = {
        f"{what}.{part.name}": json.loads(_path(what, part).read_text(encoding="utf-8"))
        for what in found()
        for part in parts(what)
        if _path(what, part).exists()
    }
    figures = {name: document["figures"] for name, document in documents.items()}
    sections = [HEAD, goals.render(figures) + "\n"]
    for what in found():
        module = import_module(f"bench.{what}")
        measured = [part for part in module.PARTS if f"{what}.{part.name}" in documents]
        if measured:
            sections.append(f"## {module.TITLE}\n")
        for part in measured:
            document = documents[f"{what}.{part.name}"]
            sections.append(_section(part, document) + "\n")
            sections.append(_under(document["under"]) + "\n")
    PAGE.write_text("\n".join(sections), encoding="utf-8")


def _section(part: Part, document: Any) -> str:
    text = part.render(document["figures"])
    if not part.parameters:
        return text
    measured = {name: f"{value:,}" for name, value in document["parameters"].items()}
    return Template(text).substitute(measured)


def _under(under: Any) -> str:
    took = f", {under['seconds']} s" if "seconds" in under else ""
    return (
        f"<sub>{under['at']}, commit {under['commit']}, {under['cores']} cores, Python "
        f"{under['python']}, load before the run {under['load']}{took}.</sub>"
    )


def _path(what: str, part: Part) -> Path:
    return RESULTS / f"{what}.{part.name}.json"


def _commit() -> str:
    """Return the commit, marked if anything but the figures and their page has changed since."""
    figures = (":!bench/results", ":!docs/benchmarks*")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *figures)
    return (_git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def _git(*command: str) -> str:
    argv = ["git", "-C", str(ROOT), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
