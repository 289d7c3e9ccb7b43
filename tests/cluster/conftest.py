from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.cluster.apart import PASSWORDS
from tests.cluster.harness import PORTS, Cluster
from tests.support.loops import Factories
from tests.support.ports import Ports

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def pytest_asyncio_loop_factories() -> Factories:
    return {"uvloop": uvloop.new_event_loop}  # as the services


@pytest.fixture(scope="session")
def cluster(private_folder: Path, ports: Ports) -> Iterator[Cluster]:
    private_folder.chmod(0o711)  # PostgreSQL's user must reach its data
    folder = private_folder / "cluster"
    three = Cluster(folder, ADDRESSES, {name: ports.take() for name in PORTS}, PASSWORDS)
    for node in three.nodes:
        node.rejoins = 40.0  # more than a test freezes one
    try:
        three.start()
        yield three
    finally:
        three.stop()
