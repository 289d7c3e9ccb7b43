"""Three hosts on one machine: each an address with RabbitMQ, etcd, Patroni, Redis and HAProxy.

Standard library only, as servers.py. The servers read the files of deploy/cluster, as those of
deploy/compose.cluster.yml do. All are launched together: a new node waits for the others.
"""

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from deploy.up import servers
from deploy.up.environment import parse
from deploy.up.process import HERE, ServerError, born, family, wait_until
from libs.common import beside
from libs.common.process import certificates

FILES = Path(__file__).parents[2] / "deploy" / "cluster"
NAMES = ("a", "b", "c")
BALANCED = ("GATEWAY", "ALERTS", "CONSENT", "FOLLOWUPS", "CONSOLE", "POSTGRES", "REDIS")
PORTS = (
    *(f"{name}{kind}_PORT" for name in BALANCED for kind in ("", "_OWN")),
    *(f"RABBITMQ{kind}_PORT" for kind in ("", "_UI", "_METRICS", "_DIST", "_EPMD")),
    *("ETCD_PORT", "ETCD_PEER_PORT", "PATRONI_PORT", "SENTINEL_PORT", "GATEWAY_PLAIN_PORT"),
    # On one machine: RabbitMQ does not start if the port is taken at another address.
    *("RABBITMQ_DIST_PORT_B", "RABBITMQ_DIST_PORT_C"),
)
"""The same on every host. HAProxy has NAME_PORT, and the server behind it NAME_OWN_PORT. With TLS
it has GATEWAY_OWN_PORT, too, and the gateway behind it GATEWAY_PLAIN_PORT."""
TLS = "tls"
"""The folder of a server's certificate, in its own folder."""
NODES_TLS = f"-proto_dist inet_tls -ssl_dist_optfile {HERE}/rabbitmq_nodes.config"
WHOLE_SECONDS = 90.0


@dataclass(frozen=True)
class Member:
    """One of the hosts, and what its servers know of all."""

    name: str
    folder: Path
    addresses: Mapping[str, str]
    """Of all hosts, by their names."""
    ports: Mapping[str, int]
    passwords: Mapping[str, str]
    """POSTGRES_SUPERUSER_PASSWORD, RABBITMQ_ADMIN_PASSWORD, REDIS_PASSWORD."""
    files: Path = FILES
    certs: Path | None = None
    """Of all processes, as `make certs` writes them; None without TLS."""

    @property
    def address(self) -> str:
        return self.addresses[self.name]

    @property
    def variables(self) -> dict[str, str]:
        """What the files of deploy/cluster name, but for passwords."""
        return {
            "HOST": self.address,
            **{name.upper(): address for name, address in self.addresses.items()},
            **{name: str(port) for name, port in self.ports.items()},
            "GATEWAY_PLAIN": f"{self.address}:{self.ports['GATEWAY_PLAIN_PORT']}",
            **({"TLS_DIR": f"{HERE}/{TLS}"} if self.certs else {}),
        }

    @property
    def http(self) -> str:
        return "https" if self.certs else "http"

    @property
    def tls_dir(self) -> Path | None:
        """Of what asks the servers how they are."""
        return self.certs / "ostoja" if self.certs else None

    def tls(self) -> ssl.SSLContext | None:
        return certificates.client(self.tls_dir) if self.tls_dir else None

    def settings(self, server: str, **values: object) -> dict[str, str]:
        """Return a server's variables, by its files of this folder."""
        names = [f"{server}.env", *([f"{server}-tls.env"] if self.certs else [])]
        text = Template("\n".join(beside.text(__file__, name) for name in names))
        return parse(text.substitute(values, name=self.name, here=HERE, tls=TLS))

    def read(self, name: str) -> str:
        return (self.files / name).read_text(encoding="utf-8")


class Clustered(servers.Server):
    """A server of a host, with its own copy of its certificate, which only its user may read."""

    certificate: str
    _member: Member

    @property
    def tls(self) -> dict[str, str]:
        """Return the files of its certificate; empty without TLS."""
        folder = self._member.certs
        if folder is None:
            return {}
        found = sorted((folder / self.certificate).iterdir())
        return {f"{TLS}/{path.name}": path.read_text(encoding="ascii") for path in found}

    def _spawn(self, *arguments: Any, **options: Any) -> None:
        if files := self.tls:
            (self.folder / TLS).mkdir(exist_ok=True)
            self._own(self.folder / TLS, 0o700)
            for name, text in files.items():
                self._write(name, text)
        super()._spawn(*arguments, **options)


