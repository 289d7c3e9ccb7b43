"""One worker process delivers 5,000 waiting alerts to the sink; Ostoja and its peers."""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench import peers
from bench.alerts.system import alerts
from bench.lab import ROOT, Lab
from bench.measure import Run, cpu_seconds, interleaved, ratio, spread
from bench.part import Part, table
from bench.peers import alertmanager_peer
from deploy.up.process import HOST, Process, wait_until
from tests.support.brokers import Vhost

COUNT = 5000


@dataclass(frozen=True)
class Case:
    promise: str
    """What it does besides the POST, and what it survives."""
    module: str = ""
    work: tuple[str, ...] = ()
    """Arguments of Python."""
    on: str = "rabbitmq"
    package: str = ""
    python: str = str(peers.PYTHON)
    count: int = COUNT
    """Fewer of the slow ones: a rate needs seconds, not minutes."""


def _celery(*pool: str) -> Case:
    return Case(
        "acknowledged after the work; a failure is not retried unless the task requests it",
        "celery_peer",
        (
            *("-m", "celery", "-A", "bench.peers.celery_peer", "worker", "--loglevel", "WARNING"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat", "--pool", *pool),
        ),
        package="celery",
        count=COUNT // 2,
    )


FLOOR = "raw floor"
OURS = {
    "**Ostoja**, from the work queue": "queue_work",
    "**Ostoja**, from `alerts.intake`": "queue_accepted",
}
ALERTMANAGER = "Alertmanager, one POST each"
CASES = {
    FLOOR: Case(
        "aio-pika, prefetch 100, ClientSession POST, acknowledged after it; nothing else",
        "floor",
        ("-m", "bench.peers.floor", "work"),
        python=sys.executable,
    ),
    **dict.fromkeys(
        OURS,
        Case(
            "a ledger row per target, claimed with a lease; each attempt recorded; breaker, "
            "growing delays, escalation to on-call"
        ),
    ),
    "Celery, prefork 2": _celery("prefork", "--concurrency=2", "--prefetch-multiplier=50"),
    "Celery, gevent 50": _celery("gevent", "--concurrency=50", "--prefetch-multiplier=2"),
    "Celery, threads 50": _celery("threads", "--concurrency=50", "--prefetch-multiplier=2"),
    "Dramatiq, 50 threads": Case(
        "acknowledged after the work; retried with growing delays, then a dead-letter queue; "
        "classic queue, on one node only",
        "dramatiq_peer",
        ("-m", "dramatiq", "bench.peers.dramatiq_peer", "--processes", "1", "--threads", "50"),
        package="dramatiq",
    ),
    "taskiq + aio-pika": Case(
        "acknowledged after the work; a failure is not retried without a middleware",
        "taskiq_peer",
        (
            *("-m", "taskiq", "worker", "bench.peers.taskiq_peer:broker", "--workers", "1"),
            *("--max-async-tasks", "100", "--log-level", "WARNING"),
        ),
        package="taskiq",
    ),
    "FastStream + aiohttp": Case(
        "acknowledged after the work; a failure goes back into the queue at once",
        "faststream_peer",
        ("-m", "bench.peers.faststream_peer", "work"),
        package="faststream",
    ),
    "pgqueuer, batch 50": Case(
        "rows in PostgreSQL, no broker; a finished job is deleted and its result logged",
        "pgqueuer_peer",
        ("-m", "bench.peers.pgqueuer_peer", "work"),
        on="postgres",
        package="pgqueuer",
    ),
    "procrastinate, concurrency 50": Case(
        "rows in PostgreSQL, no broker; each change of a job recorded; retries if configured",
        "procrastinate_peer",
        ("-m", "bench.peers.procrastinate_peer", "work"),
        on="postgres",
        package="procrastinate",
        count=COUNT // 5,
    ),
    ALERTMANAGER: Case(
        "in memory: after a crash, senders must repeat unsent alerts; retries until the group's "
        "next interval"
    ),
}


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres)
    cases: dict[str, Callable[[], Run]] = {}
    for title, case in CASES.items():
        if title in OURS:
            cases[title] = partial(_ours, lab, OURS[title])
        elif title != ALERTMANAGER:
            cases[title] = partial(_peer, lab, case)
        elif (program := shutil.which("prometheus-alertmanager")) is not None:
            cases[title] = partial(_alertmanager, lab, program)
        else:
            print("  skipped, because it is not installed: prometheus-alertmanager (Debian)")
    return {"runs": interleaved(cases, lab.rounds), "versions": _versions()}


def _versions() -> dict[str, str]:
    installed = peers.versions()
    return {
        title: f"{case.package} {installed[case.package]}"
        for title, case in CASES.items()
        if case.package
    }


def _ours(lab: Lab, fill: str) -> Run:
    with alerts(lab) as system:
        getattr(system, fill)(COUNT)
        lab.sink.reset()
        with system.running() as process:
            return drained(lab, "/slack", process, system.settled)


