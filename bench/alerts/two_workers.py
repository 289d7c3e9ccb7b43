"""Two processes of the gateway and of alerts: what an alert costs each part, what fills first."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

from bench import load
from bench.alerts.accept import ALERT, CONNECTIONS
from bench.alerts.system import Alerts, alerts
from bench.lab import Lab
from bench.measure import Run, cpu_seconds, interleaved, median, ratio, spread, written_bytes
from bench.part import Part, table
from deploy.up.process import HOST, wait_until

COUNT = 10_000
WORKERS = (1, 2)
PER_MILLION = 1_000_000 / COUNT
ONE_THREAD = ("gateway", "alerts", "redis")
"""Each process of these uses one core at most."""
TITLES = {
    "gateway": "gateway",
    "alerts": "alerts",
    "rabbitmq": "RabbitMQ",
    "postgres": "PostgreSQL",
    "redis": "Redis",
}


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres, lab.redis)
    return interleaved({str(many): partial(_delivered, lab, many) for many in WORKERS}, lab.rounds)


def _delivered(lab: Lab, workers: int) -> Run:
    with alerts(lab) as system, _running(system, workers) as pids:
        pids |= {
            name: [server.pid or 0]
            for name, server in (
                ("rabbitmq", lab.rabbitmq),
                ("postgres", lab.postgres),
                ("redis", lab.redis),
            )
        }
        lab.sink.reset()
        before, wal = _used(pids), _wal(system)
        began = time.monotonic()
        accepted = load.post(
            f"{system.gateway_url}/api/alerts",
            {"X-API-KEY": system.values["SERVICE_API_KEY"]},
            repeat(json.dumps(ALERT).encode(), COUNT),
            connections=CONNECTIONS,
        )
        if accepted.statuses != {202: COUNT}:
            raise RuntimeError(f"not all were accepted: {accepted.statuses}")
        wait_until(
            "the last delivery", 300, lambda: lab.sink.count("/slack") >= COUNT, lambda: True
        )
        seconds = lab.sink.last("/slack") - began
        wait_until("the last settle", 60, system.settled, lambda: True)
        after = _used(pids)
        return {
            "rate": COUNT / seconds,
            "seconds": seconds,
            "wal": _wal(system) - wal,
            **{name: after[name] - value for name, value in before.items()},
        }


@contextmanager
def _running(system: Alerts, workers: int) -> Iterator[dict[str, list[int]]]:
    """Run so many processes of both; yield the ids of each kind."""
    values = {**system.values, "GATEWAY_WORKERS": str(workers)}
    with ExitStack() as stack:
        found = []
        for number in range(workers):
            ports = system.values if number == 0 else _other_ports(system)
            each = replace(system, values={**values, **ports})
            process = stack.enter_context(each.running())
            system.lab.answering(f"http://{HOST}:{each.values['ALERTS_PORT']}/health", process)
            found.append(process.pid or 0)
        gateway = stack.enter_context(replace(system, values=values).gateway())
        yield {"gateway": [gateway.pid or 0], "alerts": found}


def _other_ports(system: Alerts) -> dict[str, str]:
    return {name: str(system.lab.ports.take()) for name in ("ALERTS_PORT", "ALERTS_METRICS_PORT")}


def _used(pids: Mapping[str, list[int]]) -> dict[str, float]:
    """CPU seconds and bytes written so far, of each kind of process."""
    cpu = {f"cpu {name}": cpu_seconds(*of) for name, of in pids.items()}
    return cpu | {f"written {name}": float(written_bytes(*of)) for name, of in pids.items()}


def _wal(system: Alerts) -> float:
    return float(system.query("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")[0][0])


def render(runs: Any) -> str:
    one, two = runs["1"], runs["2"]
    rows = []
    for name, title in TITLES.items():
        cores = [run[f"cpu {name}"] / run["seconds"] for run in two]
        threads = 1 if name == "redis" else 2
        share = [{"share": each / threads} for each in cores]
        rows.append(
            (
                title,
                _per_million(one, f"cpu {name}", 1),
                _per_million(two, f"cpu {name}", 1),
                spread([{"cores": each} for each in cores], "cores", ".2f"),
                spread(share, "share", ".0%") if name in ONE_THREAD else "",
                _per_million(two, f"written {name}", 2**20),
            )
        )
    full = max(
        ONE_THREAD, key=lambda name: median(two, f"cpu {name}") / (1 if name == "redis" else 2)
    )
    busy = [{"cores": sum(run[f"cpu {name}"] for name in TITLES) / run["seconds"]} for run in two]
    return f"""\
### Two processes of each, per million alerts

{table(HEAD, rows)}

{COUNT:,} alerts over {CONNECTIONS} connections, accepted and delivered:
{spread(one, "rate")} a second with one process of the gateway and one of alerts,
{spread(two, "rate")} with two of each ({ratio(two, one, "rate"):.2f} times). PostgreSQL's
write-ahead log grows by {_per_million(two, "wal", 2**20)} MiB per million alerts; what is written
counts a page each time it is written again. The rows use {spread(busy, "cores", ".2f")} of this
machine's cores; load, sink and waiting take the rest. With cores to spare {TITLES[full]} is full
first: its processes use the largest share of the one core that each can."""


def _per_million(runs: Any, what: str, unit: int) -> str:
    return spread([{"each": run[what] * PER_MILLION / unit} for run in runs], "each")


HEAD = (
    "",
    "one process: CPU s per million",
    "two: CPU s per million",
    "two: cores in use",
    "two: share of a core per process with one thread",
    "two: MiB written per million",
)
TWO_WORKERS = Part("two-workers", run, render)
