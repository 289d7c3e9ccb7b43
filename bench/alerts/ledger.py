"""The same work with 10 million delivered rows, and the admin API with 100,000 pending ones."""

import json
import re
import time
import urllib.request
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID

import psycopg2
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from bench.alerts.drain import COUNT, drained
from bench.alerts.system import Alerts, alerts, uuid7
from bench.lab import Lab
from bench.measure import Run, interleaved, percentile, ratio, spread
from bench.part import Part, table
from deploy.up.process import HOST
from services.alerts.store.ledger import queries, transitions
from tests.support.databases import DatabaseUrl

ROWS = 10_000_000
AT_A_TIME = 500_000
PENDING = 100_000
CALLS = 50
EMPTY, FULL = "an empty ledger", f"{ROWS:,} delivered rows"
REFUSED = {"outcome": "failed", "attempt_reason": "server_error", "excerpt": ""}
LOOKS = ("/api/dlq/stats", "/api/dlq/pending", "/api/dlq/pending?target=slack&limit=100")

# Spread over half a day, so that retention has nothing to do during the measurement; each with its
# attempt. The delivered rows have short payloads to save disk space.
_DELIVERED = f"""
    WITH added AS (
        INSERT INTO alerts.delivery (
            alert_id, target, event_type, severity, source, payload, accepted_at, created_at,
            state, reason, attempt, attempts, last_attempt_at, finished_at)
        SELECT {uuid7("at")}, 'slack', 'bench', 'info', 'gateway', '{{"text": "delivered"}}',
            at, at, 'delivered', 'ok', 1, 1, at, at
        FROM (SELECT now() - random() * interval '12 hours' AS at
              FROM generate_series(1, %(count)s)) AS each
        RETURNING alert_id, target, finished_at
    )
    INSERT INTO alerts.attempt (
        alert_id, target, number, outcome, reason, status, seconds, excerpt, ended_at)
    SELECT alert_id, target, 1, 'delivered', 'ok', 200, 0.01, 'ok', finished_at FROM added
"""
_PENDING = f"""
    INSERT INTO alerts.delivery (
        alert_id, target, event_type, severity, source, payload, accepted_at, state, reason,
        error, attempt, attempts, due_at, last_attempt_at)
    SELECT {uuid7("now()")}, (ARRAY['slack', 'monday', 'sms', 'webhook'])[1 + each %% 4], 'bench',
        'info', 'gateway', '{{"text": "waits"}}', now(), 'pending', 'server_error',
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
        _vacuum(databases[FULL])  # otherwise autovacuum starts during a round
        print(f"  {ROWS:,} rows in {time.monotonic() - began:.0f} s", flush=True)
    for _ in range(4):  # time for the service to count rows that it did not deliver itself
        _drain(lab, databases[FULL])
    runs = interleaved(
        {title: partial(_drain, lab, database) for title, database in databases.items()},
        lab.rounds,
    )
    with alerts(lab, database=databases[FULL]) as system:
        system.query(_PENDING, {"count": PENDING})
        system.query(_COUNTED)
        system.query("ANALYZE")
        looks = _look(system)
        plans = {title: _plan(system, *each) for title, each in _statements(system).items()}
    return {"runs": runs, "looks": looks, "plans": plans}


def _vacuum(database: DatabaseUrl) -> None:
    with closing(psycopg2.connect(database.superuser_url)) as connection:
        connection.autocommit = True
        connection.cursor().execute("VACUUM ANALYZE")
        connection.cursor().execute("CHECKPOINT")  # or it still runs in the rounds


def _drain(lab: Lab, database: DatabaseUrl) -> Run:
    with alerts(lab, database=database) as system:
        system.queue_work(COUNT)
        lab.sink.reset()
        with system.running() as process:
            return drained(lab, "/slack", process, system.settled)


def _look(system: Alerts) -> dict[str, list[float]]:
    base = f"http://{HOST}:{system.values['ALERTS_PORT']}"
    headers = {"X-Internal-Key": system.values["ALERTS_INTERNAL_KEY"], "X-Caller": "admin"}
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


def _statements(system: Alerts) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the statements of a delivery and of the admin API, with values."""
    rows = system.query("SELECT alert_id::text FROM alerts.delivery ORDER BY alert_id LIMIT 50")
    ids = [row[0] for row in rows]
    claim = {"alert_ids": ids, "generations": [0] * len(ids), "target": "slack", "lease": 10.0}
    tried = [
        {"position": position, "alert_id": each, "target": "slack", "attempt": 1, "seconds": 0}
        | REFUSED
        for position, each in enumerate(ids)
    ]
    return {
        "claim of 50": (
            sa.text(transitions.run.texts["claim"]),
            {**claim, "retries": 5, "take_over": False},
        ),
        "settle of 50": (sa.text(transitions.run.texts["record"]), {"results": json.dumps(tried)}),
        "`/api/dlq/stats`": (sa.text(queries.run.texts["stats"]), {}),
        "`/api/dlq/pending`": (
            sa.text(queries.run.texts["paged"]),
            {**asdict(queries.Filter()), "lists": ["pending"], "limit": 100}
            | {"after": ("-infinity", str(UUID(int=0)), "")},
        ),
    }


def _plan(system: Alerts, statement: sa.Executable, values: dict[str, Any]) -> list[str]:
    """Return the scans of a statement and its execution time."""
    compiled = statement.compile(  # type: ignore[attr-defined]
        dialect=postgresql.psycopg2.dialect(),  # type: ignore[no-untyped-call]
        compile_kwargs={"render_postcompile": True},
    )
    lines = system.query(
        f"SET search_path = alerts; EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {compiled}",
        {**compiled.params, **values},
    )
    text = "\n".join(line for (line,) in lines)
    scans = re.findall(
        r"((?:Index Only|Bitmap Index|Index|Seq) Scan) (?:Backward )?(?:using|on) (\w+)", text
    )
    own = [f"{kind} {name}" for kind, name in scans if name.startswith(("delivery", "ledger"))]
    took = re.search(r"Execution Time: ([\d.]+) ms", text)
    return [*dict.fromkeys(own), took[1] if took else "?"]


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
    plans = [
        (title, ", ".join(f"`{scan}`" for scan in scans), took)
        for title, (*scans, took) in found["plans"].items()
    ]
    return f"""\
### The ledger's size

{table(HEAD, rows)}

{COUNT:,} waiting alerts as above, from the work queue. Requests with the delivered rows and
{PENDING:,} pending ones, {CALLS} times each:

{table(("", "median, ms", "largest, ms"), looks)}

The scans of the statements, by `EXPLAIN (ANALYZE)`; none reads the delivered rows:

{table(("", "scans", "in the server, ms"), plans)}"""


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
