"""Which node of RabbitMQ is restarted because it stays apart from the others."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from socket import create_server
from typing import Any

import pytest

from deploy.cluster import rejoin
from deploy.cluster.rejoin import apart, ask
from libs.common import beside

TABLE = beside.toml(__file__, "rejoin.toml")


def restarted(**seen: str) -> list[str]:
    views = {host: frozenset(nodes) for host, nodes in seen.items()}
    return [host for host in views if apart(views, host)]


@pytest.mark.parametrize("row", TABLE["choice"])
def test_only_the_node_that_sees_the_fewest_joins_a_majority(row: dict[str, Any]) -> None:
    assert restarted(**row["seen"]) == row["chosen"]


Looks = list[tuple[float, dict[str, str]]]  # from so many seconds on: by host, whom its node sees


def killed_after(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> float | None:
    """Return after how many seconds c is killed, None if within 1,000 it is not."""
    now, killed = [0.0], list[float]()

    def seen(host: str) -> frozenset[str]:
        return frozenset([look for begun, look in looks if begun <= now[0]][-1][host])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    for name in "ABC":
        monkeypatch.setenv(name, name.lower())
    monkeypatch.setenv("HOST", "c")
    monkeypatch.delenv("RABBITMQ_APART_SECONDS", raising=False)
    monkeypatch.setattr(rejoin, "ask", seen)
    monkeypatch.setattr("time.sleep", pass_by)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("os.getppid", lambda: 1 if now[0] < 1_000 else 0)
    monkeypatch.setattr("os.kill", lambda _, __: killed.append(now[0]))
    rejoin.main()
    return killed[0] if killed else None


@pytest.mark.parametrize("row", TABLE["time"])
def test_a_node_that_has_joined_gets_a_minute_and_one_that_boots_gets_ten(
    row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = killed_after(row["looks"], monkeypatch)
    assert found == pytest.approx(row.get("killed"), abs=3)  # a look is two seconds after the last


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Serve one client with this, whatever it asks, at a port."""
    with create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with closing(server.accept()[0]) as link:
                link.recv(65536)
                link.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def asked(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> frozenset[str]:
    monkeypatch.setenv("RABBITMQ_ADMIN_PASSWORD", "administrator")
    monkeypatch.delenv("TLS_DIR", raising=False)
    with answering(answer) as port:
        monkeypatch.setenv("RABBITMQ_UI_PORT", str(port))
        return ask("127.0.0.1")


def test_a_node_is_known_by_the_host_in_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = b"""[{"name": "rabbit-a@10.0.0.1", "running": true},
        {"name": "rabbit@10.0.0.2", "running": true},
        {"name": "rabbit@10.0.0.3", "running": false}]"""
    assert asked(b"HTTP/1.0 200 OK\r\n\r\n" + nodes, monkeypatch) == {"10.0.0.1", "10.0.0.2"}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not HTTP\r\n\r\n",
        b"HTTP/1.1 503 no\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[",
        b"HTTP/1.0 200 OK\r\n\r\n[",
        b'HTTP/1.0 200 OK\r\n\r\n{"error": "not_found"}',
        b'HTTP/1.0 200 OK\r\n\r\n[{"name": "rabbit", "running": true}]',
    ],
)
def test_an_answer_of_no_use_is_none(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(answer, monkeypatch) == frozenset()
