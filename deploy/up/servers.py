"""Private PostgreSQL, Redis and RabbitMQ, each in its own folder and on its own ports.

Standard library only: it runs before anything is installed. It neither reads nor changes the
system's instances, their configuration or their epmd.

Under root, each server runs as its package's unprivileged user (PostgreSQL requires one), even if
that user cannot enter the checkout's parents, such as /root. The folder is opened before privileges
are dropped, and the server gets its paths through /proc, relative to the open folder. The kernel
then checks permissions on that folder, which belongs to the user, but not on its parents. So the
data stays in the checkout, without a mount or wider permissions.
"""

import base64
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from deploy.backup.repository import DATA, Repository, program
from deploy.up.environment import parse
from deploy.up.process import (
    HERE,
    HOST,
    Process,
    ServerError,
    account,
    as_user,
    born,
    check_ports_free,
    family,
    wait_until,
)
from libs.common import beside
from libs.common.process import certificates

PLUGINS = Path(__file__).parents[1] / "rabbitmq" / "enabled_plugins"
RABBITMQ_PORTS = tuple(f"RABBITMQ{kind}_PORT" for kind in ("", "_UI", "_METRICS", "_DIST", "_EPMD"))


def _filled(name: str, **values: object) -> str:
    """Return a configuration file of this folder, with our values."""
    return Template(beside.text(__file__, name)).substitute(values)