def _peer(lab: Lab, case: Case) -> Run:
    with _queue(lab, case.on) as address:
        env = {**address, "SINK_URL": f"{lab.sink.url}/peer", "PYTHONPATH": str(ROOT)}
        send = [case.python, "-m", f"bench.peers.{case.module}", "send", str(case.count)]
        subprocess.run(send, env={**os.environ, **env}, cwd=ROOT, check=True)
        lab.sink.reset()
        with lab.process([case.python, *case.work], env) as process:
            return drained(lab, "/peer", process, count=case.count)


@contextmanager
def _queue(lab: Lab, on: str) -> Iterator[dict[str, str]]:
    if on == "rabbitmq":
        vhost = Vhost(lab.rabbitmq)
        yield {"AMQP_URL": vhost.admin_url()}
        vhost.delete()
    else:
        database = lab.databases.create("alerts", migrated=False)
        yield {"DATABASE_URL": lab.postgres.dsn.removesuffix("postgres") + database.name}
        lab.databases.drop(database.name)


def _alertmanager(lab: Lab, program: str) -> Run:
    url = f"{HOST}:{lab.ports.take()}"
    folder = lab.folder / url.replace(":", "-")
    folder.mkdir()
    alertmanager_peer.configure(folder / "config.yml", f"{lab.sink.url}/peer")
    argv = [
        program,
        f"--config.file={folder / 'config.yml'}",
        f"--storage.path={folder}",
        f"--web.listen-address={url}",
        "--cluster.listen-address=",
        "--log.level=error",
    ]
    env = {"ALERTMANAGER_URL": f"http://{url}/api/v2/alerts"}
    send = [sys.executable, "-m", "bench.peers.alertmanager_peer", "send", str(COUNT)]
    lab.sink.reset()
    with lab.process(argv, {}) as process:
        lab.answering(f"http://{url}/-/ready", process)
        with lab.process(send, env):
            return drained(lab, "/peer", process)


def drained(
    lab: Lab,
    path: str,
    process: Process,
    settled: Callable[[], bool] = lambda: True,
    count: int = COUNT,
) -> Run:
    """Rate and CPU from the first request on, without the start-up."""
    lab.sink.wait(path, 1, process, seconds=30)
    servers, worker = (lab.rabbitmq.pid or 0, lab.postgres.pid or 0), process.pid or 0
    counted = count - lab.sink.count(path)
    before = cpu_seconds(worker), cpu_seconds(*servers)
    lab.sink.wait(path, count, process)
    wait_until("the last settle", 60, settled, lambda: process.pid is not None)
    after = cpu_seconds(worker), cpu_seconds(*servers)
    cpu, of_servers = (
        1000 * (end - start) / counted for start, end in zip(before, after, strict=True)
    )
    return {"rate": (count - 1) / lab.sink.seconds(path), "cpu": cpu, "servers": of_servers}


def render(found: Any) -> str:
    runs, versions = found["runs"], found["versions"]
    floor, ours = runs[FLOOR], runs[next(iter(OURS))]
    rows = [
        (
            title + (f" ({versions[title]})" if title in versions else ""),
            spread(own, "rate"),
            f"{ratio(own, floor, 'rate'):.2f}",
            spread(own, "cpu", ".2f"),
            f"{ratio(own, floor, 'cpu'):.2f}",
            spread(own, "servers", ".2f"),
            CASES[title].promise,
        )
        for title, own in runs.items()
    ]
    ahead = {
        name: min(ratio(ours, runs[title], "rate") for title in runs if title.startswith(name))
        for name in ("Celery", "Dramatiq", "taskiq", "FastStream")
    }
    busy = statistics.median(run["rate"] * run["cpu"] / 1000 for run in ours)
    return f"""\
### $count waiting alerts → the sink, one worker process

{table(HEAD, rows)}

Of these, Celery got $celery and procrastinate $procrastinate.

From the work queue Ostoja delivers {", ".join(f"{by:.1f}x {name}" for name, by in ahead.items())}
(each in its fastest configuration). Each sends up to a hundred at a time; in Ostoja as many again
are in flight, waiting for a slot or being recorded. The rate is measured from the first request at
the sink to the last, CPU from the first request to the last recorded row; neither includes
start-up. No process is pinned to a core.

Ostoja's worker is busy {busy:.0%} of the time; otherwise it waits for RabbitMQ, PostgreSQL and the
sink, with which it shares two cores. By py-spy, aiormq's frames take about a fifth of its CPU, the
two statements per batch of rows another fifth, the POST a seventh and the log line a twentieth. The
floor has only the frames and the POST, which uses aiohttp's client. From `alerts.intake`, each
alert passes the broker twice and is inserted. Alertmanager and pgqueuer are listed for comparison
of their guarantees, not of their speed: one keeps alerts in memory, the other needs no broker and
has no fan-out."""


HEAD = (
    "",
    "alerts/s",
    "ratio to the floor",
    "worker, CPU s/1k",
    "ratio to the floor",
    "RabbitMQ and PostgreSQL, CPU s/1k",
    "what it does besides the POST",
)
PARAMETERS = {
    "count": COUNT,
    "celery": CASES["Celery, prefork 2"].count,
    "procrastinate": CASES["procrastinate, concurrency 50"].count,
}
DRAIN = Part("drain", run, render, parameters=PARAMETERS)
