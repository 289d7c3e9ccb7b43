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
import pwd
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PLUGINS = Path(__file__).parents[1] / "rabbitmq" / "enabled_plugins"
HERE = "/proc/self/cwd"  # a server's own folder, by a path that needs no permission on its parents
LEAVING_SECONDS = 0.5
"""A killed process may hold its ports for a moment after it is gone, until its last thread ends."""


class ServerError(Exception):
    """The text is shown to the user."""


class PortTakenError(ServerError):
    def __init__(self, ports: Mapping[str, int]) -> None:
        named = ", ".join(f"{port} ({variable})" for variable, port in ports.items())
        super().__init__(
            f"taken by other programs: port {named}; free them, set others in .env, or use "
            "`make up PORT_OFFSET=100` to raise all our ports by 100"
        )


def check_ports_free(ports: Mapping[str, int]) -> None:
    """:raises PortTakenError: names every port that is taken"""
    deadline = time.monotonic() + LEAVING_SECONDS
    while taken := {variable: port for variable, port in ports.items() if not _is_free(port)}:
        if time.monotonic() > deadline:
            raise PortTakenError(taken)
        time.sleep(0.05)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore TIME_WAIT
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def wait_until(
    what: str, seconds: float, ready: Callable[[], bool], alive: Callable[[], bool]
) -> None:
    """Poll `ready`; give up after `seconds` or when the process has ended."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not alive():
            raise ServerError(f"{what} ended while starting")
        if time.monotonic() > deadline:
            raise ServerError(f"{what} does not answer after {seconds:.0f} s")
        time.sleep(0.05)


_children: dict[int, subprocess.Popen[bytes]] = {}  # of this process, not reaped yet


class Process:
    """A detached process, identified by a recorded pid, start time and boot id.

    After a crash or a reboot another process may have the pid, but not all three.
    """

    def __init__(self, record: Path) -> None:
        self.record = record

    def spawn(
        self,
        argv: list[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path,
        log: Path,
        user: str | None = None,
        pass_fds: tuple[int, ...] = (),
        fingerprint: str = "",
    ) -> None:
        for folder in (log.parent, self.record.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal must not reach it
                pass_fds=pass_fds,
                **as_user(user),
            )
        _children[child.pid] = child
        self.note(child.pid, fingerprint)

    def note(self, pid: int, fingerprint: str = "") -> None:
        """Record a newly started process."""
        text = json.dumps({"pid": pid, "born": _born(pid), "fingerprint": fingerprint})
        fresh = self.record.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.record)

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    @property
    def pid(self) -> int | None:
        """The pid, while this same process runs."""
        record = self._read()
        pid, born = record.get("pid"), record.get("born")
        alive = isinstance(pid, int) and born is not None and _born(pid) == born
        _reap()
        return pid if alive else None

    def runs_as(self, fingerprint: str) -> bool:
        return self.pid is not None and self._read().get("fingerprint") == fingerprint

    def signal(self, number: int) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, number: int, seconds: float) -> None:
        """Send the signal and wait; after `seconds`, kill the process and its group."""
        pid = self.pid
        self.signal(number)
        deadline = time.monotonic() + seconds
        while self.pid is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        if pid is not None and self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            while self.pid is not None:
                time.sleep(0.02)
        self.record.unlink(missing_ok=True)


def _reap() -> None:
    """Reap ended children, which are zombies until their parent does."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]


