"""Two releases of Ostoja beside each other: their checkouts, and two replicas of each service."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import Template

import pytest

from deploy.up.environment import ROOT, SERVICES, WITH_TABLES, parse
from deploy.up.process import HOST, Process, wait_until
from deploy.up.servers import Postgres, RabbitMQ
from deploy.up.supervisor import DRAIN_SECONDS
from tests.support.ports import Ports
from tests.support.sandbox import Sandbox
from tests.support.stack import HEALTH, status
from tests.support.system import System

REPLICAS = ("a", "b")
READY = {"gateway": "/api/ready"}


@dataclass(frozen=True)
class Release:
    """A release's files, and a Python with its packages."""

    name: str
    root: Path
    python: Path

    @property
    def services(self) -> list[str]:
        return [name for name in SERVICES if (self.root / "services" / name).exists()]

    @property
    def env(self) -> dict[str, str]:
        """The variables that make a process of this release its own."""
        ours = {"PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE"}
        return {name: os.environ[name] for name in ours if name in os.environ} | {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, *arguments: str, given: Mapping[str, str]) -> str:
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.root,
            env={**self.env, **given},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    def environment(self, values: Mapping[str, str], service: str) -> dict[str, str]:
        """Return a service's variables, as this release composes them from .env."""
        room = "up" if (self.root / "deploy" / "up").exists() else "local"  # its name until 0.1
        code = (
            f"import json, sys; from deploy.{room}.environment import for_process; "
            "print(json.dumps(for_process(json.loads(sys.argv[1]), sys.argv[2])))"
        )
        given = json.dumps({**values, **self.config})
        made: dict[str, str] = json.loads(self.run("-c", code, given, service, given={}))
        return made

    @property
    def defaults(self) -> dict[str, str]:
        """Its settings: it may read one that today's code no longer has."""
        files = (self.root / ".env.example", self.root / "deploy" / "up" / "expert.env")
        texts = (file.read_text(encoding="utf-8") for file in files if file.exists())
        return parse("\n".join(texts))

    @property
    def config(self) -> dict[str, str]:
        """Its own files: a release may need texts that the one before refuses."""
        return {
            f"{name.upper()}_CONFIG": str(self.root / "config.example" / f"{name}.toml")
            for name in ("alerts", "company", "followups", "forms")
            if (self.root / "config.example" / f"{name}.toml").exists()
        }


def today() -> Release:
    return Release("today's code", ROOT, Path(sys.executable))


def previous(base: str, folder: Path) -> Release:
    """Unpack the last tag before today's code; without one, this commit.

    A clone without its history lacks both: then the test is skipped.
    """
    head = _git("rev-parse", "HEAD")
    tags = _git("tag", "--list", "v*", "--merged", "HEAD", "--sort=-version:refname").split()
    older = (tag for tag in tags if _git("rev-list", "-1", tag) != head)
    name = next(older, base)
    if subprocess.run(["git", "cat-file", "-e", f"{name}^{{commit}}"], cwd=ROOT).returncode:  # noqa: PLW1510
        pytest.skip(f"this clone lacks {name}, which today's code is to run beside: git fetch")
    root = folder / "previous"
    root.mkdir()
    archive = subprocess.run(["git", "archive", name], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", root], input=archive.stdout, check=True)
    return Release(name, root, _python_for(root))


def _python_for(root: Path) -> Path:
    """Return this Python if the release has the same locked packages; else one that has them."""
    lock = Path("requirements") / ("3.11.txt" if sys.version_info < (3, 12) else "3.13.txt")
    if (root / lock).read_bytes() == (ROOT / lock).read_bytes():
        return Path(sys.executable)
    venv.create(root / ".venv", with_pip=True)
    python = root / ".venv" / "bin" / "python"
    arguments = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
    subprocess.run(
        [python, "-m", "pip", "install", *arguments, "-r", root / lock], cwd=root, check=True
    )
    return python


def _git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).strip()


