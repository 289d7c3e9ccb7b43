"""Three hosts with certificates: no port answers a client without one of their authority."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from deploy import certs
from libs.common.process import certificates
from tests.cluster.apart import PASSWORDS
from tests.cluster.conftest import ADDRESSES
from tests.cluster.harness import PORTS, Cluster, HostServers
from tests.support.brokers import Management
from tests.support.ports import Ports

pytestmark = pytest.mark.cluster
# By port, what a client sends first, and how the answer begins.
ASKS = {
    "RABBITMQ_PORT": (b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"),
    "REDIS_OWN_PORT": (b"PING\r\n", b"-NOAUTH"),
    "REDIS_PORT": (b"PING\r\n", b"-NOAUTH"),
    "SENTINEL_PORT": (b"PING\r\n", b"-NOAUTH"),
    "ETCD_PORT": (b"GET /health HTTP/1.0\r\n\r\n", b"HTTP/1.0 200"),
    "ETCD_PEER_PORT": (b"GET /members HTTP/1.0\r\n\r\n", b"HTTP/1.0 200"),
    "GATEWAY_OWN_PORT": (b"GET /api/ready HTTP/1.0\r\n\r\n", b""),  # none runs here
    "RABBITMQ_DIST_PORT": (b"\x00\x01N", b""),
}
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority(private_folder: Path) -> Path:
    return private_folder / "authority"


@pytest.fixture(scope="module")
def cluster(private_folder: Path, authority: Path, ports: Ports) -> Iterator[Cluster]:
    private_folder.chmod(0o711)  # PostgreSQL's user must reach its data
    made = private_folder / "certs"
    list(certs.run(certs.Order(made, authority, [",".join(("three", *ADDRESSES))])))
    numbers = {name: ports.take() for name in PORTS}
    folder = private_folder / "with-tls"
    three = Cluster(folder, ADDRESSES, numbers, PASSWORDS, certs=made / "three")
    try:
        three.start()
        yield three
    finally:
        for server in three.servers:
            server.kill()
        for host in three.hosts.values():
            host.rabbitmq.epmd.kill()


@pytest.fixture
def folders(cluster: Cluster, authority: Path, tmp_path: Path) -> dict[str, Path]:
    """TLS_DIRs that all trust the servers."""
    ours = cluster.hosts["a"].member.tls_dir
    assert ours is not None
    today = datetime.now(UTC)
    signer = certs.Keeper(authority).signer()
    other = certs.new_authority("another", today + DAY)
    found = {name: tmp_path / name for name in ("without", "of another", "expired")}
    certs.write_pair(found["of another"], certs.issue(other, "ostoja", ["ostoja"], today + DAY))
    ended = certs.issue(signer, "ostoja", ["ostoja"], today - DAY, begins=today - 2 * DAY)
    certs.write_pair(found["expired"], ended)
    for folder in found.values():
        folder.mkdir(exist_ok=True)
        path = folder / certificates.AUTHORITIES
        path.write_bytes((ours / certificates.AUTHORITIES).read_bytes())
    return {**found, "ours": ours}


def answer(host: str, port: int, request: bytes, tls: ssl.SSLContext | None) -> bytes | None:
    """Return what comes first, perhaps nothing; None if the server refuses us."""
    with (
        suppress(OSError),
        socket.create_connection((host, port), timeout=2) as plain,
        tls.wrap_socket(plain, server_hostname=host) if tls else plain as link,
    ):
        link.sendall(request)
        try:
            return link.recv(100)
        except TimeoutError:
            return b""
    return None


@pytest.mark.parametrize("port", ASKS)
def test_only_a_certificate_of_the_authority_is_answered(
    cluster: Cluster, folders: dict[str, Path], port: str
) -> None:
    member = cluster.hosts["a"].member
    request, begins = ASKS[port]
    for who, folder in folders.items():
        got = answer(member.address, member.ports[port], request, certificates.client(folder))
        if who == "ours":
            assert got is not None
            assert got.startswith(begins)
        else:
            assert got is None, who
    plain = answer(member.address, member.ports[port], request, None)
    assert plain is None or not begins or not plain.startswith(begins)


@pytest.mark.parametrize("who", ["without", "of another", "expired"])
def test_postgresql_takes_no_password_without_a_certificate(
    cluster: Cluster, folders: dict[str, Path], who: str
) -> None:
    url = cluster.hosts["a"].dsn.partition("?")[0]
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(certificates.in_url(f"{url}?sslmode=verify-full", folders[who]))
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        psycopg2.connect(f"{url}?sslmode=disable")


def test_patroni_is_told_nothing_without_a_certificate(
    cluster: Cluster, folders: dict[str, Path]
) -> None:
    host = cluster.hosts["b"]
    for who, folder in folders.items():
        tls = certificates.client(folder)
        request = b"POST /reload HTTP/1.0\r\n\r\n"
        at = (host.postgres.host, host.postgres.ports["PATRONI_PORT"])
        got = answer(*at, request, tls)
        assert (got is not None and b" 401 " in got) == (who == "ours"), who  # no password


def test_a_server_with_another_name_is_refused(cluster: Cluster, folders: dict[str, Path]) -> None:
    member = cluster.hosts["a"].member
    tls = certificates.client(folders["ours"])
    for port in ASKS:
        plain = socket.create_connection((member.address, member.ports[port]), timeout=5)
        with plain, pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            tls.wrap_socket(plain, server_hostname="10.0.0.1")


def receives(host: HostServers) -> list[str]:
    """Return how this host's PostgreSQL follows the primary; nothing from the primary itself."""
    ports = host.member.ports
    url = host.dsn.replace(f":{ports['POSTGRES_PORT']}/", f":{ports['POSTGRES_OWN_PORT']}/")
    with closing(psycopg2.connect(url)) as server, server.cursor() as cursor:
        cursor.execute("SELECT conninfo FROM pg_stat_wal_receiver")
        return [conninfo for (conninfo,) in cursor.fetchall()]


def test_the_nodes_and_the_standbys_are_whole(cluster: Cluster) -> None:
    """The links between the servers work: nodes, standbys, replicas."""
    nodes = Management(cluster.nodes[2]).call("GET", "nodes")
    assert [node["running"] for node in nodes] == [True] * 3
    with closing(psycopg2.connect(cluster.hosts["c"].dsn)) as primary, primary.cursor() as cursor:
        cursor.execute("SELECT ssl FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)")
        assert cursor.fetchall() == [(True,)] * 2
    followed = [how for host in cluster.hosts.values() for how in receives(host)]
    assert len(followed) == 2
    assert all("sslmode=verify-full" in how.split() for how in followed)
    assert cluster.master is not None  # it has replicas
