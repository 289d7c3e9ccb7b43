"""What a fleet knows when nothing is on its way any more."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime
from typing import Any

import aiohttp
import psycopg2

from tests.cluster.checker import Found
from tests.cluster.fleet import Fleet
from tests.cluster.history import History, operations
from tests.support.brokers import Management
from tests.support.eventually import eventually

BALANCED_SECONDS = 120.0
ENDS = ("sent", "cancelled", "in_doubt", "failed")
TABLES = """
SELECT table_schema || '.' || table_name AS name FROM information_schema.tables
WHERE table_schema IN ('alerts', 'consent', 'followups') AND table_type = 'BASE TABLE'
"""


async def gather(fleet: Fleet, history: History, seconds: float = BALANCED_SECONDS) -> Found:
    """Wait until the ledger is balanced and no mail or erasure is under way; then read it all."""
    found = Found()
    people = [one.key for one in operations(history.events, "opt-in") if one.outcome == "ok"]
    erasures = list(operations(history.events, "erase"))
    erased = [one.key for one in erasures if one.outcome == "ok"]
    seen: Any = None

    async def at_rest() -> bool:
        nonlocal seen
        try:
            seen = await fleet.ledger()
            left = await asyncio.to_thread(_left, fleet, people)
            traces = await asyncio.to_thread(_traces, fleet, erased)
        except (AssertionError, psycopg2.Error, aiohttp.ClientError, LookupError, TypeError) as why:
            seen = why  # no answer, or one without numbers
            return False
        found.traces = traces
        return bool(seen["ok"]) and seen["pending"] == 0 and left == 0 and not traces

    with suppress(TimeoutError):
        await eventually(at_rest, seconds, every=1)
    found.ledger = seen if isinstance(seen, dict) else {"ok": False, "why": repr(seen)}
    found.traces += await asyncio.to_thread(_traces_in_queues, fleet, erased)

    rows = await asyncio.to_thread(
        fleet.query,
        "SELECT alert_id::text, state FROM alerts.delivery WHERE target = 'slack'"
        " UNION ALL SELECT alert_id::text, 'repeat' FROM alerts.duplicate",
    )
    found.states = {row.alert_id: row.state for row in rows}
    rows = await asyncio.to_thread(fleet.query, "SELECT alert_id::text FROM alerts.escalation")
    found.told = {row.alert_id for row in rows}
    got = await fleet.sandbox.received("slack")
    found.received = Counter(str(one["body"]["text"]).removeprefix("Resolved: ") for one in got)
    for mail in await fleet.sandbox.received("email"):
        # A request that a frozen balancer held is carried out late: after a withdrawal, consent
        # asks for a confirmation by mail, which is no marketing.
        if "list-unsubscribe" not in mail["headers"]:
            continue
        at = (datetime.fromisoformat(mail["at"]) - history.began_at).total_seconds()
        for address in mail["body"]["rcpt_tos"]:
            found.mails.setdefault(address, []).append(at)
    rows = await asyncio.to_thread(
        fleet.query,
        "SELECT email, status FROM followups.followup_event"
        " WHERE email = ANY(%s) AND followup_number = 1",
        people,
    )
    found.follow_ups = {row.email: row.status for row in rows}
    verified = await fleet.http("GET", "/api/consent/audit/verify", key="admin")
    found.verified = verified.status == 200 and verified.body["ok"]
    for address in set(people) - {one.key for one in erasures}:
        trail = await fleet.http("GET", f"/api/consent/audit/{address}", key="admin")
        found.actions[address] = {one["action"] for one in trail.body["entries"]}
    return found


def _left(fleet: Fleet, people: list[str]) -> int:
    """Count the mails that are due and have not come to an end."""
    (row,) = fleet.query(
        "SELECT count(*) AS mails FROM followups.followup_event WHERE email = ANY(%s)"
        " AND followup_number = 1 AND status <> ALL(%s)",
        people,
        list(ENDS),
    )
    return int(row.mails)


def _traces(fleet: Fleet, erased: list[str]) -> list[tuple[str, str]]:
    """Return where an erased address stands in a table."""
    if not erased:
        return []
    looks = (
        f"SELECT DISTINCT gone.address, '{table.name}' AS place"
        f" FROM gone, {table.name} AS whole_row WHERE strpos(whole_row::text, gone.address) > 0"
        for table in fleet.query(TABLES)
    )
    gone = "WITH gone AS (SELECT unnest(%s) AS address) "
    rows = fleet.query(gone + " UNION ALL ".join(looks), erased)
    return [(row.address, row.place) for row in rows]


def _traces_in_queues(fleet: Fleet, erased: list[str]) -> list[tuple[str, str]]:
    """Return in which queues a message waits that names an erased address.

    Once only: whoever reads a message of a quorum queue often enough has it dropped.
    """
    found = []
    broker = Management(fleet.cluster.hosts["a"].rabbitmq)
    for queue in broker.call("GET", "queues/ostoja"):
        # Nobody else may read an exclusive queue, and the ledger's marker names no one.
        others = queue.get("exclusive") or queue["name"].startswith("alerts.epoch.")
        if queue.get("messages") and not others:
            body = {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"}
            for message in broker.call("POST", f"queues/ostoja/{queue['name']}/get", body):
                found += [(address, queue["name"]) for address in erased if address in str(message)]
    return found
