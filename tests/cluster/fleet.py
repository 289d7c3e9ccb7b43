"""The whole system on three hosts: servers on each, services on two, the sandbox outside."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy.provision import provision_postgres, provision_rabbitmq, retry_policies
from deploy.up import environment
from deploy.up.environment import EXAMPLE_CONFIG, ROOT, SERVICES, WITH_TABLES
from deploy.up.process import Process, ServerError, wait_until
from deploy.up.servers import Server
from deploy.up.supervisor import DRAIN_SECONDS, SERVING
from tests.cluster.harness import FILES, NAMES, PORTS, Cluster
from tests.cluster.network import Network
from tests.support.brokers import Management
from tests.support.databases import rows
from tests.support.ports import Ports
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.shipped import new_env
from tests.support.stack import HEALTH, QUICK, quick_alerts_config, quick_forms_config, status
from tests.support.system import System

SETTINGS = {
    "CHAT_RATE_LIMIT": "30 per minute",
    "HEALTH_RATE_LIMIT": "1000000 per minute",
    "ERASURE_RESEND_SECONDS": "20",
    # A caller hears of a mail in flight, and whoever died with one is out of the way, in time.
    "WITHDRAWAL_WAIT_SECONDS": "8",
    "PERMIT_QUARANTINE_SECONDS": "60",
}
SERVERS = ("rabbitmq", "etcd", "postgres", "redis", "sentinel", "haproxy")
DISKS, DISK, MEGABYTE = "ostoja-disk-", "1g", 1 << 20
FAKETIME = "/usr/$LIB/faketime/libfaketime.so.1"  # as the loader of programs reads it
KEPT = ROOT / ".local" / "nemesis"
"""What each test's last run left: logs, history and result."""


