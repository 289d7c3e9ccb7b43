"""One, two and four workers, each with a part of a core, empty alerts.intake: is it a line?"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.alerts.system import Alerts, alerts
from bench.lab import Lab
from bench.measure import Run, cpu_seconds, interleaved, median, ratio, spread
from bench.part import Part, table
from deploy.up.process import HOST, Process, wait_until

COUNT = 6_000
WORKERS = (1, 2, 4)
CORE = 0.25
"""What each worker may use, so that four of them and the servers have two cores between them."""
CGROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD = 20_000
"""Microseconds; short, so that a worker that has used its part waits a few milliseconds."""


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres)
    return interleaved({str(many): partial(_drained, lab, many) for many in WORKERS}, lab.rounds)


def _drained(lab: Lab, workers: int) -> Run:
    """Rate and CPU from the first tenth to the last; all workers begin at once."""
    with alerts(lab) as system, ExitStack() as stack:
        system.declare()
        running = [stack.enter_context(_limited(system, number)) for number in range(workers)]
        for worker in running:
            os.kill(worker.pid or 0, signal.SIGSTOP)
        system.queue_more(COUNT)
        lab.sink.reset()
        for worker in running:
            os.kill(worker.pid or 0, signal.SIGCONT)
        lab.sink.wait("/slack", COUNT // 10, running[0])
        first, began, before = lab.sink.count("/slack"), time.monotonic(), _used(lab, running)
        lab.sink.wait("/slack", COUNT * 9 // 10, running[0])
        seconds = time.monotonic() - began
        used = {name: value - before[name] for name, value in _used(lab, running).items()}
        rate = (lab.sink.count("/slack") - first) / seconds
        lab.sink.wait("/slack", COUNT, running[0])
        wait_until("the last settle", 60, system.settled, lambda: True)
        return {"rate": rate, **{name: value / seconds for name, value in used.items()}}


def _used(lab: Lab, workers: list[Process]) -> dict[str, float]:
    return {
        "workers": cpu_seconds(*(each.pid or 0 for each in workers)),
        "rabbitmq": cpu_seconds(lab.rabbitmq.pid or 0),
        "postgres": cpu_seconds(lab.postgres.pid or 0),
    }


@contextmanager
def _limited(system: Alerts, number: int) -> Iterator[Process]:
    ports = {name: str(system.lab.ports.take()) for name in ("ALERTS_PORT", "ALERTS_METRICS_PORT")}
    group = CGROUPS / f"ostoja-bench-{os.getpid()}-{number}"
    with replace(system, values={**system.values, **ports}).running() as process:
        system.lab.answering(f"http://{HOST}:{ports['ALERTS_PORT']}/health", process)
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(int(CORE * PERIOD)))
        (group / "cgroup.procs").write_text(str(process.pid))
        try:
            yield process
        finally:
            (CGROUPS / "cgroup.procs").write_text(str(process.pid))
            group.rmdir()


def render(runs: Any) -> str:
    one, four = runs["1"], runs["4"]
    rows = [
        (
            many,
            spread(own, "rate"),
            f"{ratio(own, one, 'rate'):.2f}",
            *(spread(own, name, ".2f") for name in ("workers", "rabbitmq", "postgres")),
        )
        for many, own in runs.items()
    ]
    servers = {"RabbitMQ": median(four, "rabbitmq"), "PostgreSQL": median(four, "postgres")}
    fuller = max(servers, key=servers.__getitem__)
    return f"""\
### One, two and four workers of {CORE} core each

{table(HEAD, rows)}

{COUNT:,} alerts that wait in `alerts.intake`, counted between the first tenth and the last. Each
worker is a process of alerts that a cgroup lets use {CORE} of a core; servers and sink have the
rest of this machine's two. Two workers do twice as much as one. Four do not use all that they may:
they wait for the servers' commits and the sink. Of the servers {fuller} uses most; it is full first
when workers are added on hosts of their own."""


HEAD = (
    "workers",
    "alerts/s",
    "to one",
    "workers: cores",
    "RabbitMQ: cores",
    "PostgreSQL: cores",
)
SCALE = Part("scale", run, render)