class Server(ABC):
    name: str
    user: str
    program: str  # as in /proc/PID/comm
    stop_signal = signal.SIGTERM
    start_seconds = 60.0
    stop_seconds = 30.0

    def __init__(
        self, folder: Path, ports: Mapping[str, int], log: Path | None = None, host: str = HOST
    ) -> None:
        """:param ports: by the variable that sets each, for error messages"""
        self.folder = folder.resolve()
        self.ports = dict(ports)
        self.host = host
        self.enter: tuple[str, ...] = ()
        """A command that runs the server elsewhere, as in a network namespace; needs root."""
        self.log = log or self.folder / "server.log"
        self.process = Process(self.folder / "server.pid")

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the server unless it runs; restart it if its settings have changed."""
        fingerprint = hashlib.sha256(repr(self._shape()).encode()).hexdigest()
        if self.process.runs_as(fingerprint):
            return
        self.stop()
        self._end_strays()
        if not self.enter:
            check_ports_free(self.ports, self.host)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own(self.folder, 0o700)
        self._launch(fingerprint)

    def wait(self) -> None:
        """Wait until it answers real requests.

        :raises ServerError: with the end of its log
        """
        try:
            wait_until(self.name, self.start_seconds, self.ready, lambda: self.pid is not None)
        except ServerError as error:
            raise ServerError(f"{error}; the end of its log {self.log}:\n{self.tail()}") from None

    def stop(self) -> None:
        self.process.stop(self.stop_signal, self.stop_seconds)

    def kill(self) -> None:
        """Kill it (kill -9), as a power cut would."""
        self.process.stop(signal.SIGKILL, self.stop_seconds)

    def family(self) -> list[int]:
        """Return the pids of all its processes."""
        return family(self.pid) if self.pid is not None else []

    def _end_strays(self) -> None:
        """End unrecorded processes that use our data.

        These are left by a start that was killed before it wrote the record, or are PostgreSQL
        backends whose postmaster was just killed. Their working directory is in our folder.
        """
        deadline = time.monotonic() + self.stop_seconds
        number = self.stop_signal
        while strays := self._strays():
            for pid in strays:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            time.sleep(0.05)

    def _strays(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or belongs to another user
                if (entry / "comm").read_text().strip() != self.program:
                    continue
                home = (entry / "cwd").readlink()
                if home.is_relative_to(self.folder) and born(int(entry.name)) is not None:
                    found.append(int(entry.name))
        return found

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    @abstractmethod
    def ready(self) -> bool:
        """Return whether it answers a real request."""

    @abstractmethod
    def _shape(self) -> object:
        """Everything that distinguishes the running server from the wanted one."""

    @abstractmethod
    def _launch(self, fingerprint: str) -> None: ...

    def _own(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        if os.geteuid() == 0:
            entry = account(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        self._own(path, 0o600)
        path.write_text(text)

    def _spawn(
        self,
        argv: list[str],
        fingerprint: str,
        environment: Mapping[str, str] = MappingProxyType({}),
        *,
        cwd: str | Path | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.process.spawn(
            [*self.enter, *argv],
            env={**self._environment(), **environment},
            cwd=cwd or self.folder,
            log=self.log,
            user=None if self.enter else self.user,
            pass_fds=pass_fds,
            fingerprint=fingerprint,
        )

    def _environment(self) -> dict[str, str]:
        # Inherit nothing: PGDATA or RABBITMQ_* of the caller would lead to other instances.
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "LANG": "C.UTF-8", "HOME": HERE}


class Postgres(Server):
    name = "postgres"
    user = "postgres"
    program = "postgres"
    stop_signal = signal.SIGINT  # "fast" shutdown: end sessions, write a checkpoint

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        password: str,
        settings: Mapping[str, str] | None = None,
        log: Path | None = None,
        variable: str = "POSTGRES_PORT",
        repository: Repository | None = None,
    ) -> None:
        """:param repository: of backups; without `archive_mode` in `settings` the log goes there"""
        super().__init__(folder, {variable: port}, log)
        self.port = port
        self.password = password
        self.repository = repository
        self.settings = {
            **parse(_filled("postgres.conf", port=port, host=HOST)),
            **(repository.settings() if repository else {}),
            **(settings or {}),
        }

    @property
    def dsn(self) -> str:
        """The superuser's password."""
        return f"postgresql://postgres:{self.password}@{HOST}:{self.port}/postgres"

    def _shape(self) -> object:
        if self.repository is None:
            return self.settings
        return self.settings, self.repository.environment(self.port)

    def _launch(self, fingerprint: str) -> None:
        binaries = postgres_binaries()
        # An open descriptor, not /proc/self/cwd: PostgreSQL changes into its data folder, and
        # version 15 changes back by the full path, which its user may not be allowed to enter.
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not (self.folder / "data").exists():
                self._initialise(binaries, folder)
            # Stale after a crash or a reboot. No process uses the data (launch ensured that), but
            # PostgreSQL would refuse to start if another server of its user now has that pid.
            (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
            argv = [str(binaries / "postgres"), "-D", f"/proc/self/fd/{folder}/data"]
            for name, value in self.settings.items():
                argv += ["-c", f"{name}={value}"]
            if self.repository is None:
                self._spawn(argv, fingerprint, cwd="/", pass_fds=(folder,))
                return
            argv[2] = DATA
            environment = self.repository.environment(self.port)
            with self.repository.held(self.folder, self.user) as (prefix, fds):
                self._spawn([*prefix, *argv], fingerprint, environment, cwd="/", pass_fds=fds)
        finally:
            os.close(folder)

    def _initialise(self, binaries: Path, folder: int) -> None:
        unfinished = self.folder / "data.new"  # renamed when initdb is complete
        shutil.rmtree(unfinished, ignore_errors=True)
        self._write("password", self.password)
        try:
            self._run(
                "initdb",
                [
                    str(binaries / "initdb"),
                    f"--pgdata=/proc/self/fd/{folder}/data.new",
                    f"--pwfile=/proc/self/fd/{folder}/password",
                    "--username=postgres",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                ],
                (folder,),
            )
        finally:
            (self.folder / "password").unlink()
        unfinished.rename(self.folder / "data")

    def _run(
        self,
        what: str,
        argv: list[str],
        fds: tuple[int, ...],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Run a program of PostgreSQL as the server's user, and return what it printed.

        :raises ServerError: it failed
        """
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv,
            env={**self._environment(), **environment},
            cwd="/",
            pass_fds=fds,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            **as_user(self.user),
        )
        if done.returncode:
            raise ServerError(f"{what} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout

    def pgbackrest(self, *arguments: str) -> str:
        """Run a command of pgBackRest as the server's user, and return what it printed.

        :raises ServerError: it failed
        """
        if self.repository is None:
            raise ServerError("no BACKUP_DIR is set in .env")
        with self.repository.held(self.folder, self.user) as (prefix, fds):
            return self._run(
                f"pgbackrest {arguments[0]}",
                [*prefix, program(), "--no-config", *arguments],
                fds,
                {**self.repository.environment(self.port), "PGPASSWORD": self.password},
            )

    def restore(self, *options: str) -> None:
        """Fill a new folder from the newest backup; the start then replays the log.

        :raises ServerError: there are data, or no backup
        """
        data = self.folder / "data"
        data.mkdir(parents=True)
        for each in (self.folder, data):
            self._own(each, 0o700)
        self.pgbackrest("restore", *options)

    def ready(self) -> bool:
        probe = [str(postgres_binaries() / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port)]
        return subprocess.run(probe, env=self._environment(), check=False).returncode == 0


def postgres_binaries() -> Path:
    """Find the newest PostgreSQL of this machine."""
    found = {
        int(path.parent.parent.name): path.parent
        for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")
        if path.parent.parent.name.isdigit()
    }
    if found:
        return found[max(found)]
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).resolve().parent
    raise ServerError("PostgreSQL is not installed")


class Redis(Server):
    name = "redis"
    user = "redis"
    program = "redis-server"
    tls_dir: Path | None = None
    """The client's certificate, if the server speaks TLS only."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        password: str,
        log: Path | None = None,
        variable: str = "REDIS_PORT",
        host: str = HOST,
    ) -> None:
        super().__init__(folder, {variable: port}, log, host)
        self.port = port
        self.password = password

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{self.host}:{self.port}/0"

    def _shape(self) -> str:
        return _filled("redis.conf", host=self.host, port=self.port, password=self.password)

    def _launch(self, fingerprint: str) -> None:
        self._write("redis.conf", self._shape())
        self._spawn([redis_binary(), f"{HERE}/redis.conf"], fingerprint)

    def ready(self) -> bool:
        try:
            return self.command("PING") == "+PONG"
        except OSError:
            return False

    def command(self, line: str) -> str:
        """Run one command and return the first line of the answer."""
        with self._connect() as connection:
            connection.sendall(f"AUTH {self.password}\r\n{line}\r\n".encode())
            answer = connection.makefile("r", encoding="utf-8", newline="\r\n")
            first = answer.readline().strip()
            return first if first != "+OK" else answer.readline().strip()

    def _connect(self) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), timeout=5)
        if self.tls_dir is None:
            return plain
        return certificates.client(self.tls_dir).wrap_socket(plain, server_hostname=self.host)