class RabbitMQNode(Clustered, servers.RabbitMQ):
    certificate = "rabbitmq"
    rejoins: float | None = None
    """After so many seconds apart from the others it is killed; for where something starts it."""

    def __init__(self, member: Member) -> None:
        ports, dist = member.ports, "RABBITMQ_DIST_PORT"
        super().__init__(
            member.folder / "rabbitmq",
            {**ports, dist: ports.get(f"{dist}_{member.name.upper()}", ports[dist])},
            password=member.passwords["RABBITMQ_ADMIN_PASSWORD"],
            host=member.address,
        )
        self.node = f"rabbit-{member.name}@{member.address}"
        self.tls_dir = member.tls_dir
        self._member = member

    def _shape(self) -> object:
        return super()._shape(), self._member.variables, self.tls

    @property
    def _listeners(self) -> str:
        return f"rabbitmq_{'tls' if self._member.certs else 'plain'}.conf"

    def _files(self) -> dict[str, str]:
        names = ("rabbitmq.conf", self._listeners, "rabbitmq_nodes.config")
        return {
            **{name: self._member.read(name) for name in names},
            "enabled_plugins": servers.PLUGINS.read_text(encoding="utf-8"),
            ".erlang.cookie": self.password,
        }

    def _settings(self) -> dict[str, str]:
        settings, arguments = super()._settings(), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"
        return {
            **self._member.variables,
            **settings,
            "RABBITMQ_CONFIG_FILES": f"{HERE}/{self._listeners}",
            "RABBITMQ_APART_SECONDS": str(self.rejoins),
            "RABBITMQ_ADMIN_PASSWORD": self.password,
            **({arguments: f"{settings[arguments]} {NODES_TLS}"} if self._member.certs else {}),
        }

    def _environment(self) -> dict[str, str]:
        own = {"RABBITMQ_CTL_ERL_ARGS": NODES_TLS} if self._member.certs else {}
        return {**super()._environment(), "RABBITMQ_USE_LONGNAME": "true", **own}

    def _spawn(self, argv: list[str], *arguments: Any, **options: Any) -> None:
        if self.rejoins is not None:
            self._write("rejoin.py", self._member.read("rejoin.py"))
            argv = ["/bin/sh", "-c", f'/usr/bin/python3 {HERE}/rejoin.py & exec "$0"', *argv]
        super()._spawn(argv, *arguments, **options)

    def stop(self) -> None:
        super(servers.RabbitMQ, self).stop()  # not epmd, which the other nodes may use


class Etcd(Clustered):
    certificate = "etcd"
    name = "etcd"
    user = "etcd"
    program = "etcd"

    def __init__(self, member: Member) -> None:
        ports = {name: member.ports[name] for name in ("ETCD_PORT", "ETCD_PEER_PORT")}
        super().__init__(member.folder / "etcd", ports, host=member.address)
        self._member = member

    def _shape(self) -> object:
        return self.settings, self.tls

    @property
    def settings(self) -> dict[str, str]:
        member, scheme = self._member, self._member.http
        peers = {
            name: f"{scheme}://{address}:{self.ports['ETCD_PEER_PORT']}"
            for name, address in member.addresses.items()
        }
        return member.settings(
            "etcd",
            clients=f"{scheme}://{self.host}:{self.ports['ETCD_PORT']}",
            own=peers[member.name],
            peers=",".join(f"{name}={url}" for name, url in peers.items()),
            state=os.environ.get("ETCD_INITIAL_CLUSTER_STATE", "new"),
        )

    def _launch(self, fingerprint: str) -> None:
        self._spawn([_program("etcd", "etcd-server")], fingerprint, self.settings)

    def ready(self) -> bool:
        address = f"{self._member.http}://{self.host}:{self.ports['ETCD_PORT']}"
        answer = _get(f"{address}/health", self._member.tls())
        return '"health":"true"' in answer.replace(" ", "")


