"""One worker and two, on all cores."""

from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.gateway import field
from bench.lab import Lab
from bench.measure import interleaved, ratio, spread
from bench.part import Part, table

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
    one = runs["1"]
    rows = [
        (
            f"{name} worker{'s' if name != '1' else ''}",
            spread(own, "rate"),
            f"{ratio(own, one, 'rate'):.2f}",
            spread(own, "cpu", ".3f"),
            f"{ratio(own, one, 'cpu'):.2f}",
            spread(own, "p99", ".1f"),
        )
        for name, own in runs.items()
    ]
    return f"""\
### Workers

{table(("", "requests/s", "ratio", "CPU s/1k", "ratio", "p99, ms"), rows)}

The same load over {CONNECTIONS} connections, nothing bound to a core: workers, wrk, the owner and
Redis share what there is, and with two cores that is what bounds two workers. With several workers
a metric lies in a file that all of them are summed up from, which costs each request some CPU."""


PART = Part("workers", run, render, needs=("nginx", "wrk"))
