"""Private servers for as long as a test wants them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from deploy.up.servers import RABBITMQ_PORTS, RabbitMQ, Server
from tests.support.ports import Ports

S = TypeVar("S", bound=Server)


@contextmanager
def running(server: S) -> Iterator[S]:
    """Start it, and stop it also when its start failed half-way."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


def own_rabbitmq(folder: Path, ports: Ports) -> RabbitMQ:
    own = {name: ports.take() for name in RABBITMQ_PORTS}
    return RabbitMQ(folder, own, password="administrator")


def kill_with_children(server: Server) -> None:
    """End a server and all processes it has, at once, as the kernel does when memory runs out."""
    parent = server.pid
    assert parent is not None, f"{server.name} does not run"
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in (parent, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.kill()  # and wait


@contextmanager
def frozen(*pids: int | None) -> Iterator[None]:
    """Hold processes still: they keep their connections and answer nothing."""
    held = [pid for pid in pids if pid is not None]
    assert held
    try:
        _signal(held, signal.SIGSTOP)
        yield
    finally:
        _signal(held, signal.SIGCONT)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
