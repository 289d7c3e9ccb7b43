"""The same work with ten million rows in the trail."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.consent import permits, requests, verify
from bench.consent.rows import ENTRIES_EACH, fill
from bench.consent.system import Consent, consent
from bench.lab import Lab
from bench.measure import Run, interleaved, ratio, spread
from bench.part import Part, table
from deploy.up.process import wait_until

ROWS = 10_000_000
SHORT = 1_000_000
EMPTY, FULL = "an empty trail", f"{ROWS:,} rows"
WORK: dict[str, Callable[[Consent], Run]] = {
    "unsubscribe": partial(requests.through_gateway, requests.withdraw),
    "status reads": partial(requests.through_gateway, requests.read_status),
}


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres, lab.redis)
    with consent(lab) as empty, consent(lab) as short, consent(lab) as full:
        for system, rows in ((short, SHORT), (full, ROWS)):
            fill(system, rows)
            _sign(system, rows)
        systems = {EMPTY: empty, FULL: full}
        found = {
            name: interleaved(
                {title: partial(work, system) for title, system in systems.items()}, lab.rounds
            )
            for name, work in WORK.items()
        }
        found["permits, 8 at a time"] = interleaved(
            {title: partial(_permits, system) for title, system in systems.items()}, lab.rounds
        )
        found["verify"] = interleaved(
            {
                f"{rows:,}": partial(verify.verified, system, empty)
                for system, rows in ((short, SHORT), (full, ROWS))
            },
            lab.rounds,
        )
    return found


def _sign(system: Consent, rows: int) -> None:
    """Write the checkpoints that consent would have written over time."""
    wanted = rows - rows % 1000
    path = system.records / "checkpoints.jsonl"

    def signed() -> bool:
        return path.exists() and f'"rows": {wanted},' in path.read_text(encoding="utf-8")[-4000:]

    began = time.monotonic()
    with system.running() as process:
        wait_until("the checkpoints", 300, signed, lambda: process.pid is not None)
    print(f"  signed in {time.monotonic() - began:.0f} s", flush=True)


def _permits(system: Consent) -> Run:
    with system.running() as process:
        return permits.asked(system, process.pid or 0, permits.agreed(system), 8)


def render(found: Any) -> str:
    rows = []
    for name, runs in found.items():
        if name == "verify":
            continue
        for title, own in runs.items():
            base = runs[EMPTY]
            rows.append(
                (
                    name,
                    title,
                    spread(own, "rate"),
                    f"{ratio(own, base, 'rate'):.2f}",
                    spread([{"ms": 1000 * run["p99"]} for run in own], "ms", ".1f"),
                    spread(own, "cpu", ".2f"),
                    f"{ratio(own, base, 'cpu'):.2f}",
                )
            )
    return f"""\
### The trail's size

{table(HEAD, rows)}

{ROWS:,} rows of {ROWS // ENTRIES_EACH:,} data subjects. `verify` over them, with a checkpoint per
thousand rows:

{table(verify.HEAD, verify.rows(found["verify"]))}"""


HEAD = ("", "", "/s", "ratio", "p99, ms", "processes, CPU s/1k", "ratio")
SIZE = Part("size", run, render, long=True)
