"""The ops person's shell: a checkout with the .env of a running system, and what befalls that."""

import asyncio
import os
import signal
import subprocess
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from psycopg2.extensions import make_dsn

from deploy.up import environment
from deploy.up.environment import DATABASE, ROOT, VHOST
from deploy.up.process import Process
from deploy.up.servers import manage
from tests.support.compose import Compose
from tests.support.databases import rows
from tests.support.ports import HOST, Ports
from tests.support.runbooks import Block, answers
from tests.support.sandbox import SandboxApi
from tests.support.stack import PATIENCE, PATIENT_MAIL, QUICK, quick_alerts_config
from tests.support.system import System

SECONDS = 600.0
"""For one that hangs; `make up` and two restores take minutes beside six busy loops."""
_SERVERS = ("postgres", "rabbitmq", "redis")
_MARK = "\x1e"
_OWN = {".env", ".local", ".git", "config"}


class CommandError(AssertionError):
    """A command of a page failed, or printed something else than the page says."""


class Checkout(System):
    """Its processes have the same names whichever way they were started."""

    way: ClassVar[str]
    """Of starting it: make or compose; fences of the other one are passed over."""

    def __init__(self, folder: Path, values: Mapping[str, str]) -> None:
        sandbox = SandboxApi(int(values["SANDBOX_PORT"]), int(values["SANDBOX_MAIL_PORT"]))
        super().__init__(f"http://{HOST}:{values['GATEWAY_PORT']}", values, sandbox)
        self.folder = folder

    @property
    def config(self) -> Path:
        return self.folder / "config"

    async def run(self, blocks: Sequence[Block]) -> None:
        """Run blocks in one shell, one after the other, until one fails.

        :raises CommandError: with what it printed
        """
        mine = [block for block in blocks if block.way in {None, self.way}]
        script = "\n".join(
            f"printf '%s' '{_MARK}{number}{_MARK}'\n{block.commands}"
            for number, block in enumerate(mine)
        )
        status, output, complaints = await self.shell(script)
        _, *told = output.split(_MARK)
        printed = dict(zip(map(int, told[::2]), told[1::2], strict=True))
        for number, text in printed.items():
            block, is_last = mine[number], number == len(printed) - 1
            seen = f"{block} printed:\n{text}\n{complaints if is_last else ''}"
            if is_last and status:
                raise CommandError(seen)
            if block.expected is not None and not answers(text, block.expected):
                raise CommandError(f"{seen}\nand not:\n{block.expected}")

    async def shell(self, script: str) -> tuple[int, str, str]:
        """Run a script; its exit status, output and complaints."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", script,
            cwd=self.folder,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SECONDS):
                output, complaints = await process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        # Compose clears the line even into a pipe, as no terminal shows.
        return await process.wait(), output.decode().replace("\x1b[2K", ""), complaints.decode()

    async def publish(self, exchange: str, key: str, payload: str) -> None:
        """Publish what no service would, by RabbitMQ's management UI."""
        url = f"http://{HOST}:{self.values['RABBITMQ_UI_PORT']}"
        account = ("admin", self.values["RABBITMQ_ADMIN_PASSWORD"])
        body = {"properties": {}, "routing_key": key, "payload": payload}
        path = f"exchanges/{VHOST}/{exchange}/publish"
        said = await asyncio.to_thread(
            manage, url, account, "POST", path, body | {"payload_encoding": "string"}
        )
        assert said["routed"]

    def _environment(self) -> dict[str, str]:
        return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}

    @abstractmethod
    async def stop(self, name: str) -> None:
        """End a server or a service; nobody starts a server again."""

    @abstractmethod
    async def restart(self, name: str) -> None:
        """Start a service anew, and wait for nothing."""

    @abstractmethod
    async def freeze(self, name: str) -> None:
        """Hold a service still (SIGSTOP)."""

    @abstractmethod
    async def thaw(self, name: str) -> None: ...

    @abstractmethod
    def query(self, statement: str) -> list[Any]:
        """Ask, or change, the database past every service; rows have names."""

    async def ask(self, statement: str) -> list[Any]:
        return await asyncio.to_thread(self.query, statement)


