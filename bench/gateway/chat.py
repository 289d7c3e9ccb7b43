"""The customer's load test: `ab -n 1000 -c 10` on chat, on the whole system."""

import asyncio
import json
import re
import subprocess
from typing import Any

from bench.lab import Lab
from bench.part import Part, table
from tests.support.databases import Databases
from tests.support.stack import Stack, running_stack

PATH = "/api/chatbot/chat"
BODY = {
    "message": "Dzień dobry, ile kosztuje remont kuchni?",
    "session_id": "load-test-Hk2yq0uV9dXc3mZr7pLtWg",
}
RAISED, SHIPPED = "100000 per minute", "30 per minute"


def run(lab: Lab) -> Any:
    lab.start(lab.postgres, lab.rabbitmq, lab.redis)
    folder = lab.folder / "stack"
    folder.mkdir()
    body = lab.folder / "chat.json"
    body.write_text(json.dumps(BODY))
    servers = (lab.postgres, lab.rabbitmq, lab.redis)
    with running_stack(folder, lab.ports, Databases(lab.postgres), servers, {}) as stack:
        found = {}
        for limit in (SHIPPED, RAISED):
            asyncio.run(_limit(stack, limit))
            argv = ["ab", "-l", "-n", "1000", "-c", "10", "-p", str(body)]
            done = subprocess.run(
                [*argv, "-T", "application/json", stack.url + PATH],
                capture_output=True,
                text=True,
                check=True,
            )
            found[limit] = _read(done.stdout)
            print(f"  {limit}: {found[limit]}", flush=True)
        return found


async def _limit(stack: Stack, limit: str) -> None:
    answer = await stack.http("PUT", "/api/ratelimits", {"chat": limit}, key="admin")
    if answer.status != 200:
        raise RuntimeError(f"the limit was not changed: {answer}")


def _read(text: str) -> dict[str, float]:
    def number(pattern: str) -> float:
        found = re.search(pattern, text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    return {
        "complete": number(r"^Complete requests: +(\d+)"),
        "refused": number(r"^Non-2xx responses: +(\d+)"),
        "broken": number(r"^Failed requests: +(\d+)"),
        "rate": number(r"^Requests per second: +([\d.]+)"),
        "p50": number(r"^ +50% +(\d+)"),
        "p99": number(r"^ +99% +(\d+)"),
    }


def render(found: Any) -> str:
    rows = [
        (
            limit,
            f"{one['complete']:.0f}",
            f"{one['refused']:.0f} ({one['refused'] / one['complete']:.1%})",
            f"{one['broken']:.0f}",
            f"{one['rate']:.0f}",
            f"{one['p50']:.0f}",
            f"{one['p99']:.0f}",
        )
        for limit, one in found.items()
    ]
    head = ("CHAT_RATE_LIMIT", "requests", "429", "broken", "requests/s", "p50, ms", "p99, ms")
    return f"""\
### The customer's load test: `ab -n 1000 -c 10` on chat

{table(head, rows)}

On the whole system, including PostgreSQL and the broker, in one conversation. "Under 1 % of 429"
cannot hold at {SHIPPED}: the limit counts per address, and all 1,000 requests come from one address
within seconds, so at most 30 of them pass per minute, as intended. For a load test, raise the limit
with `PUT /api/ratelimits {{"chat": "{RAISED}"}}` and restore it with `{{"chat": null}}`."""


PART = Part("chat", run, render, needs=("ab",))
