"""Private servers, started on first use, and the measured processes."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from deploy.up.process import HOST, Process, wait_until
from deploy.up.servers import Postgres, RabbitMQ, Redis, Server
from tests.support.databases import Databases
from tests.support.ports import Ports
from tests.support.servers import own_rabbitmq, running

ROOT = Path(__file__).parents[1]

STOP_SECONDS = 30.0

S = TypeVar("S", bound=Server)


class Lab:
    def __init__(self, folder: Path, ports: Ports, closing: ExitStack, *, rounds: int) -> None:
        self.folder = folder
        self.ports = ports
        self.rounds = rounds
        self._closing = closing
        self._spawned = 0

    @cached_property
    def postgres(self) -> Postgres:
        return self._start(
            Postgres(self.folder / "postgres", port=self.ports.take(), password="superuser")
        )

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        return self._start(own_rabbitmq(self.folder / "rabbitmq", self.ports))

    @cached_property
    def redis(self) -> Redis:
        return self._start(
            Redis(self.folder / "redis", port=self.ports.take(), password="redis-password")
        )

    @cached_property
    def databases(self) -> Databases:
        return Databases(self.postgres)

    @cached_property
    def sink(self) -> "Sink":
        port = self.ports.take()
        argv = [sys.executable, str(ROOT / "bench" / "sink.py"), str(port)]
        process = self._closing.enter_context(self.process(argv, {}))
        sink = Sink(port)
        self.answering(f"{sink.url}/state", process)
        return sink

    @staticmethod
    def start(*_: Server) -> None:
        """Start these servers now (by naming them), not on first use during a measurement."""

    @contextmanager
    def process(self, argv: Sequence[str], env: Mapping[str, str]) -> Iterator[Process]:
        """Run a program; show its output if the benchmark fails."""
        self._spawned += 1
        process = Process(self.folder / "run" / f"{self._spawned}.pid")
        log = self.folder / "log" / f"{self._spawned}.log"
        process.spawn(list(argv), env={**os.environ, **env}, cwd=ROOT, log=log)
        try:
            yield process
        except BaseException:
            end = log.read_text(errors="replace")[-3000:]
            print(f"the end of {' '.join(argv[:4])}:\n{end}", file=sys.stderr)
            raise
        finally:
            process.stop(signal.SIGTERM, STOP_SECONDS)

    @staticmethod
    def answering(url: str, process: Process, seconds: float = 30) -> None:
        """Wait until the address answers."""
        wait_until(url, seconds, lambda: _answers(url), lambda: process.pid is not None)

    def _start(self, server: S) -> S:
        return self._closing.enter_context(running(server))


class Sink:
    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}"

    def reset(self) -> None:
        self._get("reset")

    def count(self, path: str) -> int:
        return int(self._get("state").get(path, {}).get("count", 0))

    def last(self, path: str) -> float:
        """Return the time of the last request, as `time.monotonic`."""
        return float(self._get("state")[path]["last"])

    def seconds(self, path: str) -> float:
        """Return the seconds from the first request to the last."""
        seen = self._get("state")[path]
        return float(seen["last"] - seen["first"])

    def latencies(self, path: str) -> list[float]:
        return list(self._get("latencies").get(path, []))

    def wait(self, path: str, count: int, process: Process, seconds: float = 300) -> None:
        """Wait for this many requests.

        :raises deploy.up.process.ServerError: the process ended, or the time is up
        """
        wait_until(
            f"the delivery of {count} to {path}",
            seconds,
            lambda: self.count(path) >= count,
            lambda: process.pid is not None,
        )

    def _get(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/{what}", timeout=5) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found


def monotonic_mark() -> str:
    """Return the text that a body needs for the sink to measure its latency."""
    return f"sent={time.monotonic_ns()}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