class Fleet(System):
    sandbox: Sandbox

    def __init__(
        self,
        folder: Path,
        network: Network,
        values: Mapping[str, str],
        sandbox: Sandbox,
        files: Path,
        clocks: Mapping[str, int],
    ) -> None:
        addresses = list(network.addresses.values())
        ports = environment.cluster_ports(values, PORTS)
        super().__init__(f"http://{addresses[0]}:{ports['GATEWAY_PORT']}", values, sandbox)
        self.folder = folder
        self.network = network
        self.clocks = clocks
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
            host.rabbitmq.rejoins = 30.0
            for moved in (host.rabbitmq, host.postgres):
                moved.enter = self._enter(name, moved.user)
        every = [*self.services, *((name, host) for name in SERVERS for host in NAMES)]
        self._locks = {one: threading.Lock() for one in every}
        self._held: set[tuple[str, str]] = set()
        self._full: set[str] = set()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep_running)

    @property
    def urls(self) -> list[str]:
        """Where callers find the gateway; each host has HAProxy."""
        port = self.ports["GATEWAY_PORT"]
        return [f"http://{address}:{port}" for address in self.network.addresses.values()]

    def start(self) -> None:
        for host in NAMES:
            self._disk(host).mkdir(parents=True)
            options = f"size={DISK},mode=0711"
            _run("mount", "-t", "tmpfs", "-o", options, DISKS + str(os.getpid()), self._disk(host))
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
        wait_until("alerts.epoch", 30, self._is_marked, lambda: True)  # see running_stack
        wait_until("three hosts", 60, lambda: not self.missing(), lambda: True)
        self._keeper.start()

    def _migrate(self, name: str) -> None:
        owner = environment.database_url(self.values, f"{name}_owner", self.network.addresses["a"])
        done = subprocess.run(
            [sys.executable, "-m", f"services.{name}", "migrate"],
            env={**self._environment(name, "a"), "OWNER_DATABASE_URL": owner},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the migration of {name} failed:\n{done.stdout}")

    def _is_marked(self) -> bool:
        broker = Management(self.cluster.hosts["a"].rabbitmq)
        queues = broker.call("GET", f"queues/{environment.VHOST}")
        return any(queue["name"].startswith("alerts.epoch.") for queue in queues)

    def _enter(self, host: str, user: str | None = None) -> tuple[str, ...]:
        """Return the command that runs another one on this host, by its clock."""
        command = self.network.enter(host, user)
        if seconds := self.clocks.get(host):
            moved = (f"LD_PRELOAD={FAKETIME}", f"FAKETIME={seconds:+d}s")
            command += ("env", *moved, "FAKETIME_DONT_FAKE_MONOTONIC=1")
        return command

    def _disk(self, host: str) -> Path:
        """The folder of a host's data, which is a disk of its own."""
        return self.cluster.hosts[host].member.folder

    @contextmanager
    def full_disk(self, host: str) -> Iterator[None]:
        """Leave no byte of a host's disk. What ends there is started when there is room again."""
        filler = self._disk(host) / "filler"
        with ExitStack() as held:
            for (_, at), lock in self._locks.items():
                if at == host:
                    held.enter_context(lock)
            self._full.add(host)
        try:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(MEGABYTE))
            yield
        finally:
            filler.unlink()
            self._full.discard(host)

    def launch(self, name: str, host: str) -> None:
        """Start a service, or launch a server, unless it runs."""
        with self._locks[name, host]:
            self._held.discard((name, host))
            self._launch(name, host)

    def stop(self, name: str, host: str, number: int) -> None:
        """End a service or kill a server; it stays so until it is launched."""
        with self._locks[name, host]:
            self._held.add((name, host))
            if name in SERVERS:
                self.server(name, host).kill()
            else:
                self.services[name, host].stop(number, DRAIN_SECONDS)

    def _launch(self, name: str, host: str) -> None:
        if host in self._full:
            return
        if name in SERVERS:
            server = self.server(name, host)
            if server.pid is None:
                server.launch()
        elif self.services[name, host].pid is None:
            self.services[name, host].spawn(
                [*self._enter(host), sys.executable, "-m", f"services.{name}"],
                env=self._environment(name, host),
                cwd=ROOT,
                log=self.log(name, host),
            )

    def _keep_running(self) -> None:
        """Start what ended by itself, as systemd and Docker do."""
        while not self._closing.wait(0.5):
            for one, lock in self._locks.items():
                with lock:
                    if one not in self._held and not self._closing.is_set():
                        self._launch(*one)

    def wait(self, name: str, host: str, seconds: float = 60) -> None:
        try:
            wait_until(
                f"{name} on {host}",
                seconds,
                lambda: self._answers(name, host),
                lambda: self.services[name, host].pid is not None,
            )
        except ServerError as error:
            text = self.log(name, host).read_text(errors="replace")[-4000:]
            raise ServerError(f"{error}:\n{text}") from None

    def _answers(self, name: str, host: str) -> bool:
        port, path = self.ports[f"{name.upper()}_OWN_PORT"], HEALTH.get(name, "/health")
        return status(port, path, host=self.network.addresses[host]) == 200

    def log(self, name: str, host: str) -> Path:
        return self.folder / "log" / f"{name}-{host}.log"

    def close(self) -> None:
        """Kill it all: nobody needs the data any more."""
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join()
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._kill, self._locks))
        for host in self.cluster.hosts.values():
            host.rabbitmq.epmd.kill()

    def remove_disks(self) -> None:
        for host in NAMES:
            with suppress(subprocess.CalledProcessError):  # it was not mounted
                _run("umount", self._disk(host))

    def _kill(self, one: tuple[str, str]) -> None:
        self.stop(*one, signal.SIGKILL)

    def keep_logs(self) -> None:
        kept = KEPT / self.folder.name
        shutil.rmtree(kept, ignore_errors=True)
        endings = ("*.log", "history.jsonl", "result.txt")
        for path in (path for ending in endings for path in self.folder.rglob(ending)):
            target = kept / path.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)

    def server(self, kind: str, host: str) -> Server:
        found: Server = getattr(self.cluster.hosts[host], kind)
        return found

    def missing(self) -> list[str]:
        """Name what is not a member again or does not answer; empty if all is whole."""
        found = [server.name for server in self.cluster.servers if not server.ready()]
        found += [
            f"RabbitMQ on {name} sees {seen} nodes"
            for name, seen in self._nodes_seen().items()
            if seen != len(NAMES)
        ]
        found += [f"{name}-{host}" for name, host in self.services if not self._answers(name, host)]
        found += ["a primary"] if self.cluster.primary is None else []
        found += ["Redis' master"] if self.cluster.master is None else []
        return found

    def apart(self) -> list[str]:
        """Name the host whose RabbitMQ is cut off from the others, or has not come back."""
        seen = self._nodes_seen()
        least = min(seen, key=lambda name: seen[name])
        return [least] if seen[least] < len(NAMES) else []

    def _nodes_seen(self) -> dict[str, int]:
        """Return how many nodes each node of RabbitMQ sees running, itself included."""
        found = {}
        for name, host in self.cluster.hosts.items():
            try:
                nodes = Management(host.rabbitmq).call("GET", "nodes")
            except (OSError, HTTPException):
                nodes = []
            found[name] = sum(node["running"] for node in nodes)
        return found

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Ask the primary, past every service; rows have names."""
        host = next(iter(self.cluster.hosts.values()))
        dsn = host.dsn.removesuffix("/postgres") + f"/{environment.DATABASE}"
        return rows(dsn, statement, values)

    def _environment(self, name: str, host: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key not in self.values}
        addresses = list(self.network.addresses.values())
        settings = environment.for_member(
            self.values, name, self.network.addresses[host], addresses
        )
        own = {
            "CONSENT_RECORDS_DIR": str(self._disk(host) / "consent"),
            "RATE_LIMIT_STATE_FILE": str(self._disk(host) / "ratelimits.json"),
            "KEYS_STATE_FILE": str(self._disk(host) / "keys.json"),
            "PYTHONUNBUFFERED": "1",
        }
        return {**inherited, **settings, **own}


@contextmanager
def running_fleet(
    folder: Path,
    ports: Ports,
    *,
    files: Path = FILES,
    clocks: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[Fleet]:
    """Run it all in namespaces of its own; the ports there are those of .env.example.

    :param files: the configuration of the servers
    :param clocks: by how many seconds a host's clock is ahead, for its services, RabbitMQ and
        PostgreSQL; libfaketime moves no Go program (etcd), and Redis does not start with it
    """
    _remove_orphans()
    with Network() as network, running_sandbox(ports, network.outside) as sandbox:
        values = (
            new_env()
            | QUICK
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
                "FORMS_CONFIG": str(quick_forms_config(folder)),
            }
        )
        fleet = Fleet(folder, network, values, sandbox, files, clocks)
        try:
            fleet.start()
            yield fleet
        finally:
            try:
                fleet.close()
            finally:
                fleet.keep_logs()
                fleet.remove_disks()


def _remove_orphans() -> None:
    """Unmount the disks of runs that were killed."""
    for line in Path("/proc/mounts").read_text().splitlines():
        source, place = line.split()[:2]
        pid = source.removeprefix(DISKS)
        if pid != source and not Path(f"/proc/{pid}").exists():
            _run("umount", place)


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)
