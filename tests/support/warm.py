"""Services as forks of a process that has imported them.

Each is a process of its own, as `python -m services.<name>` starts it; only the second of CPU that
the imports take is spent once per service and test run.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from deploy.up.environment import ROOT
from deploy.up.process import Process

_asking = threading.RLock()


def spawn(process: Process, service: str, *, env: Mapping[str, str], log: Path) -> None:
    """Start it as `process`, which is then stopped and found as any other."""
    for folder in (log.parent, process.record.parent):
        folder.mkdir(parents=True, exist_ok=True)
    process.note(_ask(service, env=dict(env), log=str(log.absolute())))


class Started:
    """A started service, with the methods of `subprocess.Popen`.

    :param program: what Python runs instead of `-m services.<name>`
    """

    def __init__(
        self, service: str, *, env: Mapping[str, str], log: Path, program: str | None = None
    ) -> None:
        self._service = service
        self._status: int | None = None
        self.pid: int = _ask(
            service, env=dict(env), log=str(log.absolute()), program=program, kept=True
        )

    def poll(self) -> int | None:
        with _asking:
            if self._status is None:
                self._status = _ask(self._service, ended=self.pid)
            return self._status

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self._service, timeout or 0)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # until then nobody else gets its pid
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def pid(service: str) -> int:
    """Return the process that forks this service, which has its limits."""
    return _forker(service).pid


def _ask(service: str, **question: Any) -> Any:
    forker = _forker(service)
    assert forker.stdin is not None
    assert forker.stdout is not None
    with _asking:
        forker.stdin.write(json.dumps(question) + "\n")
        forker.stdin.flush()
        return json.loads(forker.stdout.readline())


@cache
def _forker(service: str) -> subprocess.Popen[str]:
    """Start it once; it ends with this process, whose end closes the pipe."""
    started = subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.support.warm", service],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(started.__exit__, None, None, None)
    return started


def main(service: str) -> None:
    importlib.import_module(f"services.{service}.app")
    forgotten: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        if "ended" in question:
            answer = _ended(question["ended"])
        else:
            forgotten = {pid for pid in forgotten if _ended(pid) is None}  # leave no zombies
            kept = question.pop("kept", False)
            if (answer := os.fork()) == 0:
                become(service, **question)
            if not kept:
                forgotten.add(answer)
        sys.stdout.write(json.dumps(answer) + "\n")


def _ended(pid: int) -> int | None:
    """Return a child's exit status, once; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def become(service: str, env: Mapping[str, str], log: str, program: str | None = None) -> None:
    """:raises SystemExit: the service has ended"""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for descriptor, opened in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(opened, descriptor)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [service]
    if program is None:
        runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)
    else:
        exec(program, {"__name__": "__main__"})  # noqa: S102 - it is the test's own
    sys.exit()


if __name__ == "__main__":
    main(sys.argv[1])