class PatroniNode(Clustered):
    """Patroni and its PostgreSQL."""

    certificate = "postgres"
    name = "postgres"
    user = "postgres"
    program = "postgres"
    start_seconds = WHOLE_SECONDS

    def __init__(self, member: Member) -> None:
        ports = {name: member.ports[name] for name in ("POSTGRES_OWN_PORT", "PATRONI_PORT")}
        super().__init__(member.folder / "postgres", ports, host=member.address)
        self._member = member

    @property
    def postmaster(self) -> int | None:
        try:
            text = (self.folder / "data" / "postmaster.pid").read_text()
            pid = int(text.splitlines()[0])
        except (OSError, ValueError, IndexError):
            return None
        return pid if born(pid) else None

    @property
    def settings(self) -> dict[str, str]:
        etcd = self._member.ports["ETCD_PORT"]
        return self._member.settings(
            "patroni",
            etcd=",".join(f"'{each}:{etcd}'" for each in self._member.addresses.values()),
            api=f"{self.host}:{self.ports['PATRONI_PORT']}",
            at=f"{self.host}:{self.ports['POSTGRES_OWN_PORT']}",
            password=self._member.passwords["POSTGRES_SUPERUSER_PASSWORD"],
            folder=self.folder,
            binaries=servers.postgres_binaries(),
        )

    def _files(self) -> dict[str, str]:
        names = ("patroni.yml", *(("patroni_tls.yml",) if self._member.certs else ()))
        return {name: self._member.read(name) for name in names}

    def _shape(self) -> object:
        return self.settings, self._files(), self.tls

    def _launch(self, fingerprint: str) -> None:
        self._check_reachable()
        for name, text in self._files().items():
            self._write(name, text)
        files = HERE if self._member.certs else f"{HERE}/patroni.yml"
        argv = [_program("patroni", "patroni"), files]
        self._spawn(argv, fingerprint, self.settings)

    def _check_reachable(self) -> None:
        """PostgreSQL's programs get the full path of its data, which they must be able to go."""
        if os.geteuid() == 0:
            for parent in self.folder.parents:
                if not parent.stat().st_mode & 0o001:
                    raise ServerError(f"the user {self.user} must be able to enter {parent}")

    def ready(self) -> bool:
        """Return whether it is the primary, or a standby that may become it.

        Patroni promotes none that it has not yet entered among those that commits wait for.
        """
        state = self.state()
        if state.get("role") in {"primary", "master"}:
            return state.get("state") == "running"
        quorum = "synchronous_mode: quorum" in self._member.read("patroni.yml")
        streams = state.get("replication_state") == "streaming"
        return streams and bool(state.get("quorum_standby") or not quorum)

    @property
    def url(self) -> str:
        return f"{self._member.http}://{self.host}:{self.ports['PATRONI_PORT']}"

    def state(self) -> dict[str, Any]:
        text = _get(f"{self.url}/patroni", self._member.tls())
        found: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
        return found

    def family(self) -> list[int]:
        own = self.postmaster
        return [*super().family(), *(family(own) if own is not None else [])]

    def kill(self) -> None:
        for pid in self.family():  # PostgreSQL outlives Patroni
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().kill()


class RedisNode(Clustered, servers.Redis):
    certificate = "redis"
    kind = "server"
    variable = "REDIS_OWN_PORT"

    def __init__(self, member: Member) -> None:
        super().__init__(
            member.folder / self.name,
            port=member.ports[self.variable],
            password=member.passwords["REDIS_PASSWORD"],
            variable=self.variable,
            host=member.address,
        )
        self.tls_dir = member.tls_dir
        self._member = member

    @property
    def settings(self) -> dict[str, str]:
        return {
            **self._member.variables,
            "REDIS_PASSWORD": self.password,
            "REDIS_SERVER": servers.redis_binary(),
            "FILES": HERE,
        }

    def _shape(self) -> str:
        return repr((self.settings, self.tls))

    def _launch(self, fingerprint: str) -> None:
        for name in ("redis.conf", "redis.sh"):
            self._write(name, self._member.read(name))
        made_for = self.folder / "made-for"
        if made_for.exists() and made_for.read_text() != fingerprint:  # another port or password
            (self.folder / f"{self.kind}.conf").unlink(missing_ok=True)
        self._write("made-for", fingerprint)
        self._spawn(["/bin/sh", f"{HERE}/redis.sh", self.kind], fingerprint, self.settings)


class Sentinel(RedisNode):
    name = "sentinel"
    kind = "sentinel"
    variable = "SENTINEL_PORT"


class HAProxy(Clustered):
    certificate = "haproxy"
    name = "haproxy"
    user = "haproxy"
    program = "haproxy"

    def __init__(self, member: Member) -> None:
        ports = {f"{name}_PORT": member.ports[f"{name}_PORT"] for name in BALANCED}
        super().__init__(member.folder / "haproxy", ports, host=member.address)
        self._member = member

    @property
    def settings(self) -> dict[str, str]:
        password = self._member.passwords["REDIS_PASSWORD"]
        return {**self._member.variables, "REDIS_PASSWORD": password}

    def _shape(self) -> object:
        return self.settings, self._member.read("haproxy.cfg"), self.tls

    def _launch(self, fingerprint: str) -> None:
        self._write("haproxy.cfg", self._member.read("haproxy.cfg"))
        argv = [_program("haproxy", "haproxy"), "-db", "-f", f"{HERE}/haproxy.cfg"]
        self._spawn(argv, fingerprint, self.settings)

    def ready(self) -> bool:
        port = self.ports["POSTGRES_PORT"]
        with suppress(OSError), socket.create_connection((self.host, port), timeout=1):
            return True
        return False


