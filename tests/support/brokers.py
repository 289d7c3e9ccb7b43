"""RabbitMQ's management API, and a vhost per test."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from deploy.provision import RIGHTS, provision_rabbitmq, retry_policy
from deploy.up.process import as_user
from deploy.up.servers import RabbitMQ, manage, rabbitmq_home
from libs.common.process import certificates

PASSWORDS = {service: f"{service}-password" for service in RIGHTS}
RETRY_SECONDS = 0.3  # what is parked in a `.retry` queue comes back while the test still looks


class Management:
    def __init__(self, server: RabbitMQ) -> None:
        self.server = server

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call `/api/{path}`; the answer's JSON, None when it has none."""
        one = self.server
        account = (one.admin, one.password)
        return manage(one.management_url, account, method, path, body, tls_dir=one.tls_dir)


class Vhost:
    """One vhost, provisioned as in production but for short retries."""

    def __init__(self, server: RabbitMQ, name: str | None = None) -> None:
        self.server = server
        self.name = name or f"test-{uuid.uuid4().hex}"
        self._management = Management(server)
        provision_rabbitmq(
            server.management_url,
            (server.admin, server.password),
            PASSWORDS,
            [retry_policy("retry", r"\.retry$", RETRY_SECONDS)],
            vhost=self.name,
            tls_dir=server.tls_dir,
        )

    def url(self, service: str, port: int | None = None) -> str:
        """:param port: of a proxy in front of the server"""
        return self._url(service, PASSWORDS[service], port)

    def admin_url(self) -> str:
        return self._url(self.server.admin, self.server.password)

    def _url(self, user: str, password: str, port: int | None = None) -> str:
        at = f"{user}:{password}@{self.server.host}:{port or self.server.port}/{self.name}"
        tls_dir = self.server.tls_dir
        return certificates.in_url(f"amqps://{at}", tls_dir) if tls_dir else f"amqp://{at}"

    def call(self, method: str, kind: str, name: str = "", body: object = None) -> Any:
        """Call `/api/{kind}/{vhost}/{name}`, e.g. kind `queues`, name `alerts.slack`."""
        path = f"{kind}/{quote(self.name, safe='')}"
        return self._management.call(method, f"{path}/{name}" if name else path, body)

    def set_retry(self, pattern: str, seconds: float) -> None:
        body = {**retry_policy("own", pattern, seconds), "priority": 20}
        self.call("PUT", "policies", "own", body)

    def connections(self) -> list[dict[str, Any]]:
        found = self._management.call("GET", f"vhosts/{quote(self.name, safe='')}/connections")
        return list(found)

    def close_connections(self) -> None:
        """Cut every client off, as a restart of the broker would."""
        for connection in self.connections():
            try:
                self._management.call("DELETE", f"connections/{quote(connection['name'], safe='')}")
            except HTTPError as error:
                if error.code != HTTPStatus.NOT_FOUND:  # it has left by itself meanwhile
                    raise

    def delete(self) -> None:
        self._management.call("DELETE", f"vhosts/{quote(self.name, safe='')}")


def rabbitmqctl(server: RabbitMQ, *arguments: str) -> None:
    """Do what the management API cannot, e.g. `set_disk_free_limit`."""
    subprocess.run(
        [str(rabbitmq_home() / "sbin" / "rabbitmqctl"), "-n", server.node, *arguments],
        env={**server._environment(), "ERL_EPMD_PORT": str(server.epmd.port)},
        cwd=server.folder,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
        **as_user(server.user),
    )


@contextmanager
def leaderless(vhost: Vhost, queue: str) -> Iterator[None]:
    """Suspend the Raft process of a quorum queue, as on a node that is frozen or overloaded."""
    leader = f"whereis('{vhost.name}_{queue}')"
    rabbitmqctl(vhost.server, "eval", f"sys:suspend({leader}).")
    try:
        yield
    finally:
        rabbitmqctl(vhost.server, "eval", f"sys:resume({leader}).")
