"""A small JSON POST through the gateway and through alternatives to it."""

from contextlib import ExitStack
from functools import partial
from typing import Any

from bench import peers
from bench.gateway import field
from bench.lab import Lab
from bench.measure import Run, interleaved, median, ratio, spread
from bench.part import Part, table

CONNECTIONS = (64, 16)
OURS, BARE = "**this gateway**: two windows on Redis", "bare aiohttp proxy, no limit"
NGINX, ALONE = "nginx, two limit_req zones in its own memory", "the upstream alone (nginx)"
LIMITED = "the bare proxy + aiohttp-ratelimiter RedisLimiter twice"
FLASK = "Flask + Flask-Limiter + requests, gunicorn gthread 16"
FASTAPI = "FastAPI + slowapi + httpx, uvicorn"
ORDER = (ALONE, NGINX, OURS, BARE, LIMITED, FLASK, FASTAPI)
PACKAGES = (
    *("aiohttp", "aiohttp-ratelimiter", "flask", "flask-limiter", "gunicorn", "requests"),
    *("fastapi", "slowapi", "httpx", "uvicorn", "uvloop"),
)


def run(lab: Lab) -> Any:
    lab.start(lab.redis)
    with ExitStack() as stack:
        behind = stack.enter_context(field.owner(lab))
        servers = {ALONE: behind, NGINX: stack.enter_context(field.nginx_limits(lab, behind.url))}
        servers[OURS] = stack.enter_context(field.gateway(lab, behind.url))
        for name, argv in (
            (BARE, field.BARE),
            (LIMITED, field.LIMITED),
            (FLASK, field.FLASK),
            (FASTAPI, field.FASTAPI),
        ):
            servers[name] = stack.enter_context(field.peer(lab, behind.url, argv))
        runs: dict[str, dict[str, list[Run]]] = {}
        for connections in CONNECTIONS:
            print(f"  {connections} connections", flush=True)
            cases = {
                name: partial(field.load, lab, server, connections)
                for name, server in servers.items()
            }
            runs[str(connections)] = interleaved(cases, lab.rounds)
    installed = peers.versions()
    return {"runs": runs, "versions": {name: installed[name] for name in PACKAGES}}


HEAD = (
    "",
    "requests/s",
    "ratio",
    "CPU s/1k",
    "ratio",
    "p50, ms",
    "p99, ms",
    "p99's ratio",
)


def render(found: Any) -> str:
    sections = []
    for connections, runs in found["runs"].items():
        base = runs[BARE]
        rows = [
            (
                name,
                spread(runs[name], "rate"),
                f"{ratio(runs[name], base, 'rate'):.2f}",
                spread(runs[name], "cpu", ".3f"),
                f"{ratio(runs[name], base, 'cpu'):.2f}",
                f"{median(runs[name], 'p50'):.1f}",
                spread(runs[name], "p99", ".1f"),
                f"{ratio(runs[name], base, 'p99'):.2f}",
            )
            for name in ORDER
        ]
        ours = runs[OURS]
        times = ", ".join(
            f"{ratio(ours, runs[name], 'rate'):.2f} times {name}"
            for name in (NGINX, LIMITED, FLASK, FASTAPI)
        )
        sections.append(f"""\
{connections} connections:

{table(HEAD, rows)}

By rate this gateway is {times}.""")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"""\
### A small POST, limited and proxied

JSON of {len(field.BODY)} B to an upstream that answers {len(field.ANSWER)} B at once; wrk for
$seconds s after $warm s of warm-up. Each proxy is one process on one core;
wrk and the upstream are on the other. Ratios are to the bare proxy, which has no limits, logs,
time-outs, metrics or checks. This gateway counts two windows of the client and a budget of all
clients in Redis, and writes a log line and its metrics for each request. The limits are never
reached.

This gateway is bound by its CPU. By py-spy at commit 425fa6da, with 64 connections on a quiet
machine: aiohttp's server and the layers of its application (router, six middlewares) 25 %, sending
the answer 23 % (half of it the system call), the way to the upstream and back 28 % (a look whether
the upstream has closed and the system call that sends are 9 and 8 % of all), limits and the budget
9 %, the event loop 11 %. With fewer connections, fewer requests share an iteration of the event
loop, and so the writes to Redis and the log. A request takes a quarter more than at commit 3c39c30:
the budget of all visitors is 10 %, and the fast paths that bought less than 3 % each, and went, are
12 % together. [Decision 70](decisions/0070-no-door.md) has what each part of aiohttp costs.

{(2 * chr(10)).join(sections)}

{versions}."""


PART = Part(
    "proxy",
    run,
    render,
    parameters={"seconds": field.SECONDS, "warm": field.WARM_SECONDS},
    needs=("nginx", "wrk", "taskset"),
)