class HostServers:
    """The servers of one host."""

    def __init__(self, member: Member, epmd: servers.Epmd) -> None:
        self.member = member
        self.rabbitmq = RabbitMQNode(member)
        self.rabbitmq.epmd = epmd
        self.etcd = Etcd(member)
        self.postgres = PatroniNode(member)
        self.redis = RedisNode(member)
        self.sentinel = Sentinel(member)
        self.haproxy = HAProxy(member)
        for server in self.all:
            server.name = f"{server.name}-{member.name}"

    @property
    def all(self) -> tuple[servers.Server, ...]:
        return (
            self.rabbitmq,  # first, because it starts slowest
            self.etcd,
            self.postgres,
            self.redis,
            self.sentinel,
            self.haproxy,
        )

    @property
    def dsn(self) -> str:
        """The superuser's way to the primary, through HAProxy of this host."""
        member = self.member
        password = member.passwords["POSTGRES_SUPERUSER_PASSWORD"]
        at = f"{member.address}:{member.ports['POSTGRES_PORT']}"
        url = f"postgresql://postgres:{password}@{at}/postgres"
        return (
            certificates.in_url(f"{url}?sslmode=verify-full", member.tls_dir)
            if member.certs
            else url
        )


class Cluster:
    def __init__(
        self,
        folder: Path,
        addresses: Sequence[str],
        ports: Mapping[str, int],
        passwords: Mapping[str, str],
        *,
        files: Path = FILES,
        certs: Path | None = None,
        shared_epmd: bool = True,
    ) -> None:
        """:param shared_epmd: one for all addresses, which are then of one loopback"""
        named = dict(zip(NAMES, addresses, strict=True))
        number = ports["RABBITMQ_EPMD_PORT"]

        def epmd(home: Path, listens: str) -> servers.Epmd:
            return servers.Epmd(home / "epmd", number, home / "epmd" / "server.log", listens)

        common = epmd(folder, ",".join(addresses))
        self.hosts = {}
        for name, address in named.items():
            member = Member(name, folder / name, named, ports, passwords, files, certs)
            one = common if shared_epmd else epmd(member.folder, address)
            self.hosts[name] = HostServers(member, one)

    @property
    def servers(self) -> list[servers.Server]:
        return [server for host in self.hosts.values() for server in host.all]

    @property
    def nodes(self) -> list[RabbitMQNode]:
        return [host.rabbitmq for host in self.hosts.values()]

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        for host in self.hosts.values():
            for folder in (host.member.folder.parent, host.member.folder):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o711)  # see PatroniNode
        for server in self.servers:
            server.launch()

    def wait(self) -> None:
        for server in self.servers:
            server.wait()
        wait_until("PostgreSQL", WHOLE_SECONDS, lambda: self.primary is not None, lambda: True)

    def stop(self) -> None:
        """Stop the standbys before the primary, which else waits for them to take its end over."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(lambda server: server.stop(), self.servers))
        for host in self.hosts.values():
            host.rabbitmq.epmd.stop()

    @property
    def primary(self) -> str | None:
        """The name of the host whose PostgreSQL has the leader's lock and takes writes."""
        for name, host in self.hosts.items():
            if _status(f"{host.postgres.url}/primary", host.member.tls()):
                return name
        return None

    @property
    def master(self) -> str | None:
        """The name of the host whose Redis has replicas and takes writes."""
        for name, host in self.hosts.items():
            with suppress(OSError):
                if host.redis.command("SET ostoja:probe 1 EX 1") == "+OK":
                    return name
        return None

    def switch_over(self, candidate: str) -> None:
        """Ask Patroni to make another node the primary.

        :raises ServerError: it refused, because the other lags, say
        """
        leader = self.primary
        if leader is None:
            raise ServerError("there is no primary")
        node, tls = self.hosts[leader].postgres, self.hosts[leader].member.tls()
        account = f"patroni:{node.settings['PATRONI_RESTAPI_PASSWORD']}".encode()
        request = urllib.request.Request(
            f"{node.url}/switchover",
            data=json.dumps({"leader": leader, "candidate": candidate}).encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(account).decode()}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60, context=tls):
                pass
        except OSError as error:
            raise ServerError(f"no switchover from {leader} to {candidate}: {error}") from None


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise ServerError(f"{name} is not installed (Debian's package {package})")
    return found


def _status(url: str, tls: ssl.SSLContext | None) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2, context=tls):
        return True
    return False


def _get(url: str, tls: ssl.SSLContext | None) -> str:
    """Return the body, of an error, too; empty if nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=2, context=tls) as answer:
            return str(answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError:
        return ""
