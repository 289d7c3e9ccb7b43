"""Private servers for as long as a test wants them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from deploy.local.servers import RabbitMQ, Server
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
    return RabbitMQ(
        folder,
        port=ports.take(),
        management_port=ports.take(),
        dist_port=ports.take(),
        epmd_port=ports.take(),
        password="administrator",
    )
