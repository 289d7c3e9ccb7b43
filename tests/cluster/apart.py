"""Some servers of three hosts, each a network namespace, without the services."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.up import environment
from tests.cluster.harness import FILES, PORTS, Cluster
from tests.cluster.network import Network

PASSWORDS = {
    "POSTGRES_SUPERUSER_PASSWORD": "superuser",
    "RABBITMQ_ADMIN_PASSWORD": "administrator",
    "REDIS_PASSWORD": "redis-password",
}


@contextmanager
def hosts(folder: Path, *kinds: str, files: Path = FILES) -> Iterator[tuple[Network, Cluster]]:
    """Run these kinds of servers.

    :param files: their configuration
    """
    values = environment.defaults()
    ports = environment.cluster_ports(values, PORTS)
    with Network() as network:
        addresses = list(network.addresses.values())
        three = Cluster(folder, addresses, ports, PASSWORDS, files=files, shared_epmd=False)
        enter(three, network)
        servers = [getattr(host, kind) for host in three.hosts.values() for kind in kinds]
        for host in three.hosts.values():
            host.member.folder.mkdir(parents=True)
            for each in (host.member.folder, host.member.folder.parent):
                each.chmod(0o711)  # PostgreSQL's user must reach its data
        try:
            for server in servers:
                server.launch()
            for server in servers:
                server.wait()
            yield network, three
        finally:
            for server in servers:
                server.kill()
            for host in three.hosts.values():
                host.rabbitmq.epmd.kill()


def enter(cluster: Cluster, network: Network) -> None:
    for name, host in cluster.hosts.items():
        for server in (*host.all, host.rabbitmq.epmd):
            server.enter = network.enter(name, server.user)


def changed(target: Path, name: str, change: tuple[str, str], source: Path = FILES) -> Path:
    """Copy the servers' configuration, with one text in one file replaced."""
    shutil.copytree(source, target)
    path = target / name
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    return target