def _born(pid: int) -> str | None:
    """Return boot id and start time of a process; None if it does not exist or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if stat[0] == "Z" else f"{boot} {stat[19]}"


def as_user(user: str | None) -> dict[str, Any]:
    """Return Popen's arguments that drop root's privileges; empty if not root.

    Popen changes to `cwd` before it changes the user; the module's docstring relies on that.
    """
    if user is None or os.geteuid() != 0:
        return {}
    entry = account(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def account(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:  # the server was not installed from the distribution's package
        return pwd.getpwnam("nobody")


class Server(ABC):
    name: str
    user: str
    program: str  # as in /proc/PID/comm
    stop_signal = signal.SIGTERM
    start_seconds = 60.0
    stop_seconds = 30.0

    def __init__(self, folder: Path, ports: Mapping[str, int], log: Path | None = None) -> None:
        """:param ports: by the variable that sets each, for error messages"""
        self.folder = folder.resolve()
        self.ports = dict(ports)
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
        check_ports_free(self.ports)
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
                if home.is_relative_to(self.folder) and _born(int(entry.name)) is not None:
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
    ) -> None:
        super().__init__(folder, {variable: port}, log)
        self.port = port
        self.password = password
        self.settings = {
            "port": str(port),
            "listen_addresses": HOST,
            "unix_socket_directories": "",  # the path may be too long, and TCP is enough
            "fsync": "on",
            "max_connections": "300",
            "cluster_name": f"ostoja-{port}",  # shown by ps
            "log_timezone": "UTC",
            "timezone": "UTC",
            # Do not log failed statements: they contain personal data; the services log the errors.
            "log_min_messages": "log",
            **(settings or {}),
        }

    @property
    def dsn(self) -> str:
        """The superuser's password."""
        return f"postgresql://postgres:{self.password}@{HOST}:{self.port}/postgres"

    def _shape(self) -> object:
        return self.settings

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
            self.process.spawn(
                argv,
                env=self._environment(),
                cwd="/",
                log=self.log,
                user=self.user,
                pass_fds=(folder,),
                fingerprint=fingerprint,
            )
        finally:
            os.close(folder)

    def _initialise(self, binaries: Path, folder: int) -> None:
        unfinished = self.folder / "data.new"  # renamed when initdb is complete
        shutil.rmtree(unfinished, ignore_errors=True)
        self._write("password", self.password)
        try:
            done = subprocess.run(
                [
                    str(binaries / "initdb"),
                    f"--pgdata=/proc/self/fd/{folder}/data.new",
                    f"--pwfile=/proc/self/fd/{folder}/password",
                    "--username=postgres",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                ],
                env=self._environment(),
                cwd="/",
                pass_fds=(folder,),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                **as_user(self.user),
            )
        finally:
            (self.folder / "password").unlink()
        if done.returncode:
            raise ServerError(f"initdb failed:\n{done.stdout.decode(errors='replace')}")
        unfinished.rename(self.folder / "data")

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

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        password: str,
        log: Path | None = None,
        variable: str = "REDIS_PORT",
    ) -> None:
        super().__init__(folder, {variable: port}, log)
        self.port = port
        self.password = password

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def _shape(self) -> str:
        return "\n".join(
            [
                f"bind {HOST}",
                f"port {self.port}",
                f"requirepass {self.password}",
                "dir .",
                "appendonly yes",  # limits set at run time survive a restart
                "maxmemory 256mb",
                "maxmemory-policy volatile-lru",  # may evict counters, but not limits
                "",
            ]
        )

    def _launch(self, fingerprint: str) -> None:
        self._write("redis.conf", self._shape())
        self.process.spawn(
            [redis_binary(), f"{HERE}/redis.conf"],
            env=self._environment(),
            cwd=self.folder,
            log=self.log,
            user=self.user,
            fingerprint=fingerprint,
        )

    def ready(self) -> bool:
        try:
            return self.command("PING") == "+PONG"
        except OSError:
            return False

    def command(self, line: str) -> str:
        """Run one command and return the first line of the answer."""
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            connection.sendall(f"AUTH {self.password}\r\n{line}\r\n".encode())
            answer = connection.makefile("r", encoding="utf-8", newline="\r\n")
            first = answer.readline().strip()
            return first if first != "+OK" else answer.readline().strip()


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

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        management_port: int,
        metrics_port: int,
        dist_port: int,
        epmd_port: int,
        password: str,
        log: Path | None = None,
    ) -> None:
        super().__init__(
            folder,
            {
                "RABBITMQ_PORT": port,
                "RABBITMQ_UI_PORT": management_port,
                "RABBITMQ_METRICS_PORT": metrics_port,
                "RABBITMQ_DIST_PORT": dist_port,
            },
            log,
        )
        self.port = port
        self.management_port = management_port
        self.metrics_port = metrics_port
        self.dist_port = dist_port
        self.password = password
        self.epmd = _Epmd(self.folder / "epmd", epmd_port, self.log)

    @property
    def management_url(self) -> str:
        return f"http://{HOST}:{self.management_port}"

    def _shape(self) -> object:
        return self._files(), self.dist_port, self.epmd.port

    def _files(self) -> dict[str, str]:
        salt = hashlib.sha256(self.password.encode()).digest()[:4]  # the same at each start
        user = {
            "name": self.admin,
            "password_hash": password_hash(self.password, salt),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["administrator"],
        }
        return {
            "rabbitmq.conf": "\n".join(
                [
                    f"listeners.tcp.1 = {HOST}:{self.port}",
                    f"management.tcp.ip = {HOST}",
                    f"management.tcp.port = {self.management_port}",
                    f"prometheus.tcp.ip = {HOST}",
                    f"prometheus.tcp.port = {self.metrics_port}",
                    # Loaded at every start, which also repairs a first start that was killed
                    # half-way.
                    f"load_definitions = {HERE}/definitions.json",
                    "log.file = false",
                    "log.console = true",
                    "log.console.level = warning",
                    "",
                ]
            ),
            "enabled_plugins": PLUGINS.read_text(encoding="utf-8"),
            "definitions.json": json.dumps({"users": [user]}),
        }

    def _launch(self, fingerprint: str) -> None:
        home = rabbitmq_home()
        self.epmd.start()
        for name, text in self._files().items():
            self._write(name, text)
        environment = {
            **self._environment(),
            "RABBITMQ_NODENAME": "ostoja@localhost",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "ERL_EPMD_PORT": str(self.epmd.port),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONFIG_FILE": f"{HERE}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{HERE}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{HERE}/data",
            "RABBITMQ_LOG_BASE": f"{HERE}/log",
            # The system's instance reads these files in /etc.
            "RABBITMQ_CONF_ENV_FILE": f"{HERE}/absent",
            "RABBITMQ_CONFIG_FILES": f"{HERE}/absent",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{HERE}/absent",
            # Make the script exec the server instead of waiting for it: one pid, one signal.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        self.process.spawn(
            [str(home / "sbin" / "rabbitmq-server")],
            env=environment,
            cwd=self.folder,
            log=self.log,
            user=self.user,
            fingerprint=fingerprint,
        )

    def stop(self) -> None:
        super().stop()
        self.epmd.stop()

    def ready(self) -> bool:
        """Return whether the broker listens for AMQP and its API accepts our administrator."""
        token = base64.b64encode(f"{self.admin}:{self.password}".encode()).decode()
        connection = http.client.HTTPConnection(HOST, self.management_port, timeout=5)
        try:
            connection.request(
                "GET",
                f"/api/health/checks/port-listener/{self.port}",
                headers={"Authorization": f"Basic {token}"},
            )
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class _Epmd(Server):
    name = "epmd"
    user = "rabbitmq"
    program = "epmd"

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        super().__init__(folder, {"RABBITMQ_EPMD_PORT": port}, log)
        self.port = port

    def _shape(self) -> int:
        return self.port

    def _launch(self, fingerprint: str) -> None:
        epmd = shutil.which("epmd")
        if epmd is None:
            raise ServerError("epmd, Erlang's port mapper, is not installed")
        self.process.spawn(
            [epmd, "-address", HOST, "-port", str(self.port)],
            env=self._environment(),
            cwd=self.folder,
            log=self.log,
            user=self.user,
            fingerprint=fingerprint,
        )

    def ready(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
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


def password_hash(password: str, salt: bytes) -> str:
    """Hash a password in RabbitMQ's format (rabbit_password_hashing_sha256)."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
