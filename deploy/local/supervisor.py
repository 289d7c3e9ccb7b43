"""Keeps the sandbox and the services running; `make up` leaves it behind, `make down` ends it."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.local import environment
from deploy.local.servers import Process

ROOT = environment.ROOT
LOCAL = ROOT / ".local"
MODULES = {
    "sandbox": "deploy.sandbox",
    **{name: f"services.{name}" for name in environment.SERVICES},
}
DRAIN_SECONDS = 35.0  # a service gives itself 30
LONGEST_PAUSE = 15.0
STEADY_SECONDS = 30.0  # one that lived this long may start again without a pause


def record(name: str) -> Process:
    return Process(LOCAL / "run" / f"{name}.pid")


def process_environment(values: Mapping[str, str], name: str) -> dict[str, str]:
    """Give what a process gets; a setting that is not its own does not come in by the shell."""
    inherited = {key: value for key, value in os.environ.items() if key not in values}
    return {**inherited, **environment.for_process(values, name), "PYTHONUNBUFFERED": "1"}


class Child:
    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self.name = name
        self.process = record(name)
        self._values = values
        self._started = 0.0
        self._pause = 0.0
        self._due = 0.0

    def keep_running(self) -> None:
        """Start it when it is due; one that keeps dying is started ever less often."""
        now = time.monotonic()
        if self.process.pid is not None:
            return
        if self._started:
            print(f"{self.name} ended; it starts again in {self._pause:g} s")
            lived = now - self._started
            self._due = now + self._pause
            grown = min(max(1.0, self._pause * 2), LONGEST_PAUSE)
            self._pause = 0.0 if lived > STEADY_SECONDS else grown
            self._started = 0.0
        if now < self._due:
            return
        self.process.spawn(
            [sys.executable, "-m", MODULES[self.name]],
            env=process_environment(self._values, self.name),
            cwd=ROOT,
            log=LOCAL / "log" / f"{self.name}.log",
        )
        self._started = now


def stop_all() -> None:
    """End the gateway first, so that nothing more comes in, then the others together."""
    record("gateway").stop(signal.SIGTERM, DRAIN_SECONDS)
    others = [record(name) for name in MODULES if name != "gateway"]
    for process in others:
        process.signal(signal.SIGTERM)
    for process in others:
        process.stop(signal.SIGTERM, DRAIN_SECONDS)


def main() -> int:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    values = environment.load(Path(ROOT / ".env"))
    children = [Child(name, values) for name in MODULES]
    while not stopping:
        for child in children:
            child.keep_running()
        time.sleep(0.2)
    stop_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
