from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from deploy.local.cluster import RabbitMQCluster
from tests.support.loops import Factories
from tests.support.ports import Ports


def pytest_asyncio_loop_factories() -> Factories:
    return {"uvloop": uvloop.new_event_loop}  # as the services


@pytest.fixture(scope="session")
def cluster(private_folder: Path, ports: Ports) -> Iterator[RabbitMQCluster]:
    nodes = RabbitMQCluster(private_folder / "cluster", ports.take, "administrator")
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
