"""Withdrawals and status reads through the gateway, compared with the simplest upstream."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import repeat
from typing import Any

from bench import load
from bench.consent.system import Consent, consent
from bench.lab import Lab
from bench.load import Load
from bench.measure import Run, cpu_seconds, interleaved, percentile, ratio, spread
from bench.part import Part, table
from deploy.up.process import Process, wait_until

CONNECTIONS = 64
WARM = 500
WITHDRAWALS = 6000
READS = 10_000
PLAIN = "plain: aiohttp, aiopg, one INSERT"
OURS = "**Ostoja**: chain, encryption, outbox, permits"
FIXED = "plain: an upstream that returns a constant"
LOOKED_UP = "**Ostoja**: looked up"

Owner = Callable[[Consent], AbstractContextManager[Process]]
Measure = Callable[[Consent, list[int]], Run]


def run_withdrawals(lab: Lab) -> Any:
    return _beside(lab, withdraw, {PLAIN: Consent.plain, OURS: Consent.running})


def run_status(lab: Lab) -> Any:
    return _beside(lab, read_status, {FIXED: Consent.plain, LOOKED_UP: Consent.running})


def _beside(lab: Lab, measure: Measure, owners: dict[str, Owner]) -> Any:
    lab.start(lab.rabbitmq, lab.postgres, lab.redis)

    def once(owner: Owner) -> Run:
        with consent(lab) as system:
            return through_gateway(measure, system, owner)

    return interleaved({title: partial(once, owner) for title, owner in owners.items()}, lab.rounds)


def through_gateway(measure: Measure, system: Consent, owner: Owner = Consent.running) -> Run:
    with owner(system) as process, system.gateway() as gateway:
        return measure(system, [process.pid or 0, gateway.pid or 0])


def withdraw(system: Consent, pids: list[int]) -> Run:
    """Withdraw for unknown addresses, the costliest case: each becomes a new person with a key."""
    url = f"{system.gateway_url}/api/unsubscribe"
    run = _measured(
        lambda count: load.post(url, {}, _bodies(count), connections=CONNECTIONS),
        WITHDRAWALS,
        pids,
        _servers(system.lab),
    )
    began = time.monotonic()
    wait_until("an empty outbox", 60, partial(_told, system), lambda: True)
    return {**run, "told": time.monotonic() - began}


def _told(system: Consent) -> bool:
    return not system.query("SELECT EXISTS (SELECT FROM consent.outbox)")[0][0]


def read_status(system: Consent, pids: list[int]) -> Run:
    """Read the status of an address that has withdrawn, as the public may."""
    email = _address()
    body = json.dumps({"email": email}).encode()
    withdrawn = load.post(f"{system.gateway_url}/api/unsubscribe", {}, iter([body]), connections=1)
    if withdrawn.statuses != {200: 1}:
        raise RuntimeError(f"not withdrawn: {withdrawn.statuses}")
    url = f"{system.gateway_url}/api/unsubscribe/status/{email}"
    return _measured(
        lambda count: load.get(repeat(url, count), {}, connections=CONNECTIONS),
        READS,
        pids,
        _servers(system.lab),
    )


def _measured(
    send: Callable[[int], Load], count: int, pids: list[int], servers: tuple[int, ...]
) -> Run:
    _sent(send, WARM)
    before = cpu_seconds(*pids), cpu_seconds(*servers)
    done = _sent(send, count)
    after = cpu_seconds(*pids), cpu_seconds(*servers)
    cpu, of_servers = (
        1000 * (end - start) / count for start, end in zip(before, after, strict=True)
    )
    return {
        "rate": count / done.seconds,
        "p50": percentile(done.latencies, 0.5),
        "p99": percentile(done.latencies, 0.99),
        "cpu": cpu,
        "servers": of_servers,
    }


def _sent(send: Callable[[int], Load], count: int) -> Load:
    done = send(count)
    if done.statuses != {200: count}:
        raise RuntimeError(f"not all were answered: {done.statuses}")
    return done


def _servers(lab: Lab) -> tuple[int, ...]:
    return (lab.rabbitmq.pid or 0, lab.postgres.pid or 0, lab.redis.pid or 0)


def _address() -> str:
    return f"anna.{uuid.uuid4().hex}@example.pl"


def _bodies(count: int) -> Iterator[bytes]:
    return (json.dumps({"email": _address()}).encode() for _ in range(count))


def rows(runs: Any, base: str) -> list[tuple[str, ...]]:
    return [
        (
            title,
            spread(own, "rate"),
            f"{ratio(own, runs[base], 'rate'):.2f}",
            spread([{"ms": 1000 * run["p50"]} for run in own], "ms", ".1f"),
            spread([{"ms": 1000 * run["p99"]} for run in own], "ms", ".1f"),
            spread(own, "cpu", ".2f"),
            f"{ratio(own, runs[base], 'cpu'):.2f}",
            spread(own, "servers", ".2f"),
        )
        for title, own in runs.items()
    ]


HEAD = (
    "",
    "requests/s",
    "ratio",
    "p50, ms",
    "p99, ms",
    "gateway and upstream, CPU s/1k",
    "ratio",
    "RabbitMQ, PostgreSQL and Redis, CPU s/1k",
)


def render_withdrawals(runs: Any) -> str:
    told = spread(runs[OURS], "told", ".1f")
    return f"""\
### Unsubscribe, {WITHDRAWALS:,} requests over {CONNECTIONS} connections

{table(HEAD, rows(runs, PLAIN))}

Both run behind the same gateway, which counts two limits in Redis per request. Every address is
new. The plain upstream commits a row in plain text and answers. Ostoja creates the person with a
key, withdraws and suppresses, looks for lent permits, and writes an encrypted row into the chain
and a message into the outbox, which is published and confirmed concurrently. Then it records the
withdrawal in its host's journal, with fsync; requests that wait for that share the next write.
The chain lets one transaction commit after the other. The outbox was empty {told} s after the last
answer."""


def render_status(runs: Any) -> str:
    return f"""\
### Status reads, {READS:,} requests over {CONNECTIONS} connections

{table(HEAD, rows(runs, FIXED))}

`GET /api/unsubscribe/status/{{email}}` without a key, for an address that has withdrawn. The
constant has the same length."""


WITHDRAWALS_PART = Part("withdrawals", run_withdrawals, render_withdrawals)
STATUS_PART = Part("status", run_status, render_status)