def redis_binary() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise ServerError("Redis is not installed")
    return found


class RabbitMQ(Server):
    """RabbitMQ with the containers' plugins and a private epmd; a shared one would outlive us."""

    name = "rabbitmq"
    user = "rabbitmq"
    program = "beam.smp"
    admin = "admin"
    node = "ostoja@localhost"
    tls_dir: Path | None = None
    """The client's certificate, if the server speaks TLS only."""

    def __init__(
        self,
        folder: Path,
        ports: Mapping[str, int],
        *,
        password: str,
        log: Path | None = None,
        host: str = HOST,
    ) -> None:
        """:param ports: each of RABBITMQ_PORTS"""
        own = {name: ports[name] for name in RABBITMQ_PORTS}
        epmd_port = own.pop("RABBITMQ_EPMD_PORT")
        super().__init__(folder, own, log, host)
        self.port = own["RABBITMQ_PORT"]
        self.password = password
        self.epmd = Epmd(self.folder / "epmd", epmd_port, self.log)

    @property
    def management_url(self) -> str:
        at = f"{self.host}:{self.ports['RABBITMQ_UI_PORT']}"
        return f"http{'s' if self.tls_dir else ''}://{at}"

    def _shape(self) -> object:
        return self._files(), self.node, self.ports, self.epmd.port

    def _files(self) -> dict[str, str]:
        user = {"name": self.admin, "password": self.password, "tags": ["administrator"]}
        return {
            "rabbitmq.conf": _filled("rabbitmq.conf", host=self.host, here=HERE, **self.ports),
            "enabled_plugins": PLUGINS.read_text(encoding="utf-8"),
            "definitions.json": json.dumps({"users": [user]}),
        }

    def _launch(self, fingerprint: str) -> None:
        home = rabbitmq_home()
        self.epmd.start()
        for name, text in self._files().items():
            self._write(name, text)
        self._spawn([str(home / "sbin" / "rabbitmq-server")], fingerprint, self._settings())

    def _settings(self) -> dict[str, str]:
        text = _filled(
            "rabbitmq.env",
            here=HERE,
            host=self.host,
            interface=self.host.replace(".", ","),
            node=self.node,
            dist_port=self.ports["RABBITMQ_DIST_PORT"],
            epmd_port=self.epmd.port,
        )
        return parse(text)

    def stop(self) -> None:
        super().stop()
        self.epmd.stop()

    def ready(self) -> bool:
        """Return whether the broker listens for AMQP and its API accepts our administrator."""
        path = f"health/checks/port-listener/{self.port}"
        account = (self.admin, self.password)
        with suppress(OSError, http.client.HTTPException):
            manage(self.management_url, account, "GET", path, tls_dir=self.tls_dir, seconds=5)
            return True
        return False


