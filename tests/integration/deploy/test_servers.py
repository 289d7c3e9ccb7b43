"""PostgreSQL and Redis stand for the three: what is tested here is in their common part."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from deploy.up.process import HOST, PortTakenError
from deploy.up.servers import Postgres, RabbitMQ, Redis
from tests.support.ports import Ports
from tests.support.servers import running


@pytest.fixture
def redis(tmp_path: Path, ports: Ports) -> Iterator[Redis]:
    server = Redis(tmp_path / "redis", port=ports.take(), password="secret")
    yield server
    server.stop()


def test_another_run_finds_and_stops_it_by_its_record(redis: Redis, tmp_path: Path) -> None:
    redis.start()
    same = Redis(tmp_path / "redis", port=redis.port, password="secret")
    assert same.pid == redis.pid
    same.stop()
    assert redis.pid is None


def test_changed_settings_restart_it(redis: Redis, tmp_path: Path) -> None:
    redis.start()
    first = redis.pid
    changed = Redis(tmp_path / "redis", port=redis.port, password="another")
    changed.start()
    assert changed.pid not in {None, first}
    changed.stop()


def test_data_survive_kill_9(redis: Redis) -> None:
    redis.start()
    redis.command("SET answer 42")
    redis.command("WAITAOF 1 0 1000")
    redis.kill()
    redis.start()
    assert redis.command("STRLEN answer") == ":2"


def test_a_record_from_before_a_reboot_matches_no_process(redis: Redis) -> None:
    redis.start()
    redis.stop()
    stale = {"pid": os.getpid(), "born": "another-boot 1", "fingerprint": ""}
    redis.process.record.write_text(json.dumps(stale))
    assert redis.pid is None
    redis.stop()  # would end this very test
    redis.start()
    assert redis.pid is not None


def test_a_process_without_a_record_is_replaced(redis: Redis) -> None:
    redis.start()
    redis.process.record.unlink()
    assert redis.pid is None
    redis.start()
    assert redis.pid is not None


def test_a_port_in_use_is_named_with_its_variable(redis: Redis) -> None:
    with socket.socket() as other:
        other.bind((HOST, redis.port))
        other.listen()
        with pytest.raises(PortTakenError, match=rf"{redis.port} \(REDIS_PORT\)"):
            redis.start()


def test_postgres_recovers_from_kill_9_with_foreign_pid_in_its_lock(
    tmp_path: Path, ports: Ports, postgres: Postgres
) -> None:
    with running(Postgres(tmp_path / "postgres", port=ports.take(), password="secret")) as server:
        with psycopg2.connect(server.dsn) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 1")
        server.kill()
        lock = server.folder / "data" / "postmaster.pid"
        # As after a reboot: the pid in the lock now is another server of the same user.
        lines = lock.read_text().split("\n")
        lock.write_text("\n".join([str(postgres.pid), *lines[1:]]))
        server.start()
        with psycopg2.connect(server.dsn) as connection, connection.cursor() as cursor:
            cursor.execute("TABLE kept")
            assert cursor.fetchall() == [(1,)]


def test_postgres_with_an_interrupted_initialisation_starts(tmp_path: Path, ports: Ports) -> None:
    unfinished = tmp_path / "postgres" / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("15")
    with running(Postgres(tmp_path / "postgres", port=ports.take(), password="secret")):
        assert not unfinished.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to run a server as")
def test_under_root_servers_run_as_another_user_in_an_inaccessible_folder(
    private_folder: Path, postgres: Postgres, rabbitmq: RabbitMQ, redis_server: Redis
) -> None:
    assert private_folder.stat().st_mode & 0o077 == 0
    assert private_folder.stat().st_uid == 0
    for server in (postgres, rabbitmq, rabbitmq.epmd, redis_server):
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_nothing_listens_beyond_this_machine(
    postgres: Postgres, rabbitmq: RabbitMQ, redis_server: Redis
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells this machine's outer address
        outer = probe.getsockname()[0]
    if outer.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    servers = (postgres, rabbitmq, rabbitmq.epmd, redis_server)
    for port in (port for server in servers for port in server.ports.values()):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((outer, port), timeout=2)
