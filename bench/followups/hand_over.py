"""The hand-over of due steps, compared with a task queue and a polling loop."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench import peers
from bench.followups.system import Followups, followups
from bench.lab import Lab
from bench.measure import Run, cpu_seconds, interleaved, ratio, spread
from bench.part import Part, table
from deploy.up.process import Process, wait_until

COUNT = 1500
OURS = "**Ostoja**: one process of followups"
PROCRASTINATE = "procrastinate, 50 jobs at a time"
POLLING = "a loop as Celery beat has them: SELECT, send_task, UPDATE, COMMIT"
DUE = """
WITH people AS (
    INSERT INTO followups.chat_conversations (id, email)
    SELECT gen_random_uuid(), 'lead' || gen_random_uuid() || '@example.com'
    FROM generate_series(1, %(count)s) RETURNING id, email
)
INSERT INTO followups.followup_event
    (id, conversation_id, followup_number, email, sequence, step, enrolled_by, due_at)
SELECT gen_random_uuid(), id, 1, email, 'default', 1, 'api', now() FROM people
"""
BEGAN = "SELECT extract(epoch FROM min(handed_over_at))::float FROM followups.followup_event"


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres)
    versions = peers.versions()
    runs = interleaved(
        {
            OURS: partial(_measured, lab, Followups.running, "alerts.intake"),
            PROCRASTINATE: partial(_measured, lab, partial(_peer, "procrastinate"), "bench.peer"),
            POLLING: partial(_measured, lab, partial(_peer, "celery"), "bench.peer"),
        },
        lab.rounds,
    )
    return {
        "runs": runs,
        "versions": {name: versions[name] for name in ("procrastinate", "celery")},
    }


def _measured(lab: Lab, work: Callable[[Followups], Any], queue: str) -> Run:
    with followups(lab) as system:
        system.query(DUE, {"count": COUNT})
        with work(system) as process:
            wait_until(
                "the last message",
                600,
                lambda: _there(system, queue) >= COUNT,
                lambda: process.pid is not None,
            )
            ended = time.time()
            cpu = cpu_seconds(process.pid or 0)
        ((began,),) = system.query(BEGAN)
        return {"rate": COUNT / (ended - began), "cpu": 1000 * cpu / COUNT}


def _there(system: Followups, queue: str) -> int:
    done = system.query(
        "SELECT count(*) FROM followups.followup_event WHERE status = 'handed_over'"
    )[0][0]
    return system.waiting(queue) if done == COUNT else 0


@contextmanager
def _peer(name: str, system: Followups) -> Iterator[Process]:
    env = {
        "AMQP_URL": system.vhost.admin_url(),
        "DATABASE_URL": system.database.superuser_url.replace("postgresql+psycopg2", "postgresql"),
    }
    argv = [str(peers.PYTHON), "-m", f"bench.peers.{name}_due"]
    with system.lab.process(argv, env) as process:
        yield process


def render(found: Any) -> str:
    runs, versions = found["runs"], found["versions"]
    rows = [
        (
            title,
            spread(own, "rate"),
            f"{ratio(runs[OURS], own, 'rate'):.1f}",
            spread(own, "cpu", ".2f"),
        )
        for title, own in runs.items()
    ]
    return f"""\
### $count due steps: claimed, recorded, published with confirmation

{table(("", "steps/s", "Ostoja's ratio to it", "process, CPU s/1k, including start-up"), rows)}

From the first claim to the last message in a durable quorum queue. Ostoja renders each mail
(subject, text, HTML, styles, a signed link) and enforces the daily cap per address; the others
publish a prepared text of the same length. procrastinate {versions["procrastinate"]} updates the
row and publishes in each job. The loop (Celery {versions["celery"]}) sends each due row as a task
and then commits, so a crash in between sends it again."""


HAND_OVER = Part("hand-over", run, render, parameters={"count": COUNT})