def manage(
    url: str,
    account: tuple[str, str],
    method: str,
    path: str,
    body: Any = None,
    *,
    tls_dir: Path | None = None,
    seconds: float = 30,
    headers: dict[str, str] | None = None,
) -> Any:
    """Call RabbitMQ's management API, through no proxy; raises OSError or HTTPException.

    :param headers: gets those of the answer, in small letters
    """
    token = base64.b64encode(":".join(account).encode()).decode()
    request = Request(
        f"{url}/api/{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        method=method,
    )
    tls = certificates.client(tls_dir) if url.startswith("https:") else None
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=tls))
    with opener.open(request, timeout=seconds) as answer:
        if headers is not None:
            headers |= {name.lower(): value for name, value in answer.headers.items()}
        return json.loads(answer.read() or "null")


class Epmd(Server):
    name = "epmd"
    user = "rabbitmq"
    program = "epmd"

    def __init__(self, folder: Path, port: int, log: Path, addresses: str = HOST) -> None:
        """:param addresses: comma-separated; it listens on 127.0.0.1 in any case"""
        super().__init__(folder, {"RABBITMQ_EPMD_PORT": port}, log, addresses.partition(",")[0])
        self.port = port
        self.addresses = addresses

    def _shape(self) -> object:
        return self.port, self.addresses

    def _launch(self, fingerprint: str) -> None:
        epmd = shutil.which("epmd")
        if epmd is None:
            raise ServerError("epmd, Erlang's port mapper, is not installed")
        self._spawn([epmd, "-address", self.addresses, "-port", str(self.port)], fingerprint)

    def ready(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
            return True
        return False


def rabbitmq_home() -> Path:
    """Find the newest RabbitMQ of this machine; the version is in the folder's name.

    Not by `rabbitmq-server --version`: that starts a server.
    """
    found = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
    versions = {
        tuple(int(part) for part in path.name.partition("-")[2].split(".")[:3]): path
        for path in found
        if path.name.partition("-")[2].replace(".", "").isdigit()
    }
    if not versions:
        raise ServerError("RabbitMQ is not installed")
    if max(versions) < (4,):
        raise ServerError(f"RabbitMQ 4.0 or newer is needed, but {max(versions)} is installed")
    return versions[max(versions)]
