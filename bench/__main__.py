"""`make bench`: measures, stores the figures in bench/results and writes docs/benchmarks.md.

python -m bench [WHAT] [--part NAME]… [--rounds N] [--long]
"""

import argparse
import os
import shutil
import sys
import time
import traceback
from contextlib import ExitStack

from bench import peers, report
from bench.lab import Lab
from bench.part import Part
from tests.support.ports import Ports
from tests.support.runs import private_run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("what", nargs="?", choices=report.found())
    parser.add_argument("--part", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="also run parts that take many minutes")
    chosen = parser.parse_args()
    peers.prepare()
    failed = []
    for what in [chosen.what] if chosen.what else report.found():
        for part in report.parts(what):
            if part.name in chosen.part or (not chosen.part and (chosen.long or not part.long)):
                if lacking := [name for name in part.needs if shutil.which(name) is None]:
                    print(f"{what}: skipping {part.name}: {', '.join(lacking)} is not installed")
                    continue
                try:
                    measure(what, part, chosen.rounds)
                except Exception:  # noqa: BLE001 - the other parts run unattended
                    traceback.print_exc()
                    failed.append(f"{what}: {part.name}")
    report.write()
    for name in failed:
        print(f"FAILED {name}; it keeps its earlier figures")
    return 1 if failed else 0


def measure(what: str, part: Part, rounds: int) -> None:
    print(f"{what}: {part.name}", flush=True)
    load, began = os.getloadavg()[0], time.monotonic()
    with private_run() as folder, ExitStack() as closing:
        ports = Ports()
        closing.callback(ports.close)
        figures = part.run(Lab(folder, ports, closing, rounds=rounds))
    seconds = time.monotonic() - began
    print(f"{what}: {part.name} took {seconds:.0f} s", flush=True)
    report.keep(what, part, figures, load, seconds)


if __name__ == "__main__":
    sys.exit(main())