class MadeUp(Checkout):
    way = "make"
    target = "up"

    async def stop(self, name: str) -> None:
        how = signal.SIGINT if name == "postgres" else signal.SIGTERM
        await asyncio.to_thread(self._process(name).stop, how, 30)

    async def restart(self, name: str) -> None:
        await self.stop(name)  # its supervisor starts it

    async def freeze(self, name: str) -> None:
        self._process(name).signal(signal.SIGSTOP)

    async def thaw(self, name: str) -> None:
        self._process(name).signal(signal.SIGCONT)

    def query(self, statement: str) -> list[Any]:
        password, port = (self.values[f"POSTGRES_{of}"] for of in ("SUPERUSER_PASSWORD", "PORT"))
        dsn = make_dsn(host=HOST, port=port, dbname=DATABASE, user="postgres", password=password)
        return rows(dsn, statement)

    def _process(self, name: str) -> Process:
        local = self.folder / ".local"
        return Process(
            local / name / "server.pid" if name in _SERVERS else local / "run" / f"{name}.pid"
        )

    def make(self, target: str) -> None:
        done = subprocess.run(
            ["make", target],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"make {target}: {done.stdout}"


class ThreeHosts(MadeUp):
    """A server of one of the hosts is named like rabbitmq-c."""

    target = "up-cluster"

    def _process(self, name: str) -> Process:
        server, _, host = name.partition("-")
        if server in environment.SERVICES:
            return super()._process(name)
        return Process(self.folder / ".local" / "hosts" / host / server / "server.pid")


class Composed(Checkout):
    way = "compose"

    def __init__(self, compose: Compose) -> None:
        super().__init__(compose.folder, compose.values)
        self._compose = compose

    async def stop(self, name: str) -> None:
        await asyncio.to_thread(self._compose, "stop", "--timeout", "10", name)

    async def restart(self, name: str) -> None:
        await asyncio.to_thread(self._compose, "restart", "--timeout", "10", name)

    async def freeze(self, name: str) -> None:
        await asyncio.to_thread(self._compose, "kill", "--signal", "SIGSTOP", name)

    async def thaw(self, name: str) -> None:
        await asyncio.to_thread(self._compose, "kill", "--signal", "SIGCONT", name)

    def query(self, statement: str) -> list[Any]:
        psql = ("exec", "-T", "postgres", "psql", "-U", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1")
        return self._compose(*psql, DATABASE, "-c", statement).splitlines()

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._compose.shell}


def fill(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Make a folder look like this checkout, with a quick configuration and an .env of its own."""
    for each in ROOT.iterdir():
        if each.name not in _OWN:
            (folder / each.name).symlink_to(each)
    environment.ensure_config(folder / "config")
    quick_alerts_config(folder / "config", PATIENT_MAIL)
    path = folder / ".env"
    environment.ensure(path, data_exists=False, trying=True)
    values = {**environment.parse(path.read_text(encoding="utf-8")), **env}
    path.write_text("\n".join(f'{name}="{value}"' for name, value in values.items()) + "\n")
    return values


@contextmanager
def made_up(folder: Path, ports: Ports, kind: type[MadeUp] = MadeUp) -> Iterator[MadeUp]:
    """`make up` in a checkout of its own, on ports of this run's own."""
    example = environment.defaults()
    own = {name: str(ports.take()) for name in example if name.endswith("_PORT") and example[name]}
    # The last, so that the ports behind it are free: `make up-cluster` uses the next three.
    own["RABBITMQ_DIST_PORT"] = str(ports.take())
    checkout = kind(folder, fill(folder, {**QUICK, **own, **PATIENCE}))
    try:
        checkout.make(checkout.target)
        yield checkout
    finally:
        checkout.make("down")