class Balancer:
    """Gives each new connection to the next target, as a Service of Kubernetes does."""

    def __init__(self, targets: list[int]) -> None:
        self.targets = targets
        self._turn = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        target = self.targets[self._turn % len(self.targets)]
        try:
            answers, requests = await asyncio.open_connection(HOST, target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, requests), _pass_on(answers, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


class Fleet(System):
    """Two replicas of each service, balanced, on one stack; each runs one of the releases."""

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        values: Mapping[str, str],
        sandbox: Sandbox,
        servers: tuple[Postgres, RabbitMQ],
    ) -> None:
        self.folder = folder
        self.postgres, self.rabbitmq = servers
        self._front = {service: ports.take() for service in SERVICES}
        self._balancers: dict[str, Balancer] = {}
        values = {**values, "GATEWAY_PORT": str(self._front["gateway"])}
        for service in SERVICES:
            values[f"{service.upper()}_URL"] = f"http://{HOST}:{self._front[service]}"
        super().__init__(f"http://{HOST}:{self._front['gateway']}", values, sandbox)
        self._ports = {one: ports.take() for one in product(SERVICES, REPLICAS)}
        self._metrics = {one: ports.take() for one in product(SERVICES, REPLICAS)}
        self.releases: dict[tuple[str, str], Release] = {}

    def set_up(self, release: Release) -> None:
        """Prepare the servers and migrate, as compose and Helm do before they replace anything."""
        given = {
            **self.values,
            **release.config,
            "POSTGRES_ADDRESS": f"{HOST}:{self.postgres.port}",
            "RABBITMQ_MANAGEMENT_URL": self.rabbitmq.management_url,
            # It only checks that a provider's settings are complete.
            "MONDAY_API_URL": "", "SMS_API_URL": "", "SMTP_HOST": "",
        }  # fmt: skip
        release.run("-m", "deploy.setup", given=given)

    def start(self, release: Release, service: str, replica: str) -> None:
        """Start a replica, and wait until it is ready."""
        one = (service, replica)
        self.releases[one] = release
        ports = {
            "HTTP_PORT": str(self._ports[one]),
            "METRICS_PORT": str(self._metrics[one]),
        }
        self._process(one).spawn(
            [str(release.python), "-m", f"services.{service}"],
            env={**release.env, **release.environment(self.values, service), **ports},
            cwd=release.root,
            log=self._log(one),
        )
        path = READY.get(service, HEALTH.get(service, "/health"))
        wait_until(
            f"{release.name}: {service} {replica}",
            40,
            lambda: status(self._ports[one], path) == 200,
            lambda: self._process(one).pid is not None,
        )

    async def replace(self, release: Release, service: str, replica: str) -> None:
        """Let a replica leave and finish its work (SIGTERM), and start one of this release."""
        process = self._process((service, replica))
        if service in self._balancers:  # Kubernetes takes a pod out as it sends the signal
            self._balancers[service].targets.remove(self._ports[service, replica])
        await asyncio.to_thread(process.stop, signal.SIGTERM, DRAIN_SECONDS)
        await asyncio.to_thread(self.start, release, service, replica)
        if service in self._balancers:
            self._balancers[service].targets.append(self._ports[service, replica])

    def said(self) -> str:
        """Return the end of each log, for a failure."""
        ends = []
        for one in self.releases:
            lines = self._log(one).read_text(errors="replace").splitlines()
            told = [line for line in lines if '"error"' in line or "Traceback" in line]
            ends.append(f"{one} {self.releases[one].name}:\n" + "\n".join(told[-5:]))
        return "\n".join(ends)

    @asynccontextmanager
    async def running_balancers(self) -> AsyncIterator[None]:
        """Run what is in front of replicas: for the gateways Caddy, which asks for /api/ready."""
        gateways = " ".join(f"{HOST}:{self._ports['gateway', each]}" for each in REPLICAS)
        file = self.folder / "Caddyfile"
        template = Template(Path(__file__).with_name("fleet.Caddyfile").read_text("utf-8"))
        file.write_text(
            template.substitute(front=f"{HOST}:{self._front['gateway']}", gateways=gateways)
        )
        caddy = Process(self.folder / "run" / "caddy.pid")
        caddy.spawn(
            ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"],
            env={**os.environ, "XDG_DATA_HOME": str(self.folder), "HOME": str(self.folder)},
            cwd=self.folder,
            log=self.folder / "log" / "caddy.log",
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, caddy.stop, signal.SIGTERM, 10)
            for service in WITH_TABLES:
                targets = [self._ports[service, each] for each in REPLICAS]
                balancer = self._balancers[service] = Balancer(targets)
                server = await asyncio.start_server(balancer.serve, HOST, self._front[service])
                stack.callback(server.close)
            yield

    def close(self) -> None:
        for one in self.releases:
            self._process(one).signal(signal.SIGTERM)
        for one in self.releases:
            self._process(one).stop(signal.SIGTERM, DRAIN_SECONDS)

    def _process(self, one: tuple[str, str]) -> Process:
        return Process(self.folder / "run" / f"{'-'.join(one)}.pid")

    def _log(self, one: tuple[str, str]) -> Path:
        return self.folder / "log" / f"{'-'.join(one)}.log"
