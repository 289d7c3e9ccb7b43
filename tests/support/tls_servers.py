"""Private servers that speak TLS and demand a client's certificate, as docs/tls.md sets them up."""

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from deploy.up.process import HERE
from deploy.up.servers import RABBITMQ_PORTS, Postgres, RabbitMQ, Redis, Server
from libs.common.process import certificates
from libs.common.process.certificates import AUTHORITIES, CERTIFICATE, KEY
from tests.support.certificates import NAME
from tests.support.ports import Ports
from tests.support.servers import running

PASSWORD = "administrator"
FILES = (AUTHORITIES, CERTIFICATE, KEY)


def hand_over(server: Server, tls_dir: Path, folder: Path) -> None:
    """Put the files where the server reads them, each replaced at once, as its user's."""
    for name in FILES:
        fresh = folder / f"{name}.new"
        shutil.copy(tls_dir / name, fresh)
        server._own(fresh, 0o600)
        fresh.replace(folder / name)


class TlsPostgres(Postgres):
    def __init__(self, folder: Path, ports: Ports, tls_dir: Path) -> None:
        files = {"ssl_ca_file": AUTHORITIES, "ssl_cert_file": CERTIFICATE, "ssl_key_file": KEY}
        super().__init__(
            folder, port=ports.take(), password=PASSWORD, settings={"ssl": "on", **files}
        )
        self._tls_dir = tls_dir

    @property
    def dsn(self) -> str:
        return certificates.in_url(
            self.url.replace("+aiopg", "").replace("HOST", NAME), self._tls_dir
        )

    def _initialise(self, binaries: Path, folder: int) -> None:
        super()._initialise(binaries, folder)
        data = self.folder / "data"
        (data / "pg_hba.conf").write_text(
            "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"
        )
        hand_over(self, self._tls_dir, data)

    def replace(self, tls_dir: Path) -> None:
        hand_over(self, tls_dir, self.folder / "data")
        assert self.pid is not None
        os.kill(self.pid, signal.SIGHUP)  # pg_reload_conf()

    @property
    def url(self) -> str:
        return (
            f"postgresql+aiopg://postgres:{PASSWORD}@HOST:{self.port}/postgres?sslmode=verify-full"
        )


class TlsRedis(Redis):
    def __init__(self, folder: Path, ports: Ports, tls_dir: Path) -> None:
        super().__init__(folder, port=ports.take(), password=PASSWORD)
        self.tls_port = ports.take()
        self._tls_dir = tls_dir

    def _shape(self) -> str:
        lines = (
            f"tls-port {self.tls_port}",
            f"tls-ca-cert-file {HERE}/{AUTHORITIES}",
            f"tls-cert-file {HERE}/{CERTIFICATE}",
            f"tls-key-file {HERE}/{KEY}",
            "tls-auth-clients yes",
        )
        return "\n".join([super()._shape(), *lines, ""])

    def _launch(self, fingerprint: str) -> None:
        hand_over(self, self._tls_dir, self.folder)
        super()._launch(fingerprint)

    def replace(self, tls_dir: Path) -> None:
        hand_over(self, tls_dir, self.folder)
        assert self.command(f"CONFIG SET tls-cert-file {HERE}/{CERTIFICATE}") == "+OK"

    @property
    def url(self) -> str:
        return f"rediss://:{PASSWORD}@HOST:{self.tls_port}/0"


class TlsRabbitMQ(RabbitMQ):
    def __init__(self, folder: Path, ports: Ports, tls_dir: Path) -> None:
        own = {name: ports.take() for name in RABBITMQ_PORTS}
        super().__init__(folder, own, password=PASSWORD)
        self.tls_port = ports.take()
        self._tls_dir = tls_dir

    def _files(self) -> dict[str, str]:
        files = super()._files()
        lines = (
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {HERE}/{AUTHORITIES}",
            f"ssl_options.certfile = {HERE}/{CERTIFICATE}",
            f"ssl_options.keyfile = {HERE}/{KEY}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
        )
        definitions = json.loads(files["definitions.json"]) | {
            "vhosts": [{"name": "/"}],
            "permissions": [
                {"user": self.admin, "vhost": "/", "configure": "", "write": "", "read": ""}
            ],
        }
        return {
            **files,
            "rabbitmq.conf": "\n".join([files["rabbitmq.conf"], *lines, ""]),
            "definitions.json": json.dumps(definitions),
        }

    def _spawn(
        self,
        argv: list[str],
        fingerprint: str,
        environment: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        hand_over(self, self._tls_dir, self.folder)
        # It looks every two minutes whether its files have changed; here every 100 ms.
        name = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"
        quick = {name: f"{environment[name]} -ssl ssl_pem_cache_clean 100"}
        super()._spawn(argv, fingerprint, {**environment, **quick}, **options)

    def replace(self, tls_dir: Path) -> None:
        hand_over(self, tls_dir, self.folder)

    @property
    def url(self) -> str:
        return f"amqps://admin:{PASSWORD}@HOST:{self.tls_port}/%2F"


class Servers(NamedTuple):
    rabbitmq: TlsRabbitMQ
    postgres: TlsPostgres
    redis: TlsRedis


@contextmanager
def running_servers(folder: Path, ports: Ports, tls_dir: Path) -> Iterator[Servers]:
    with (
        running(TlsRabbitMQ(folder / "rabbitmq", ports, tls_dir)) as rabbitmq,
        running(TlsPostgres(folder / "postgres", ports, tls_dir)) as postgres,
        running(TlsRedis(folder / "redis", ports, tls_dir)) as redis,
    ):
        yield Servers(rabbitmq, postgres, redis)
