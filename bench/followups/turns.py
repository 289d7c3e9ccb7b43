"""Chat turns through the gateway, with all their effects."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from typing import Any

from bench import load
from bench.followups.system import Followups, followups
from bench.lab import Lab
from bench.measure import Run, cpu_seconds, interleaved, percentile, ratio, spread
from bench.part import Part, table
from deploy.up.process import Process

CONNECTIONS = 64
TURNS_A_TALK = 4
TALKS = 500
PHONES = count(600_000_000)
PLAIN = "plain: aiohttp, aiopg, one INSERT"
OURS = "**Ostoja**: dialogue, facts, score, lead, enrolment, both messages"
SAID = (
    "Dzień dobry, chcę wyremontować kuchnię 12 m2",
    "budżet ok. 60 tys. zł, od marca",
    "Anna, {session}@example.com, {phone}",
    "tak, zgadzam się",
)


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres, lab.redis)
    cases = {PLAIN: Followups.plain, OURS: Followups.running}
    return interleaved(
        {title: partial(_turns, lab, own) for title, own in cases.items()}, lab.rounds
    )


def _turns(lab: Lab, owner: Callable[[Followups], AbstractContextManager[Process]]) -> Run:
    with followups(lab) as system, owner(system) as process, system.gateway() as gateway:
        url = f"{system.gateway_url}/api/chatbot/chat"
        load.post(url, {}, _talks(CONNECTIONS), connections=CONNECTIONS)
        pids = process.pid or 0, gateway.pid or 0
        before = cpu_seconds(*pids)
        done = load.post(url, {}, _talks(TALKS), connections=CONNECTIONS)
        count = TALKS * TURNS_A_TALK
        if done.statuses != {200: count}:
            raise RuntimeError(f"not all were answered: {done.statuses}")
        return {
            "rate": count / done.seconds,
            "p99": 1000 * percentile(done.latencies, 0.99),
            "cpu": 1000 * (cpu_seconds(*pids) - before) / count,
        }


def _talks(number: int) -> Iterator[bytes]:
    """Yield the first turn of each conversation, then the second of each, and so on."""
    # Each has its own phone number: with a shared one, all would wait for the lock of one lead.
    talks = [(uuid.uuid4().hex, next(PHONES)) for _ in range(number)]
    for said in SAID:
        for session, phone in talks:
            message = said.format(session=session, phone=phone)
            yield json.dumps({"session_id": session, "message": message}).encode()


def render(runs: Any) -> str:
    rows = [
        (
            title,
            spread(own, "rate"),
            f"{ratio(own, runs[PLAIN], 'rate'):.2f}",
            spread(own, "p99"),
            spread(own, "cpu", ".2f"),
        )
        for title, own in runs.items()
    ]
    return f"""\
### Chat turns through the gateway, {CONNECTIONS} at a time

{table(("behind the same gateway", "turns/s", "ratio", "p99, ms", "processes, CPU s/1k"), rows)}

{TALKS} conversations of {TURNS_A_TALK} turns. Each becomes a lead, and in its fourth turn it grants
consent and is enrolled; the outbox gets a message for both. A turn is one transaction, which locks
the conversation and writes both messages, the facts and the score."""


TURNS = Part("turns", run, render)
