"""The whole system on three hosts: servers on each, services on two, the sandbox outside."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extras import NamedTupleCursor

from deploy.local import environment
from deploy.local.cluster import FILES, NAMES, PORTS, Cluster
from deploy.local.environment import EXAMPLE_CONFIG, ROOT, SERVICES, WITH_TABLES
from deploy.local.process import Process, wait_until
from deploy.local.servers import Server
from deploy.local.supervisor import DRAIN_SECONDS, SERVING
from deploy.provision import provision_postgres, provision_rabbitmq, retry_policies
from tests.cluster.network import Network
from tests.support.brokers import Management
from tests.support.ports import Ports
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.stack import QUICK, quick_alerts_config
from tests.support.system import System

SETTINGS = {"CHAT_RATE_LIMIT": "30 per minute", "ERASURE_RESEND_SECONDS": "2"}


class Fleet(System):
    sandbox: Sandbox

    def __init__(
        self,
        folder: Path,
        network: Network,
        values: Mapping[str, str],
        sandbox: Sandbox,
        files: Path,
        code: Path,
    ) -> None:
        addresses = list(network.addresses.values())
        ports = environment.cluster_ports(values, PORTS)
        super().__init__(f"http://{addresses[0]}:{ports['GATEWAY_PORT']}", values, sandbox)
        self.folder = folder
        self._code = code
        self.network = network
        self.ports = ports
        self.cluster = Cluster(
            folder / "hosts", addresses, ports, values, files=files, shared_epmd=False
        )
        self.services = {
            (name, host): Process(folder / "run" / f"{name}-{host}.pid")
            for name in SERVICES
            for host in SERVING
        }
        for name, host in self.cluster.hosts.items():
            for server in (*host.all, host.rabbitmq.epmd):
                server.enter = network.enter(name, server.user)

    @property
    def urls(self) -> list[str]:
        """Where callers find the gateway; each host has HAProxy."""
        port = self.ports["GATEWAY_PORT"]
        return [f"http://{address}:{port}" for address in self.network.addresses.values()]

    def start(self) -> None:
        self.cluster.start()
        first = self.cluster.hosts["a"]
        accounts = environment.DATABASE_PASSWORDS
        provision_postgres(first.dsn, {role: self.values[name] for role, name in accounts.items()})
        provision_rabbitmq(
            first.rabbitmq.management_url,
            (first.rabbitmq.admin, first.rabbitmq.password),
            {one: self.values[name] for one, name in environment.AMQP_PASSWORDS.items()},
            retry_policies(Path(self.values["ALERTS_CONFIG"])),
        )
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._migrate, WITH_TABLES))
        for name, host in self.services:
            self.launch(name, host)
        for name, host in self.services:
            self.wait(name, host)

    def _migrate(self, name: str) -> None:
        owner = environment.database_url(self.values, f"{name}_owner", self.network.addresses["a"])
        subprocess.run(
            [sys.executable, "-m", f"services.{name}", "migrate"],
            env={**self._environment(name, "a"), "OWNER_DATABASE_URL": owner},
            cwd=self._code,
            check=True,
            capture_output=True,
        )

    def launch(self, name: str, host: str) -> None:
        """Start a service unless it runs."""
        if self.services[name, host].pid is None:
            self.services[name, host].spawn(
                [*self.network.enter(host), sys.executable, "-m", f"services.{name}"],
                env=self._environment(name, host),
                cwd=self._code,
                log=self.log(name, host),
            )

    def wait(self, name: str, host: str, seconds: float = 60) -> None:
        path = "/api/health" if name == "gateway" else "/health"
        port = self.ports[f"{name.upper()}_OWN_PORT"]
        url = f"http://{self.network.addresses[host]}:{port}"
        wait_until(
            f"{name} on {host}",
            seconds,
            lambda: _status(url.removeprefix("http://"), path) == 200,
            lambda: self.services[name, host].pid is not None,
        )

    def log(self, name: str, host: str) -> Path:
        return self.folder / "log" / f"{name}-{host}.log"

    def close(self) -> None:
        for process in self.services.values():
            process.signal(signal.SIGTERM)
        for process in self.services.values():
            process.stop(signal.SIGTERM, DRAIN_SECONDS)
        self.cluster.stop()

    def server(self, kind: str, host: str) -> Server:
        found: Server = getattr(self.cluster.hosts[host], kind)
        return found

    def whole(self) -> bool:
        """Return whether every server is a member again and every service answers."""
        try:
            nodes = [
                node["running"]
                for host in self.cluster.hosts.values()
                for node in Management(host.rabbitmq).call("GET", "nodes")
            ]
        except OSError:
            return False
        return (
            len(nodes) == len(NAMES) ** 2
            and all(nodes)
            and all(server.ready() for server in self.cluster.servers)
            and self.cluster.primary is not None
            and self.cluster.master is not None
            and all(process.pid is not None for process in self.services.values())
        )

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Ask the primary, past every service; rows have names."""
        host = next(iter(self.cluster.hosts.values()))
        dsn = host.dsn.removesuffix("/postgres") + f"/{environment.DATABASE}"
        with (
            closing(psycopg2.connect(dsn, connect_timeout=5)) as connection,
            connection,
            connection.cursor(cursor_factory=NamedTupleCursor) as cursor,
        ):
            cursor.execute(statement, values)  # type: ignore[no-untyped-call]  # its stub's fault
            return cursor.fetchall() if cursor.description else []

    def _environment(self, name: str, host: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key not in self.values}
        addresses = list(self.network.addresses.values())
        settings = environment.for_member(
            self.values, name, self.network.addresses[host], addresses
        )
        own = {
            "RATE_LIMIT_STATE_FILE": str(self.folder / f"ratelimits-{host}.json"),
            "PYTHONUNBUFFERED": "1",
        }
        return {**inherited, **settings, **own}


