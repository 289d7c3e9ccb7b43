"""Shared by all benchmarks: CPU and memory of a process tree, rounds, medians, ratios."""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

Run = Mapping[str, float]
"""One run of one case: figures by name."""

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(*pids: int) -> float:
    """User and system time of these processes and all their children, including ended ones."""
    return sum(_ticks(pid) for pid in tree(*pids)) / _TICK


def tree(*pids: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if (stat := _stat(int(entry.name))) is not None:
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def _ticks(pid: int) -> int:
    stat = _stat(pid)
    return 0 if stat is None else sum(int(each) for each in stat[11:15])


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the name: state, parent, …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it ended
        return None


def resident_mib(pid: int) -> float:
    """Memory of a process and its children."""
    pages = 0
    for each in tree(pid):
        try:
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def written_bytes(*pids: int) -> int:
    """Return what these processes and all their children have sent to the disk."""
    total = 0
    for pid in tree(*pids):
        try:
            lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
        except OSError:  # it ended
            continue
        total += int(dict(line.split(": ") for line in lines)["write_bytes"])
    return total


def interleaved(cases: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Run each case once per round; each round begins with a different case."""
    runs: dict[str, list[Run]] = {name: [] for name in cases}
    names = list(cases)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            run = cases[name]()
            runs[name].append(run)
            figures = ", ".join(f"{what} {value:.4g}" for what, value in run.items())
            print(f"  round {turn + 1}: {name}: {figures}", flush=True)
    return runs


def median(runs: Sequence[Run], what: str) -> float:
    return statistics.median(run[what] for run in runs)


def spread(runs: Sequence[Run], what: str, form: str = ",.0f") -> str:
    """Median and, in brackets, the smallest and the largest."""
    values = [run[what] for run in runs]
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def ratio(runs: Sequence[Run], base: Sequence[Run], what: str) -> float:
    """Median of the ratios within each round, because a slow round slows both cases."""
    pairs = zip(runs, base, strict=True)
    return statistics.median(run[what] / other[what] for run, other in pairs)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
