"""One fast upstream and the proxies in front of it; servers on one core, load on the other."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.lab import Lab
from bench.measure import Run, cpu_seconds, ratio, spread
from bench.part import table
from bench.peers import PYTHON, VENV
from deploy.up import environment
from deploy.up.process import HOST, Process

PATH = "/api/opt-in"  # two windows, no key, forwarded whole
BODY = json.dumps({"email": "anna@example.pl", "text": "x" * 70, "source": "bench", "p": 1})
ANSWER = json.dumps({"success": True, "text": "y" * 63})
WARM_SECONDS, SECONDS = 1, 3
SERVER_CORE, LOAD_CORE = "0", "1"
UNLIMITED = {
    "CHAT_RATE_LIMIT": "1000000000 per minute",
    "API_RATE_LIMIT_MINUTE": "1000000000 per minute",
    "API_RATE_LIMIT_HOUR": "1000000000 per hour",
    "CHAT_BUDGET": "1000000000 per hour",
    "PUBLIC_WRITE_BUDGET": "1000000000 per hour",
    "SERVICE_RATE_LIMIT": "1000000000 per minute",
}
SCRIPT = """
wrk.method = "POST"
wrk.body = [[%s]]
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("\\n@ %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Server:
    url: str
    process: Process


def pinned(core: str | None, argv: Sequence[str]) -> list[str]:
    return ["taskset", "-c", core, *argv] if core is not None else list(argv)


@contextmanager
def owner(lab: Lab) -> Iterator[Server]:
    """Run nginx, which gives every request the same small answer; Redis is on the same core."""
    os.sched_setaffinity(lab.redis.pid or 0, {int(LOAD_CORE)})
    location = f"default_type application/json; return 200 '{ANSWER}';"
    with _nginx(lab, location, LOAD_CORE) as server:
        yield server


@contextmanager
def nginx_limits(lab: Lab, upstream: str) -> Iterator[Server]:
    location = (
        "limit_req zone=minute burst=1000000 nodelay; limit_req zone=hour burst=1000000 nodelay; "
        "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass http://owner;"
    )
    outside = (
        "limit_req_zone $binary_remote_addr zone=minute:10m rate=1000000r/s; "
        "limit_req_zone $binary_remote_addr zone=hour:10m rate=1000000r/s; "
        f"upstream owner {{ server {upstream.removeprefix('http://')}; keepalive 100; }}"
    )
    with _nginx(lab, location, SERVER_CORE, outside) as server:
        yield server


@contextmanager
def _nginx(lab: Lab, location: str, core: str, outside: str = "") -> Iterator[Server]:
    port = lab.ports.take()
    folder = lab.folder / f"nginx-{port}"
    (folder / "temp").mkdir(parents=True)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/temp/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""\
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; {temporary} {outside}
  server {{ listen {HOST}:{port} backlog=1024; location / {{ {location} }} }}
}}
"""
    )
    if sys.platform == "linux" and Path("/proc/self").owner() == "root":
        config.write_text("user root;\n" + config.read_text())  # only we can read its folder
    argv = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)]
    with _answering(lab, port, pinned(core, argv), {}) as server:
        yield server


@contextmanager
def gateway(
    lab: Lab,
    upstream: str,
    core: str | None = SERVER_CORE,
    run: Sequence[str] = ("-m", "services.gateway"),
    **settings: str,
) -> Iterator[Server]:
    """Run our gateway, without a broker, which the measured routes do not need."""
    port = lab.ports.take()
    env = {
        "HTTP_PORT": str(port),
        "METRICS_PORT": "0",
        **dict.fromkeys(environment.INTERNAL_KEYS.values(), "internal-key-of-the-bench"),
        "REDIS_URL": lab.redis.url,
        "AMQP_URL": f"amqp://gateway:none@{HOST}:1/none",
        "RATE_LIMIT_STATE_FILE": str(lab.folder / f"limits-{port}.json"),
        "KEYS_STATE_FILE": str(lab.folder / f"keys-{port}.json"),
        "ALERTS_CONFIG": "config.example/alerts.toml",
        "FORMS_CONFIG": "config.example/forms.toml",
        **{
            f"{name.upper()}_URL": upstream for name in environment.WITH_TABLES if name != "console"
        },
        **UNLIMITED,
        **settings,
    }
    argv = pinned(core, [sys.executable, *run])
    with _answering(lab, port, argv, env, "/api/health") as server:
        yield server


@contextmanager
def peer(lab: Lab, upstream: str, argv: Sequence[str]) -> Iterator[Server]:
    """Run a peer, which listens on the PORT in its command line."""
    port = lab.ports.take()
    env = {"PORT": str(port), "UPSTREAM_URL": upstream, "REDIS_URL": lab.redis.url}
    filled = [each.replace("PORT", str(port)) for each in argv]
    with _answering(lab, port, pinned(SERVER_CORE, filled), env) as server:
        yield server


@contextmanager
def _answering(
    lab: Lab, port: int, argv: list[str], env: Mapping[str, str], path: str = "/"
) -> Iterator[Server]:
    url = f"http://{HOST}:{port}"
    with lab.process(argv, env) as process:
        lab.answering(url + path, process)
        yield Server(url, process)


BARE = [str(PYTHON), "bench/peers/proxy_aiohttp.py", "bare"]
LIMITED = [str(PYTHON), "bench/peers/proxy_aiohttp.py", "limited"]
FLASK = [
    str(VENV / "bin" / "gunicorn"),
    *("-k", "gthread", "--threads", "16", "--keep-alive", "60"),
    *("--worker-connections", "200", "-b", f"{HOST}:PORT", "bench.peers.proxy_flask:app"),
]
FASTAPI = [
    str(VENV / "bin" / "uvicorn"),
    *("--host", HOST, "--port", "PORT", "--log-level", "error", "--no-access-log"),
    "bench.peers.proxy_fastapi:app",
]


def load(
    lab: Lab, server: Server, connections: int, core: str | None = LOAD_CORE, path: str = PATH
) -> Run:
    """Run wrk, after a warm-up.

    :raises RuntimeError: an answer was not 2xx or 3xx, or was missing
    """
    script = lab.folder / "post.lua"
    script.write_text(SCRIPT % BODY)
    argv = ["wrk", "-t1", f"-c{connections}", "--timeout", "10s", "-s", str(script)]

    def wrk(seconds: int) -> list[int]:
        command = pinned(core, [*argv, f"-d{seconds}s", server.url + path])
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"^@ (.*)$", done.stdout, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"wrk said {done.stdout!r}")
        return [int(each) for each in found[1].split()]

    wrk(WARM_SECONDS)
    pid = server.process.pid or 0
    before = cpu_seconds(pid)
    requests, duration, p50, p99, errors = wrk(SECONDS)
    if errors:
        raise RuntimeError(f"{errors} of {requests} requests to {server.url} failed")
    return {
        "rate": requests * 1e6 / duration,
        "p50": p50 / 1000,
        "p99": p99 / 1000,
        "cpu": 1000 * (cpu_seconds(pid) - before) / requests,
    }


def compared(runs: Mapping[str, Sequence[Run]], base: Sequence[Run]) -> str:
    """Return a table of the cases, with their ratios to one of them."""
    rows = [
        (
            title,
            spread(own, "rate"),
            f"{ratio(own, base, 'rate'):.2f}",
            spread(own, "cpu", ".3f"),
            f"{ratio(own, base, 'cpu'):.2f}",
            spread(own, "p99", ".1f"),
        )
        for title, own in runs.items()
    ]
    return table(("", "requests/s", "ratio", "CPU s/1k", "ratio", "p99, ms"), rows)
