"""P7: the memory of each process while 100,000 alerts wait and deliveries are refused."""

import asyncio
import json
import statistics
import time
import uuid
from contextlib import suppress
from itertools import count
from typing import Any

import aiohttp

from bench import plot
from bench.lab import Lab
from bench.measure import resident_mib
from bench.part import Part, table
from deploy.up.environment import SERVICES
from tests.support.databases import Databases
from tests.support.stack import Stack, running_stack, write_alerts_config
from tests.support.system import WORDING

MINUTES = 20
SAMPLE_SECONDS = 5.0
SETTLED_MINUTES = 5.0  # pools and caches have reached their size; the slope starts here
# Each target fails differently: errors with a breaker, errors without one (each waiting alert is
# tried every 30 s), a closed port.
WAITING = {"slack": 85_000, "webhook": 10_000, "sms": 5_000}
EVENTS = {"slack": "slack_alert", "webhook": "webhook", "sms": "sms"}
REFUSED: dict[str, Any] = {"timeout": 5, "margin": 5, "retry_delays": [30] * 50}
TARGETS = {
    "slack": REFUSED | {"breaker": {"fail_max": 5, "reset_timeout": 2}},
    "webhook": REFUSED | {"concurrency": 32, "breaker": {"fail_max": 1_000_000}},
    "sms": REFUSED | {"breaker": {"fail_max": 5, "reset_timeout": 2}},
}
PICTURE = "benchmarks-memory.svg"


def run(lab: Lab) -> Any:
    folder, own = lab.folder / "stack", lab.folder / "own"  # the stack writes its own file
    folder.mkdir()
    own.mkdir()
    settings = {
        "ALERTS_CONFIG": str(write_alerts_config(own, TARGETS)),
        "SLACK_WEBHOOK_URL": f"{lab.sink.url}/refuse/slack",
        "WEBHOOK_URL": f"{lab.sink.url}/refuse/webhook",
        "SMS_API_URL": f"http://127.0.0.1:{lab.ports.take()}/nobody-listens",
        "SMS_API_TOKEN": "bench",
        "SMS_TO": "+48600000000",
    }
    servers = (lab.postgres, lab.rabbitmq, lab.redis)
    with running_stack(folder, lab.ports, Databases(lab.postgres), servers, settings) as stack:
        stack.vhost.set_retry(r"^alerts\.(slack|webhook|sms)\.retry$", 30)
        return asyncio.run(_watch(lab, stack))


async def _watch(lab: Lab, stack: Stack) -> Any:
    samples: list[dict[str, float]] = []
    began = time.monotonic()
    async with aiohttp.ClientSession(
        headers={"X-API-KEY": stack.values["SERVICE_API_KEY"]}
    ) as session:
        sampling = asyncio.create_task(_sample(stack, samples, began))
        await _accept(session, stack)
        filled = time.monotonic() - began
        print(f"  {sum(WAITING.values()):,} accepted in {filled:.0f} s", flush=True)
        visitors = asyncio.create_task(_visit(session, stack))
        await asyncio.sleep(MINUTES * 60)
        for task in (sampling, visitors):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        ledger = await stack.ledger()
    return {
        "samples": samples,
        "filled": filled,
        "pending": ledger["pending"],
        "refused": {name: lab.sink.count(f"/refuse/{name}") for name in ("slack", "webhook")},
    }


async def _sample(stack: Stack, samples: list[dict[str, float]], began: float) -> None:
    for number in count(1):
        now = time.monotonic() - began
        used = {name: resident_mib(stack.pid(name)) for name in SERVICES}
        samples.append({"seconds": now, **used})
        if number % 12 == 0:
            print(f"  {now:.0f} s: {used}", flush=True)
        await asyncio.sleep(max(0.0, number * SAMPLE_SECONDS - (time.monotonic() - began)))


async def _accept(session: aiohttp.ClientSession, stack: Stack) -> None:
    for target, waiting in WAITING.items():
        alert = {"event_type": EVENTS[target], "payload": {"text": "a" * 400}}
        body = json.dumps({"alerts": [alert] * 500})
        for _ in range(waiting // 500):
            async with session.post(
                f"{stack.url}/api/alerts/batch",
                data=body,
                headers={"Content-Type": "application/json"},
            ) as answer:
                answer.raise_for_status()


async def _visit(session: aiohttp.ClientSession, stack: Stack) -> None:
    """Send five requests every half second, so that the other processes have work."""
    for number in count():
        address = f"anna.{number}@example.pl"
        text = f"Dzień dobry, remont kuchni, budżet 60 tys. {address}"
        calls: tuple[tuple[str, str, Any], ...] = (
            ("POST", "/api/chatbot/chat", {"session_id": uuid.uuid4().hex, "message": text}),
            ("POST", "/api/opt-in", {"email": address, "text": WORDING.text}),
            ("POST", "/api/unsubscribe", {"email": address}),
            ("POST", "/api/alerts", {"event_type": "slack_alert", "payload": {"text": text}}),
            ("GET", "/api/alerts/00000000-0000-0000-0000-000000000000", None),
        )
        for method, path, body in calls:
            async with session.request(method, stack.url + path, json=body) as answer:
                await answer.read()
        await asyncio.sleep(0.5)


def render(found: Any) -> str:
    samples = found["samples"]
    names = [name for name in SERVICES if name in samples[0]]
    plot.lines(
        PICTURE,
        {name: [(one["seconds"] / 60, one[name]) for one in samples] for name in names},
        across="minutes",
        up="resident memory, MiB",
    )
    after = found["filled"] + SETTLED_MINUTES * 60
    settled = [one for one in samples if one["seconds"] >= after]
    minutes = [one["seconds"] / 60 for one in settled]
    slack, webhook = (found["refused"][name] for name in ("slack", "webhook"))
    rows = []
    for name in names:
        slope = statistics.linear_regression(minutes, [one[name] for one in settled]).slope
        levels = (samples[0][name], settled[0][name], settled[-1][name])
        largest = max(one[name] for one in samples)
        rows.append((name, *(f"{each:.0f}" for each in (*levels, largest)), f"{slope:+.2f}"))
    return f"""\
### Memory with {sum(WAITING.values()):,} waiting alerts, refused for {MINUTES} minutes (P7)

{found["pending"]:,} alerts wait at the end. During the run the sink refused {slack:,} deliveries to
slack (status 500; its breaker allows one half-open try every 2 s) and {webhook:,} to webhook
(status 500; its breaker never opens). The port of sms is closed. Five other requests pass the
gateway every half second.

{table(HEAD, rows)}

![Resident memory of each process over time]({PICTURE})"""


HEAD = (
    "MiB",
    "empty",
    f"{SETTLED_MINUTES:.0f} minutes after the last was accepted",
    "at the end",
    "largest",
    "slope between those two, MiB per minute",
)
MEMORY = Part("memory", run, render, long=True)