@contextmanager
def running_fleet(
    folder: Path, ports: Ports, *, files: Path = FILES, code: Path = ROOT
) -> Iterator[Fleet]:
    """Run it all in namespaces of its own; the ports there are those of .env.example.

    :param files: the configuration of the servers
    :param code: where the services' code is
    """
    with Network() as network, running_sandbox(ports, network.outside) as sandbox:
        values = environment.parse(environment.EXAMPLE.read_text(encoding="utf-8"))
        values |= {name: make() for name, make in environment.GENERATED.items()}
        values |= (
            QUICK
            | SETTINGS
            | {
                "SLACK_WEBHOOK_URL": f"{sandbox.url}/slack",
                "WEBHOOK_URL": f"{sandbox.url}/webhook",
                "WEBHOOK_SECRET": sandbox.webhook_secret,
                "MONDAY_API_URL": f"{sandbox.url}/monday",
                "MONDAY_API_TOKEN": "sandbox",
                "MONDAY_BOARD_ID": "1",
                "SMS_API_URL": f"{sandbox.url}/sms",
                "SMS_API_TOKEN": "sandbox",
                "SMS_TO": "+48600000000",
                "SMTP_HOST": network.outside,
                "SMTP_PORT": str(sandbox.smtp_port),
                "SMTP_TLS": "none",
                "ALERTS_PRIVATE_NETWORKS": network.subnet,
                "ALERTS_CONFIG": str(quick_alerts_config(folder)),
                "COMPANY_CONFIG": str(EXAMPLE_CONFIG / "company.toml"),
                "FOLLOWUPS_CONFIG": str(EXAMPLE_CONFIG / "followups.toml"),
                "CONSENT_RECORDS_DIR": str(folder / "consent"),
            }
        )
        fleet = Fleet(folder, network, values, sandbox, files, code)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()


def _status(address: str, path: str) -> int | None:
    connection = HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
