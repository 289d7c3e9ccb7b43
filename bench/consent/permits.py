"""Permits: requested by alerts over RabbitMQ, committed by consent, answered."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop

from bench import load
from bench.consent.system import Consent, consent
from bench.lab import Lab
from bench.measure import Run, cpu_seconds, interleaved, percentile, spread
from bench.part import Part, table
from libs.common.messaging.broker import Broker
from libs.common.messaging.rpc import Requester
from services.alerts import messages, topology
from services.alerts.rules.delivery import Once
from tests.support.system import WORDING

ASKED = 1_000
PEOPLE = 100
AT_A_TIME = (1, 8, 64)
SECONDS = 10.0
AGREED = {"text": WORDING.text, "source": "bench"}


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres, lab.redis)
    with consent(lab) as system, system.running() as process:
        people = agreed(system)
        cases: dict[str, Callable[[], Run]] = {
            str(number): partial(asked, system, process.pid or 0, people, number)
            for number in AT_A_TIME
        }
        return interleaved(cases, lab.rounds)


def agreed(system: Consent) -> list[str]:
    """Grant consents through the gateway."""
    people = [f"anna.{uuid.uuid4().hex}@example.pl" for _ in range(PEOPLE)]
    bodies = (json.dumps(AGREED | {"email": each}).encode() for each in people)
    with system.gateway():
        done = load.post(f"{system.gateway_url}/api/opt-in", {}, bodies, connections=8)
    if done.statuses != {200: PEOPLE}:
        raise RuntimeError(f"not agreed: {done.statuses}")
    return people


def asked(system: Consent, pid: int, people: list[str], at_a_time: int) -> Run:
    before = cpu_seconds(pid)
    began = time.monotonic()
    took = uvloop.run(_ask(system, people, at_a_time))
    seconds = time.monotonic() - began
    return {
        "rate": ASKED / seconds,
        "p50": percentile(took, 0.5),
        "p99": percentile(took, 0.99),
        "cpu": 1000 * (cpu_seconds(pid) - before) / ASKED,
    }


async def _ask(system: Consent, people: list[str], at_a_time: int) -> list[float]:
    """Request and return permits as the sender does."""
    took: list[float] = []
    numbers = iter(range(ASKED))
    async with (
        Broker.connect(system.vhost.url("alerts"), "bench") as broker,
        Requester(broker, "alerts") as requester,
    ):

        async def worker() -> None:
            for number in numbers:
                once = Once(people[number % PEOPLE], "marketing", "")
                message = uuid.uuid4()
                began = time.monotonic()
                answer = await requester.ask(
                    topology.CONSENT_COMMANDS,
                    messages.PERMIT_REQUEST,
                    messages.PERMIT_REQUEST,
                    messages.permit_request(message, 1, once),
                    timeout=SECONDS,
                )
                took.append(time.monotonic() - began)
                if answer["answer"] != "granted":
                    raise RuntimeError(f"not granted: {answer}")
                given_back = messages.permit_return(message, 1, once)
                await broker.publish(
                    topology.CONSENT_COMMANDS, messages.PERMIT_RETURN, given_back, timeout=SECONDS
                )

        await asyncio.gather(*(worker() for _ in range(at_a_time)))
    return took


def rows(runs: Any) -> list[tuple[str, ...]]:
    return [
        (
            title,
            *(spread([{"ms": 1000 * run[name]} for run in own], "ms", ".1f") for name in MILLIS),
            spread(own, "rate"),
            spread(own, "cpu", ".2f"),
        )
        for title, own in runs.items()
    ]


MILLIS = ("p50", "p99")
HEAD = ("requested at a time", "p50, ms", "p99, ms", "requested and returned/s", "CPU s/1k")


def render(runs: Any) -> str:
    return f"""\
### Permits, {ASKED:,} requests over RabbitMQ

{table(HEAD, rows(runs))}

From the publication of the request to its answer: confirmed into the queue, committed by consent
under the person's lock, and the answer confirmed. The sender then returns each permit in another
message, which consent also commits. As shipped, one process sends eight mails at a time. CPU is
that of the consent process."""


PERMITS = Part("permits", run, render)
