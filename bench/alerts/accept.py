"""HTTP accept → delivered in one run, and the cost of accepting single alerts and batches."""

import json
import time
from functools import partial
from itertools import repeat
from typing import Any

from bench import load, peers
from bench.alerts.system import alerts
from bench.lab import Lab
from bench.measure import Run, cpu_seconds, interleaved, percentile, ratio, spread
from bench.part import Part, table
from bench.peers import TEXT
from deploy.up.process import HOST, wait_until
from tests.support.brokers import Vhost

COUNT = 5000
CONNECTIONS = 64
BATCH = 1000
BATCHES = 20
ALERT = {"event_type": "slack_alert", "payload": {"text": TEXT}}
SHORT = {"event_type": "slack_alert", "payload": {"text": TEXT[:100]}}  # a body holds 256 KiB
NAIVE = "naive: one aiohttp process, one INSERT, one publish, one UPDATE each"
OURS = "**Ostoja**: gateway and alerts"
SINGLE = f"`POST /api/alerts`, {CONNECTIONS} connections"
MANY = f"`POST /api/alerts/batch` of {BATCH:,}, 4 connections"


def run_delivered(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres, lab.redis)
    cases = {NAIVE: partial(_naive, lab), OURS: partial(_ours, lab)}
    return interleaved(cases, lab.rounds)


def _ours(lab: Lab) -> Run:
    with alerts(lab) as system, system.running() as worker:
        lab.answering(f"http://{HOST}:{system.values['ALERTS_PORT']}/health", worker)
        with system.gateway() as gateway:
            pids = [process.pid or 0 for process in (gateway, worker)]
            key = {"X-API-KEY": system.values["SERVICE_API_KEY"]}
            run = _delivered(lab, system.gateway_url, key, "/slack", pids)
            wait_until("the last settle", 60, system.settled, lambda: worker.pid is not None)
            return run


def _naive(lab: Lab) -> Run:
    vhost, database = Vhost(lab.rabbitmq), lab.databases.create("alerts", migrated=False)
    port = lab.ports.take()
    env = {
        "AMQP_URL": vhost.admin_url(),
        "DATABASE_URL": lab.postgres.dsn.removesuffix("postgres") + database.name,
        "SINK_URL": f"{lab.sink.url}/naive",
        "HTTP_PORT": str(port),
    }
    url = f"http://{HOST}:{port}"
    try:
        with lab.process([str(peers.PYTHON), "-m", "bench.peers.naive"], env) as process:
            lab.answering(url, process)
            return _delivered(lab, url, {}, "/naive", [process.pid or 0])
    finally:
        vhost.delete()
        lab.databases.drop(database.name)


def _delivered(lab: Lab, url: str, headers: dict[str, str], path: str, pids: list[int]) -> Run:
    servers = (lab.rabbitmq.pid or 0, lab.postgres.pid or 0, lab.redis.pid or 0)
    lab.sink.reset()
    began = time.monotonic()
    before = cpu_seconds(*pids), cpu_seconds(*servers)
    bodies = repeat(json.dumps(ALERT).encode(), COUNT)
    accepted = load.post(f"{url}/api/alerts", headers, bodies, connections=CONNECTIONS)
    if accepted.statuses != {202: COUNT}:
        raise RuntimeError(f"not all were accepted: {accepted.statuses}")
    wait_until("the last delivery", 300, lambda: lab.sink.count(path) == COUNT, lambda: True)
    after = cpu_seconds(*pids), cpu_seconds(*servers)
    cpu, of_servers = (
        1000 * (end - start) / COUNT for start, end in zip(before, after, strict=True)
    )
    return {
        "rate": COUNT / (lab.sink.last(path) - began),
        "accepted": COUNT / accepted.seconds,
        "p99": percentile(accepted.latencies, 0.99),
        "cpu": cpu,
        "servers": of_servers,
    }


def render_delivered(runs: Any) -> str:
    rows = [
        (
            title,
            spread(own, "rate"),
            f"{ratio(own, runs[NAIVE], 'rate'):.2f}",
            spread(own, "accepted"),
            spread([{"ms": 1000 * run["p99"]} for run in own], "ms"),
            spread(own, "cpu", ".2f"),
            f"{ratio(own, runs[NAIVE], 'cpu'):.2f}",
            spread(own, "servers", ".2f"),
        )
        for title, own in runs.items()
    ]
    return f"""\
### HTTP accept → delivered, {COUNT:,} alerts over {CONNECTIONS} connections

{table(DELIVERED, rows)}

Measured from the first request to the last delivery at the sink; both accept and deliver
concurrently. Ostoja checks the key and the body, counts two limits in Redis, claims each row with a
lease, records each attempt, and keeps accepting without the broker or the database. The naive form
does none of that, and a crash loses alerts that it has inserted but not published."""


DELIVERED = (
    "",
    "accepted and delivered/s",
    "ratio",
    "accepted/s",
    "p99 of the 202, ms",
    "processes, CPU s/1k",
    "ratio",
    "RabbitMQ, PostgreSQL and Redis, CPU s/1k",
)


def run_batch(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres, lab.redis)
    single = {"path": "/api/alerts", "body": SHORT, "count": COUNT, "holds": 1}
    many = {
        "path": "/api/alerts/batch",
        "body": {"alerts": [SHORT] * BATCH},
        "count": BATCHES,
        "holds": BATCH,
    }
    cases = {
        SINGLE: partial(_intake, lab, single, CONNECTIONS),
        MANY: partial(_intake, lab, many, 4),
    }
    return interleaved(cases, lab.rounds)


def _intake(lab: Lab, what: dict[str, Any], connections: int) -> Run:
    with alerts(lab) as system:
        system.declare()  # no consumer: this measures only the way into the queue
        with system.gateway() as gateway:
            pid = gateway.pid or 0
            before = cpu_seconds(pid)
            accepted = load.post(
                system.gateway_url + what["path"],
                {"X-API-KEY": system.values["SERVICE_API_KEY"]},
                repeat(json.dumps(what["body"]).encode(), what["count"]),
                connections=connections,
            )
            if accepted.statuses != {202: what["count"]}:
                raise RuntimeError(f"not all were accepted: {accepted.statuses}")
            count = what["count"] * what["holds"]
            cpu = 1000 * (cpu_seconds(pid) - before) / count
            return {"rate": count / accepted.seconds, "cpu": cpu}


def render_batch(runs: Any) -> str:
    rows = [
        (
            title,
            spread(own, "rate"),
            f"{ratio(own, runs[SINGLE], 'rate'):.1f}",
            spread(own, "cpu", ".3f"),
            f"{ratio(own, runs[SINGLE], 'cpu'):.3f}",
        )
        for title, own in runs.items()
    ]
    return f"""\
### One by one or in batches

{table(("", "alerts/s", "ratio", "gateway, CPU s/1k", "ratio"), rows)}

Alerts with a text of 100 characters, confirmed by the broker before the answer. Nothing consumes
`alerts.intake` during the measurement. In a batch, a hundred alerts share one message there; intake
then handles each alert as if it had come alone. A batch is bounded by reading and writing its
JSON."""


DELIVERED_PART = Part("delivered", run_delivered, render_delivered)
BATCH_PART = Part("batch", run_batch, render_batch)
