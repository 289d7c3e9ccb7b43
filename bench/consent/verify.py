"""How fast one process verifies the trail, and in how much memory."""

import json
import os
import subprocess
import sys
import time
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
    with consent(lab) as system:
        fill(system, ROWS)
        return interleaved({f"{ROWS:,}": partial(verified, system, ROWS)}, lab.rounds)


def verified(system: Consent, rows: int) -> Run:
    """Run the command, as an auditor would; the start of Python is in its time."""
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
    seconds = time.monotonic() - began
    if not said["ok"] or said["rows"] < rows:
        raise RuntimeError(f"not verified: {said}")
    return {
        "rate": said["rows"] / seconds,
        "cpu": 1_000_000 * (used.ru_utime + used.ru_stime) / said["rows"],
        "servers": 1_000_000 * (cpu_seconds(postgres) - before) / said["rows"],
        "peak": used.ru_maxrss / 1024,
    }


def rows(runs: Any) -> list[tuple[str, ...]]:
    return [
        (
            title,
            spread(own, "rate"),
            spread(own, "cpu", ".1f"),
            spread(own, "servers", ".1f"),
            spread(own, "peak"),
        )
        for title, own in runs.items()
    ]


HEAD = (
    "rows",
    "rows/s",
    "process, CPU s per million",
    "PostgreSQL, CPU s per million",
    "process, largest memory, MiB",
)


def render(runs: Any) -> str:
    return f"""\
### Verify

{table(HEAD, rows(runs))}

`python -m services.consent verify`, its start included. Rows are of the length that consent writes.
It reads a thousand rows at a time and hashes them; the database sends while nobody hashes, and the
other way round, so the rate is bounded by the sum of both columns."""


VERIFY = Part("verify", run, render)
