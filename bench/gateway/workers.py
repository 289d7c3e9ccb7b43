"""One worker and two, on all cores."""

from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.gateway import field
from bench.lab import Lab
from bench.measure import interleaved
from bench.part import Part

WORKERS = (1, 2)
CONNECTIONS = 64


def run(lab: Lab) -> Any:
    lab.start(lab.redis)
    with ExitStack() as stack:
        behind = stack.enter_context(field.owner(lab))
        cases = {}
        for many in WORKERS:
            server = stack.enter_context(
                field.gateway(lab, behind.url, core=None, GATEWAY_WORKERS=str(many))
            )
            cases[str(many)] = partial(field.load, lab, server, CONNECTIONS, core=None)
        return interleaved(cases, lab.rounds)


def render(runs: Any) -> str:
    titled = {f"{name} worker{'s' if name != '1' else ''}": own for name, own in runs.items()}
    return f"""\
### Workers

{field.compared(titled, runs["1"])}

The same load over {CONNECTIONS} connections, without pinning: workers, wrk, the upstream and Redis
share two cores, which bounds two workers. Several workers keep their metrics in files to be summed
up, which costs each request some CPU."""


PART = Part("workers", run, render, needs=("nginx", "wrk"))
