"""P6: the latency of one target's deliveries, with and without another target that hangs."""

import asyncio
import json
import time
from functools import partial
from typing import Any

import aiohttp

from bench.alerts.system import Alerts, alerts
from bench.lab import Lab, monotonic_mark
from bench.measure import Run, interleaved, percentile, ratio, spread
from bench.part import Part, table
from bench.peers import TEXT
from deploy.up.process import HOST, wait_until

WAITING = 5000
PER_SECOND = 50
SECONDS = 10
# The worst case: each delivery takes the whole time-out, 32 at a time, and no breaker opens. The
# healthy target is configured as shipped.
HANGING = {"webhook": {"concurrency": 32, "breaker": {"fail_max": 1_000_000}}}
WITHOUT, WITH = "alone", f"beside {WAITING:,} alerts for a target that hangs"


def run(lab: Lab) -> Any:
    lab.start(lab.rabbitmq, lab.postgres, lab.redis)
    cases = {WITHOUT: partial(_run, lab, sick=False), WITH: partial(_run, lab, sick=True)}
    return interleaved(cases, lab.rounds)


def _run(lab: Lab, *, sick: bool) -> Run:
    with alerts(lab, HANGING) as system:
        system.declare()
        if sick:
            system.queue_work(WAITING, "webhook")
        lab.sink.reset()
        with system.running() as worker:
            lab.answering(f"http://{HOST}:{system.values['ALERTS_PORT']}/health", worker)
            if sick:
                lab.sink.wait("/hang", 32, worker, seconds=30)
            with system.gateway():
                asyncio.run(_send(system))
            count = PER_SECOND * SECONDS
            lab.sink.wait("/slack", count, worker)
            wait_until("the last settle", 30, system.settled, lambda: worker.pid is not None)
        latencies = [1000 * each for each in lab.sink.latencies("/slack")]
        hung = lab.sink.count("/hang")
    return {
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "hung": hung,
    }


async def _send(system: Alerts) -> None:
    """Open loop: a slow answer delays no later request."""
    headers = {"X-API-KEY": system.values["SERVICE_API_KEY"], "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:

        async def one() -> None:
            text = f"{TEXT} {monotonic_mark()}"
            body = json.dumps({"event_type": "slack_alert", "payload": {"text": text}})
            async with session.post(f"{system.gateway_url}/api/alerts", data=body) as answer:
                await answer.read()

        began = time.monotonic()
        sent = []
        for number in range(PER_SECOND * SECONDS):
            await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            sent.append(asyncio.create_task(one()))
        await asyncio.gather(*sent)


def render(runs: Any) -> str:
    rows = [
        (
            title,
            spread(own, "p50", ".1f"),
            f"{ratio(own, runs[WITHOUT], 'p50'):.2f}",
            spread(own, "p99", ".1f"),
            f"{ratio(own, runs[WITHOUT], 'p99'):.2f}",
            spread(own, "hung"),
        )
        for title, own in runs.items()
    ]
    return f"""\
### One unhealthy target (P6)

{table(("slack", "p50, ms", "ratio", "p99, ms", "ratio", "deliveries that hung"), rows)}

From the request at the gateway to the delivery at the sink, $rate alerts per second for
$seconds s. The unhealthy target accepts each delivery and never answers, for the full time-out of
10 s, 32 at a time. Its breaker never opens; as shipped it would after five failures."""


SICK = Part("sick", run, render, parameters={"rate": PER_SECOND, "seconds": SECONDS})
