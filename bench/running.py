"""What alerts and chat turns cost on the system that `make up` or `make up-cluster` runs here.

    python -m bench.running [ALERTS TURNS]

For docs/sizing.md: CPU and disk by process, PostgreSQL's log and size. Run it in the system's
checkout, whose .env must have no limit in the way (`LIMITS` below, before `make up`), with nothing
else on the machine. The sandbox and this client use its cores, too; they are not in the sums.
"""

import json
import os
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import psycopg2

from bench.load import get, post
from bench.measure import cpu_seconds, written_bytes
from deploy.up import environment, supervisor
from deploy.up.__main__ import ENV, _cluster, _servers, _single

MANY = "100000000 per minute"
LIMITS = (
    *("SERVICE_RATE_LIMIT", "CHAT_RATE_LIMIT", "CHAT_BUDGET"),
    *("API_RATE_LIMIT_MINUTE", "API_RATE_LIMIT_HOUR"),
)
TEXT = "Dzień dobry, chcę wykończyć mieszkanie 60 m2 w Warszawie, budżet 120 tysięcy, od marca"
LEDGER = (
    "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, pg_database_size(current_database()), "
    "count(*) FILTER (WHERE state = 'delivered') FROM alerts.delivery"
)


@dataclass
class Snapshot:
    at: float
    cpu: Mapping[str, float]
    written: Mapping[str, int]
    log: int
    size: int
    delivered: int


class System:
    def __init__(self) -> None:
        self.values = environment.load(ENV)
        self.url = f"http://127.0.0.1:{self.values['GATEWAY_PORT']}"
        if limited := [name for name in LIMITS if self.values[name] != MANY]:
            raise SystemExit("\n".join(f"{name}='{MANY}'" for name in limited) + "\n: set in .env")

    def snapshot(self) -> Snapshot:
        cpu: dict[str, float] = defaultdict(float)
        written: dict[str, int] = defaultdict(int)
        for name, pids in self._processes().items():
            cpu[name.partition("-")[0]] += cpu_seconds(*pids)
            written[name.partition("-")[0]] += written_bytes(*pids)
        log, size, delivered = self.ask(LEDGER)
        return Snapshot(time.monotonic(), cpu, written, int(log), size, delivered)

    def _processes(self) -> dict[str, list[int]]:
        found = {server.name: [server.pid] for server in _servers(self.values)}
        found |= {name: [supervisor.record(name).pid] for name in supervisor.names()}
        if supervisor.CLUSTER.exists():  # PostgreSQL is no child of Patroni
            for name, host in _cluster(self.values).hosts.items():
                found[f"postgres-{name}"].append(host.postgres.postmaster)
        return {name: [pid for pid in pids if pid is not None] for name, pids in found.items()}

    def ask(self, statement: str) -> tuple[int, ...]:
        cluster = supervisor.CLUSTER.exists()
        dsn = _cluster(self.values).hosts["a"].dsn if cluster else _single(self.values)[1].dsn
        with closing(psycopg2.connect(dsn, dbname=environment.DATABASE)) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            (row,) = cursor.fetchall()
            return row

    def wait_for(self, delivered: int) -> None:
        while self.ask(LEDGER)[2] < delivered:
            time.sleep(1)


def bodies(count: int, *, chat: bool) -> Iterator[bytes]:
    for number in range(count):
        made: dict[str, object] = (
            {"message": TEXT, "session_id": uuid.uuid4().hex}
            if chat
            else {"event_type": "slack_alert", "payload": {"text": f"{TEXT}, {number}"}}
        )
        yield json.dumps(made).encode()


def report(what: str, count: int, seconds: float, before: Snapshot, after: Snapshot) -> None:
    per = count / 1000
    print(f"{what}: {count} in {seconds:.0f} s, {count / seconds:,.0f}/s")
    cpu = {name: after.cpu[name] - before.cpu.get(name, 0) for name in after.cpu}
    for name, spent in sorted(cpu.items(), key=lambda one: -one[1]):
        disk = (after.written[name] - before.written.get(name, 0)) / count
        print(f"  {name:10} {spent / per:7.3f} CPU s/1,000   {disk:8,.0f} B on disk each")
    ours = sum(spent for name, spent in cpu.items() if name in environment.SERVICES)
    servers = sum(cpu.values()) - ours - cpu.get("sandbox", 0)
    print(f"  Ostoja's processes {ours / per:.3f}, servers {servers / per:.3f} CPU s/1,000")
    print(
        f"  PostgreSQL: {(after.log - before.log) / count:,.0f} B of log, "
        f"{(after.size - before.size) / count:,.0f} B of database each"
    )


def run(system: System, what: str, count: int) -> None:
    before, chat = system.snapshot(), what == "chat turns"
    headers = {} if chat else {"X-API-KEY": system.values["SERVICE_API_KEY"]}
    path = "/api/chatbot/chat" if chat else "/api/alerts"
    load = post(f"{system.url}{path}", headers, bodies(count, chat=chat))
    if load.statuses != Counter({200 if chat else 202: count}):
        raise SystemExit(f"{what}: answered {dict(load.statuses)}")
    seconds = load.seconds
    if chat:
        time.sleep(5)  # for what the messages cause
    else:
        print(f"accepted: {count / seconds:,.0f}/s")
        system.wait_for(before.delivered + count)
        seconds = time.monotonic() - before.at
    report(what, count, seconds, before, system.snapshot())


def main() -> None:
    given = [int(each) for each in sys.argv[1:]]
    alerts, turns = given or (20000, 2000)
    system = System()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    get(iter([f"{system.url}/api/health"]), {})
    run(system, "alerts", min(alerts, 500))  # to warm up
    run(system, "alerts", alerts)
    run(system, "chat turns", turns)


if __name__ == "__main__":
    main()
