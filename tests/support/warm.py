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
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from deploy.local.environment import ROOT
from deploy.local.process import Process


def spawn(process: Process, service: str, *, env: Mapping[str, str], log: Path) -> None:
    """Start it as `process`, which is then stopped and found as any other."""
    for folder in (log.parent, process.record.parent):
        folder.mkdir(parents=True, exist_ok=True)
    forker = _forker(service)
    assert forker.stdin is not None
    assert forker.stdout is not None
    forker.stdin.write(json.dumps({"env": dict(env), "log": str(log.absolute())}) + "\n")
    forker.stdin.flush()
    process.note(int(forker.stdout.readline()))


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
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what ended leaves no zombie
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            become(service, **json.loads(line))
        sys.stdout.write(f"{pid}\n")


def become(service: str, env: Mapping[str, str], log: str) -> None:
    """:raises SystemExit: the service has ended"""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for descriptor, opened in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(opened, descriptor)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [service]
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
