"""The gateway on uvloop (as shipped) and on asyncio's own loop."""

from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.gateway import field
from bench.lab import Lab
from bench.measure import interleaved
from bench.part import Part

UVLOOP, ASYNCIO = "uvloop", "asyncio's own loop"
CONNECTIONS = 64
# The service always uses uvloop, so this replaces uvloop's loop.
PATCHED = """
import asyncio, sys, uvloop
uvloop.new_event_loop = asyncio.SelectorEventLoop
from services.gateway.__main__ import main
sys.exit(main())
"""


def run(lab: Lab) -> Any:
    lab.start(lab.redis)
    with ExitStack() as stack:
        behind = stack.enter_context(field.owner(lab))
        cases = {}
        for name, started in ((UVLOOP, ("-m", "services.gateway")), (ASYNCIO, ("-c", PATCHED))):
            server = stack.enter_context(field.gateway(lab, behind.url, run=started))
            cases[name] = partial(field.load, lab, server, CONNECTIONS)
        return interleaved(cases, lab.rounds)


def render(runs: Any) -> str:
    return f"""\
### The event loop

{field.compared(runs, runs[ASYNCIO])}

The same gateway, load and cores as in the first section, over {CONNECTIONS} connections. uvloop is
the default."""


PART = Part("loops", run, render, needs=("nginx", "wrk", "taskset"))
