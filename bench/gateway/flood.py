"""P7: the memory of the gateway under requests from a million addresses, with Redis and without."""

import re
import subprocess
from typing import Any

from bench import plot
from bench.gateway import field
from bench.lab import Lab
from bench.measure import resident_mib
from bench.part import Part, table
from deploy.up.process import HOST

ADDRESSES = 1_000_000
SAMPLE_SECONDS = 5
CONNECTIONS = 32
NOBODY = f"redis://{HOST}:1"
PICTURE = "benchmarks-flood.svg"
THERE, AWAY, REDIS = "gateway, Redis there", "gateway, Redis away", "Redis itself"
# The gateway answers this path itself, after its limits, so a million requests take only minutes.
SCRIPT = """
local number = %d
function request()
  number = number + 1
  local from = string.format("10.%%d.%%d.%%d", math.floor(number / 65536) %% 256,
    math.floor(number / 256) %% 256, number %% 256)
  return wrk.format("GET", "/nowhere", {["X-Forwarded-For"] = from, ["Host"] = "bench"})
end
function done(summary)
  io.write(string.format("\\n@ %%d %%d\\n", summary.requests,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


def run(lab: Lab) -> Any:
    samples: dict[str, list[tuple[int, float]]] = {THERE: [], AWAY: [], REDIS: []}
    for name, url in ((THERE, lab.redis.url), (AWAY, NOBODY)):
        settings = {"TRUSTED_PROXIES": "127.0.0.0/8", "REDIS_URL": url, **SHIPPED}
        with field.gateway(lab, "http://127.0.0.1:1", **settings) as server:
            gateway, redis = server.process.pid or 0, lab.redis.pid or 0
            seen = 0
            while seen < ADDRESSES:
                samples[name].append((seen, resident_mib(gateway)))
                if name == THERE:
                    samples[REDIS].append((seen, resident_mib(redis)))
                seen += _flood(lab, server, seen)
            samples[name].append((seen, resident_mib(gateway)))
            print(
                f"  {name}: {samples[name][0][1]:.0f} to {samples[name][-1][1]:.0f} MiB", flush=True
            )
    return samples


SHIPPED = {"API_RATE_LIMIT_MINUTE": "50 per minute", "API_RATE_LIMIT_HOUR": "200 per hour"}


def _flood(lab: Lab, server: field.Server, begin: int) -> int:
    """Send requests for some seconds, each from another address; return the number answered."""
    script = lab.folder / "flood.lua"
    script.write_text(SCRIPT % begin)
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SAMPLE_SECONDS}s", "-s", str(script), server.url]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = re.search(r"^@ (\d+) (\d+)$", done.stdout, re.MULTILINE)
    if found is None or found[2] != "0":
        raise RuntimeError(f"wrk said {done.stdout!r}")
    return int(found[1])


def render(samples: Any) -> str:
    plot.lines(
        PICTURE,
        {name: [(seen / 1000, mib) for seen, mib in each] for name, each in samples.items()},
        across="addresses, thousands",
        up="resident memory, MiB",
    )
    rows = [
        (name, f"{each[0][1]:.0f}", f"{max(mib for _, mib in each):.0f}", f"{each[-1][1]:.0f}")
        for name, each in samples.items()
    ]
    return f"""\
### Memory under requests from {ADDRESSES:,} addresses (P7)

Each request has its own client address (from a trusted proxy). The limits per minute and per hour
are as shipped.

{table(("MiB", "before", "largest", "after"), rows)}

![Resident memory over the number of addresses]({PICTURE})

The gateway keeps 50,000 clients per window length, and 1,024 buckets that all others share while
Redis is unavailable. Redis keeps a key per address until its longest window is over; it runs with
`maxmemory 256mb` and evicts the least recently used ones. Its peaks come from a forked child that
rewrites its file."""


PART = Part("flood", run, render, long=True, needs=("wrk",))
