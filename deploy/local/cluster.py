"""Several private servers that form a cluster on one machine.

Standard library only, as servers.py. A cluster launches its nodes together: a new RabbitMQ node
waits for the others.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.local.servers import RabbitMQ


class RabbitMQNode(RabbitMQ):
    """Its settings are the ones that docs/cluster.md asks for."""

    def __init__(self, folder: Path, members: list[str], node: str, **options: Any) -> None:
        super().__init__(folder, **options)
        self.node = node
        self._members = members

    def _cluster_settings(self) -> list[str]:
        return [
            "cluster_formation.peer_discovery_backend = classic_config",
            *(
                f"cluster_formation.classic_config.nodes.{number} = {member}"
                for number, member in enumerate(self._members, 1)
            ),
            "cluster_partition_handling = pause_minority",
            "net_ticktime = 15",
            "queue_leader_locator = balanced",
        ]

    def _files(self) -> dict[str, str]:
        return {**super()._files(), ".erlang.cookie": self.password}

    def stop(self) -> None:
        super(RabbitMQ, self).stop()  # not epmd, which the other nodes use


class RabbitMQCluster:
    def __init__(
        self, folder: Path, take_port: Callable[[], int], password: str, size: int = 3
    ) -> None:
        members = [f"ostoja-{number}@localhost" for number in range(size)]
        epmd_port = take_port()
        self.nodes = [
            RabbitMQNode(
                folder / member.partition("@")[0],
                members,
                member,
                port=take_port(),
                management_port=take_port(),
                metrics_port=take_port(),
                dist_port=take_port(),
                epmd_port=epmd_port,
                password=password,
            )
            for member in members
        ]
        for node in self.nodes:
            node.epmd = self.nodes[0].epmd

    def start(self) -> None:
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()

    def stop(self) -> None:
        for node in self.nodes:
            node.process.signal(node.stop_signal)
        for node in self.nodes:
            node.stop()
        self.nodes[0].epmd.stop()
