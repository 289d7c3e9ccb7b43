"""Keeps the sandbox and the services running, between `make up` and `make down`.

Under root, the public gateway runs as an unprivileged user, like the servers: with paths relative
to this checkout, whose parents that user may not be allowed to enter (see servers.py).
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.up import environment
from deploy.up.machine import PYTHON
from deploy.up.process import HERE, Process, account, as_user

ROOT = environment.ROOT
LOCAL = ROOT / ".local"
CLUSTER = ROOT / environment.CLUSTER  # exists when three hosts are up, or were last
HOSTS = {"a": "127.0.0.1", "b": "127.0.0.2", "c": "127.0.0.3"}
SERVING = ("a", "b")  # only these also run services
DRAIN_SECONDS = 35.0  # a service stops within 30
LONGEST_PAUSE = 15.0
STEADY_SECONDS = 30.0  # a process that ran this long restarts without a pause


def record(name: str) -> Process:
    return Process(LOCAL / "run" / f"{name}.pid")


def names() -> list[str]:
    """Return the names of the processes; on several hosts a service's ends with -a, as its host."""
    if not CLUSTER.exists():
        return ["sandbox", *environment.SERVICES]
    return ["sandbox", *(f"{name}-{host}" for name in environment.SERVICES for host in SERVING)]


def module(name: str) -> str:
    return "deploy.sandbox" if name == "sandbox" else f"services.{name.partition('-')[0]}"


def process_environment(values: Mapping[str, str], name: str) -> dict[str, str]:
    """Return a process's environment, without the shell's variables for other services."""
    inherited = {key: value for key, value in os.environ.items() if key not in values}
    service, _, host = name.partition("-")
    if host:
        addresses = list(HOSTS.values())
        settings = environment.for_member(values, service, HOSTS[host], addresses)
        settings["RATE_LIMIT_STATE_FILE"] = f".local/gateway/ratelimits-{host}.json"
        settings["KEYS_STATE_FILE"] = f".local/gateway/keys-{host}.json"
    else:
        settings = environment.for_process(values, name)
    if CLUSTER.exists() and values["CERTS_DIR"]:
        settings = environment.encrypted(settings)
    return {**inherited, **settings, "PYTHONUNBUFFERED": "1"}


_BY_PATH = {"PYTHONPATH": HERE, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def gateway_user() -> str | None:
    """Return the user to run the gateway as; None: the current user."""
    if os.geteuid() != 0:
        return None
    user = account("ostoja").pw_name  # the user from docs/going-live.md, else nobody
    probe = [f"{HERE}/{PYTHON.relative_to(ROOT)}", "-c", "import services, aiohttp"]
    try:
        subprocess.run(
            probe, cwd=ROOT, env=_BY_PATH, capture_output=True, check=True, **as_user(user)
        )
    except (OSError, subprocess.CalledProcessError):  # the user cannot even run that Python
        return None
    return user


def who_is_the_gateway() -> str | None:
    if os.geteuid() != 0:
        return None
    if (user := gateway_user()) is not None:
        return f"under root, the gateway runs as {user}"
    return (
        "the gateway runs as root, for no other user can read this checkout or its Python: take "
        "the system's Python (make up PYTHON=/usr/bin/python3) and a checkout that all may read"
    )


def _own_state(user: str, tls_dir: Path | None) -> None:
    """Give it its limits set at run time and its certificate; it cannot list .local."""
    folder = LOCAL / "gateway"
    folder.mkdir(exist_ok=True)
    entry = account(user)
    for path in (folder, *folder.iterdir(), *((ROOT / tls_dir).iterdir() if tls_dir else ())):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    for other in LOCAL.iterdir():
        other.chmod(other.stat().st_mode & (0o711 if other.name == "hosts" else 0o700))
    LOCAL.chmod(0o711)


class Child:
    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self.name = name
        self.process = record(name)
        self._values = values
        self._started = 0.0
        self._pause = 0.0
        self._due = 0.0

    def keep_running(self) -> None:
        """Start the process when it is due, with growing pauses if it keeps dying."""
        now = time.monotonic()
        if self.process.pid is not None:
            return
        if self._started:
            print(f"{self.name} ended and restarts in {self._pause:g} s")
            lived = now - self._started
            self._due = now + self._pause
            grown = min(max(1.0, self._pause * 2), LONGEST_PAUSE)
            self._pause = 0.0 if lived > STEADY_SECONDS else grown
            self._started = 0.0
        if now < self._due:
            return
        user = gateway_user() if _is_gateway(self.name) else None
        python = str(PYTHON) if user is None else f"{HERE}/{PYTHON.relative_to(ROOT)}"
        own = {} if user is None else _BY_PATH
        self.process.spawn(
            [python, "-m", module(self.name)],
            env={**process_environment(self._values, self.name), **own},
            cwd=ROOT,
            log=LOCAL / "log" / f"{self.name}.log",
            user=user,
        )
        self._started = now


def stop_all() -> None:
    """Stop the gateways first, so that no new requests come in, then the others together."""
    for are_gateways in (True, False):
        processes = [record(name) for name in names() if _is_gateway(name) is are_gateways]
        for process in processes:
            process.signal(signal.SIGTERM)
        for process in processes:
            process.stop(signal.SIGTERM, DRAIN_SECONDS)


def _is_gateway(name: str) -> bool:
    return name.partition("-")[0] == "gateway"


def main() -> int:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    values = environment.load(Path(ROOT / ".env"))
    if (user := gateway_user()) is not None:
        _own_state(user, environment.tls_dir(values, "gateway"))
    children = [Child(name, values) for name in names()]
    while not stopping:
        for child in children:
            child.keep_running()
        time.sleep(0.2)
    stop_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
