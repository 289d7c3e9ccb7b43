"""5,000 alerts wait; one worker process delivers them to the sink. Ours beside the field's."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.alerts.system import alerts
from bench.lab import ROOT, Lab
from bench.measure import Run, cpu_seconds, interleaved, ratio, spread
from bench.part import Part
from deploy.local.servers import Process, wait_until
from tests.support.brokers import Vhost

COUNT = 5000
FLOOR = "raw floor"
OURS = "Ostoja, from the work queue"
OURS_INTAKE = "Ostoja, from `alerts.intake`"


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres)
    cases = {
        FLOOR: partial(_floor, lab),
        OURS: partial(_ours, lab, "queue_work"),
        OURS_INTAKE: partial(_ours, lab, "queue_accepted"),
    }
    return interleaved(cases, lab.rounds)


def _ours(lab: Lab, fill: str) -> Run:
    with alerts(lab) as system:
        getattr(system, fill)(COUNT)
        lab.sink.reset()
        with system.running() as process:
            return _drained(lab, "/slack", process, lambda: system.states() == {"delivered": COUNT})


def _floor(lab: Lab) -> Run:
    vhost = Vhost(lab.rabbitmq)
    env = {"AMQP_URL": vhost.admin_url(), "SINK_URL": f"{lab.sink.url}/floor"}
    program = [sys.executable, str(ROOT / "bench" / "peers" / "floor.py")]
    try:
        subprocess.run([*program, "send", str(COUNT)], env=env, check=True)
        lab.sink.reset()
        with lab.process([*program, "work"], env) as process:
            return _drained(lab, "/floor", process)
    finally:
        vhost.delete()


def _drained(
    lab: Lab, path: str, process: Process, settled: Callable[[], bool] = lambda: True
) -> Run:
    """Rate from the first request to the last; CPU from the first on, its start-up left out."""
    lab.sink.wait(path, 1, process)
    servers, worker = (lab.rabbitmq.pid or 0, lab.postgres.pid or 0), process.pid or 0
    counted = COUNT - lab.sink.count(path)
    before = cpu_seconds(worker), cpu_seconds(*servers)
    lab.sink.wait(path, COUNT, process)
    wait_until("the last settle", 60, settled, lambda: process.pid is not None)
    after = cpu_seconds(worker), cpu_seconds(*servers)
    cpu, of_servers = (
        1000 * (end - start) / counted for start, end in zip(before, after, strict=True)
    )
    return {"rate": (COUNT - 1) / lab.sink.seconds(path), "cpu": cpu, "servers": of_servers}


def render(runs: Any) -> str:
    lines = [
        f"### {COUNT:,} waiting alerts → sink",
        "",
        "| | alerts/s | ratio to the floor | worker CPU s/1k | ratio | servers' CPU s/1k |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in runs.items():
        lines.append(
            f"| {name} | {spread(own, 'rate')} | {ratio(own, runs[FLOOR], 'rate'):.2f} "
            f"| {spread(own, 'cpu', '.2f')} | {ratio(own, runs[FLOOR], 'cpu'):.2f} "
            f"| {spread(own, 'servers', '.2f')} |"
        )
    return "\n".join(lines)


DRAIN = Part("drain", run, render)
