"""The settings that ship: how near a target's rate comes to what its latency allows."""

from functools import partial
from typing import Any

from bench.alerts.system import alerts
from bench.lab import Lab
from bench.measure import Run, cpu_seconds, interleaved, ratio, spread
from bench.part import Part, table
from services.alerts.channels.channel import Target

CONCURRENCY = int(Target.model_fields["concurrency"].default)
LATENCIES = (0, 20, 100)
SECONDS = 5
"""How long a case lasts, if the target's latency is all that bounds it."""


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres)
    cases = {
        f"{latency} ms, {concurrency}": partial(_delivered, lab, latency, concurrency)
        for latency in LATENCIES
        for concurrency in (CONCURRENCY, 100)
    }
    return interleaved(cases, lab.rounds)


def _delivered(lab: Lab, latency: int, concurrency: int) -> Run:
    allowed = concurrency / (latency / 1000) if latency else 0.0
    count = min(5000, int(SECONDS * allowed) or 5000)
    path = f"/after-{latency}" if latency else "/slack"
    own = {"concurrency": concurrency} if concurrency != CONCURRENCY else {}
    with alerts(lab, {"slack": own}, sink=path) as system:
        system.queue_work(count)
        lab.sink.reset()
        with system.running() as process:
            lab.sink.wait(path, 1, process, seconds=30)
            before = cpu_seconds(process.pid or 0)
            lab.sink.wait(path, count, process)
            cpu = 1000 * (cpu_seconds(process.pid or 0) - before) / count
    rate = (count - 1) / lab.sink.seconds(path)
    return {"rate": rate, "allowed": allowed or rate, "cpu": cpu}


def render(runs: Any) -> str:
    rows = []
    for title, own in runs.items():
        latency, _, concurrency = title.partition(", ")
        bound = [{"rate": run["allowed"]} for run in own]
        share = "" if latency == "0 ms" else f"{ratio(own, bound, 'rate'):.2f}"
        rows.append((latency, concurrency, spread(own, "rate"), share, spread(own, "cpu", ".2f")))
    return f"""\
### The settings that ship: {CONCURRENCY} at a time

{table(HEAD, rows)}

Waiting alerts, one worker process, and a target that answers so late. A target's latency allows
concurrency / latency; with 0 ms, the process and its servers are the bound."""


HEAD = (
    "the target answers after",
    "concurrency",
    "alerts/s",
    "of what its latency allows",
    "worker, CPU s/1k",
)
SHIPPED = Part("shipped", run, render)
