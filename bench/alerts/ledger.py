"""The same work with 10 million delivered rows, and what the admin sees with 100,000 pending."""

import time
import urllib.request
from functools import partial
from typing import Any

from bench.alerts.drain import COUNT, drained
from bench.alerts.system import Alerts, alerts
from bench.lab import Lab
from bench.measure import Run, interleaved, percentile, ratio, spread
from bench.part import Part, table
from deploy.local.servers import HOST
from tests.support.databases import DatabaseUrl

ROWS = 10_000_000
AT_A_TIME = 500_000
PENDING = 100_000
CALLS = 50
EMPTY, FULL = "an empty ledger", f"{ROWS:,} delivered rows"
LOOKS = ("/api/dlq/stats", "/api/dlq/pending", "/api/dlq/pending?target=slack&limit=100")

# Spread over a day, each with its attempt; what was delivered has a short payload here, for the
# disk's sake.
_DELIVERED = """
    WITH added AS (
        INSERT INTO alerts.delivery (
            alert_id, target, event_type, severity, source, payload, accepted_at, created_at,
            state, reason, attempt, spent, last_attempt_at, finished_at)
        SELECT gen_random_uuid(), 'slack', 'bench', 'info', 'gateway', '{"text": "delivered"}',
            at, at, 'delivered', 'ok', 1, 1, at, at
        FROM (SELECT now() - random() * interval '1 day' AS at
              FROM generate_series(1, %(count)s)) AS each
        RETURNING alert_id, target, finished_at
    )
    INSERT INTO alerts.attempt (
        alert_id, target, number, outcome, reason, status, seconds, excerpt, ended_at)
    SELECT alert_id, target, 1, 'delivered', 'ok', 200, 0.01, 'ok', finished_at FROM added
"""
_PENDING = """
    INSERT INTO alerts.delivery (
        alert_id, target, event_type, severity, source, payload, accepted_at, state, reason,
        error, attempt, spent, due_at, last_attempt_at)
    SELECT gen_random_uuid(), (ARRAY['slack', 'monday', 'sms', 'webhook'])[1 + each %% 4], 'bench',
        'info', 'gateway', '{"text": "waits"}', now(), 'pending', 'server_error',
        'server_error 500', 1, 1, now() + interval '1 hour', now()
    FROM generate_series(1, %(count)s) AS each
"""
_COUNTED = """
    INSERT INTO alerts.ledger_total AS total (target, accepted)
    SELECT target, count(*) FROM alerts.delivery GROUP BY target
    ON CONFLICT (target) DO UPDATE SET accepted = excluded.accepted
"""


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres)
    databases = {EMPTY: lab.databases.create("alerts"), FULL: lab.databases.create("alerts")}
    with alerts(lab, database=databases[FULL]) as system:
        began = time.monotonic()
        for done in range(0, ROWS, AT_A_TIME):
            system.query(_DELIVERED, {"count": min(AT_A_TIME, ROWS - done)})
        system.query(_COUNTED)
        system.query("ANALYZE")
        print(f"  {ROWS:,} rows in {time.monotonic() - began:.0f} s", flush=True)
    runs = interleaved(
        {title: partial(_drain, lab, database) for title, database in databases.items()},
        lab.rounds,
    )
    with alerts(lab, database=databases[FULL]) as system:
        system.query(_PENDING, {"count": PENDING})
        system.query(_COUNTED)
        system.query("ANALYZE")
        looks = _look(system)
    return {"runs": runs, "looks": looks}


def _drain(lab: Lab, database: DatabaseUrl) -> Run:
    with alerts(lab, database=database) as system:
        system.queue_work(COUNT)
        lab.sink.reset()
        with system.running() as process:
            return drained(lab, "/slack", process, system.settled)


def _look(system: Alerts) -> dict[str, list[float]]:
    base = f"http://{HOST}:{system.values['ALERTS_PORT']}"
    headers = {"X-Internal-Key": system.values["INTERNAL_API_KEY"], "X-Caller": "admin"}
    found: dict[str, list[float]] = {}
    with system.running() as process:
        system.lab.answering(f"{base}/health", process)
        for path in LOOKS * CALLS:
            request = urllib.request.Request(base + path, headers=headers)
            began = time.monotonic()
            with urllib.request.urlopen(request) as answer:
                answer.read()
            found.setdefault(path, []).append(1000 * (time.monotonic() - began))
    return found


def render(found: Any) -> str:
    runs = found["runs"]
    rows = [
        (
            title,
            spread(own, "rate"),
            f"{ratio(own, runs[EMPTY], 'rate'):.2f}",
            spread(own, "cpu", ".2f"),
            f"{ratio(own, runs[EMPTY], 'cpu'):.2f}",
            spread(own, "servers", ".2f"),
            f"{ratio(own, runs[EMPTY], 'servers'):.2f}",
        )
        for title, own in runs.items()
    ]
    looks = [
        (f"`GET {path}`", f"{percentile(took, 0.5):.1f}", f"{max(took):.1f}")
        for path, took in found["looks"].items()
    ]
    return f"""\\
### The ledger's size

{table(HEAD, rows)}

{COUNT:,} waiting alerts as above, from the work queue. With the delivered rows and {PENDING:,}
pending ones, {CALLS} times each:

{table(("", "median, ms", "largest, ms"), looks)}"""


HEAD = (
    "",
    "alerts/s",
    "ratio",
    "worker, CPU s/1k",
    "ratio",
    "RabbitMQ and PostgreSQL, CPU s/1k",
    "ratio",
)
LEDGER = Part("ledger", run, render, long=True)
