"""The primary, or Redis' master, is lost; HAProxy of another host leads to the next one."""

import os
import subprocess
from contextlib import suppress

import pytest

from deploy.up.process import ServerError, wait_until
from deploy.up.servers import Redis, postgres_binaries
from tests.cluster.harness import Cluster, HostServers
from tests.support.servers import frozen

pytestmark = [pytest.mark.cluster, pytest.mark.promise("P10")]
BACK_SECONDS = 60.0


def soon(what: str, seconds: float, so: object) -> None:
    wait_until(what, seconds, so, lambda: True)  # type: ignore[arg-type]


def other(cluster: Cluster, lost: str) -> HostServers:
    return next(host for name, host in cluster.hosts.items() if name != lost)


def asked(host: HostServers, statement: str) -> set[str] | None:
    """Ask the primary as a service on this host does; None if it does not answer.

    A commit that waits for a standby ends by no time-out of PostgreSQL.
    """
    command = [str(postgres_binaries() / "psql"), host.dsn, "-tA", "-c", statement]
    environment = {**os.environ, "PGCONNECT_TIMEOUT": "2"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=5, check=True
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return set(done.stdout.splitlines())


def written(host: HostServers, text: str) -> bool:
    table = "CREATE TABLE IF NOT EXISTS note (text text)"
    return asked(host, f"{table}; INSERT INTO note VALUES ('{text}')") is not None


def notes(host: HostServers) -> set[str]:
    found = asked(host, "SELECT text FROM note")
    assert found is not None
    return found


def all_stream(cluster: Cluster) -> bool:
    return all(host.postgres.ready() for host in cluster.hosts.values())


@pytest.mark.parametrize("loss", ["killed", "frozen"])
def test_what_a_lost_primary_confirmed_is_on_the_next_one(cluster: Cluster, loss: str) -> None:
    lost = cluster.primary
    assert lost is not None
    kept = other(cluster, lost)
    assert written(kept, f"before it was {loss}")
    node = cluster.hosts[lost].postgres
    if loss == "killed":
        node.kill()
        soon("the next primary", BACK_SECONDS, lambda: written(kept, "killed"))
        node.start()
    else:
        with frozen(*node.family()):
            soon("the next primary", BACK_SECONDS, lambda: written(kept, "frozen"))
    assert notes(kept) >= {f"before it was {loss}", loss}
    assert cluster.primary != lost
    soon("the former primary, as a standby", BACK_SECONDS, lambda: all_stream(cluster))
    assert notes(kept) >= {f"before it was {loss}", loss}


def test_a_switchover_is_asked_for_and_done(cluster: Cluster) -> None:
    before = cluster.primary
    assert before is not None
    assert written(cluster.hosts["a"], "before the switchover")
    candidate = other(cluster, before).member.name

    def switched() -> bool:
        with suppress(ServerError):  # Patroni may not know yet that it streams again
            cluster.switch_over(candidate)
        return cluster.primary == candidate

    soon("the switchover", BACK_SECONDS, switched)
    soon("writes", BACK_SECONDS, lambda: written(cluster.hosts["a"], "after it"))
    assert "before the switchover" in notes(cluster.hosts["a"])
    soon("the former primary, as a standby", BACK_SECONDS, lambda: all_stream(cluster))


def redis(host: HostServers) -> Redis:
    """Redis as a service on this host reaches it."""
    member = host.member
    return Redis(
        member.folder,
        port=member.ports["REDIS_PORT"],
        password=member.passwords["REDIS_PASSWORD"],
        host=member.address,
    )


@pytest.mark.parametrize("loss", ["killed", "frozen"])
def test_redis_counts_go_on_with_the_next_master(cluster: Cluster, loss: str) -> None:
    soon("a master", BACK_SECONDS, lambda: cluster.master is not None)
    lost = cluster.master
    assert lost is not None
    kept = redis(other(cluster, lost))

    def counted() -> bool:
        try:
            return kept.command("INCR counter").startswith(":")
        except OSError:
            return False

    soon("a count", BACK_SECONDS, counted)
    node = cluster.hosts[lost].redis
    if loss == "killed":
        node.kill()
        soon("the next master", BACK_SECONDS, counted)
        node.start()
    else:
        with frozen(node.pid):
            soon("the next master", BACK_SECONDS, counted)

    assert cluster.master != lost
    assert counted()
    soon("the former master, as a replica", BACK_SECONDS, lambda: is_replica(node))


def is_replica(node: Redis) -> bool:
    return node.command("SET probe 1").startswith("-READONLY")
