"""The speed and memory of one process that verifies the trail."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.consent.rows import fill
from bench.consent.system import Consent, consent
from bench.lab import ROOT, Lab
from bench.measure import Run, cpu_seconds, interleaved, spread
from bench.part import Part, table

ROWS = 1_000_000


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres)
    with consent(lab) as empty, consent(lab) as system:
        fill(system, ROWS)
        return interleaved({f"{ROWS:,}": partial(verified, system, empty)}, lab.rounds)


def verified(system: Consent, empty: Consent) -> Run:
    """Run the command, as an auditor would; an empty trail measures its start-up."""
    start, took = _command(empty), _command(system)
    rows = took.rows
    return {
        "rate": rows / (took.seconds - start.seconds),
        "cpu": 1_000_000 * (took.cpu - start.cpu) / rows,
        "servers": 1_000_000 * took.servers / rows,
        "peak": took.peak,
        "start": start.seconds,
    }


@dataclass(frozen=True)
class Took:
    rows: int
    seconds: float
    cpu: float
    servers: float
    peak: float
    """MiB."""


def _command(system: Consent) -> Took:
    postgres = system.lab.postgres.pid or 0
    before = cpu_seconds(postgres)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "services.consent", "verify"],
        env={**os.environ, **system.settings},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    with process.stdout:
        said = json.loads(process.stdout.read())
    _, _, used = os.wait4(process.pid, 0)
    if not said["ok"]:
        raise RuntimeError(f"not verified: {said}")
    return Took(
        rows=said["rows"],
        seconds=time.monotonic() - began,
        cpu=used.ru_utime + used.ru_stime,
        servers=cpu_seconds(postgres) - before,
        peak=used.ru_maxrss / 1024,
    )


def rows(runs: Any) -> list[tuple[str, ...]]:
    return [
        (
            title,
            spread(own, "rate"),
            spread(own, "cpu", ".1f"),
            spread(own, "servers", ".1f"),
            spread(own, "peak"),
            spread(own, "start", ".1f"),
        )
        for title, own in runs.items()
    ]


HEAD = (
    "rows",
    "rows/s",
    "process, CPU s per million",
    "PostgreSQL, CPU s per million",
    "process, largest memory, MiB",
    "start of the process, s",
)


def render(runs: Any) -> str:
    return f"""\
### Verify

{table(HEAD, rows(runs))}

`python -m services.consent verify`, without its start-up. Rows have the length that consent writes.
The process reads a thousand rows at a time and then hashes them. It and the database take turns, so
both columns together bound the rate."""


VERIFY = Part("verify", run, render)
