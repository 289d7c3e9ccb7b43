"""PostgreSQL with a standby, and hosts that do not answer."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from deploy.local.process import ServerError, as_user
from deploy.local.servers import Postgres
from tests.support.databases import PASSWORDS, Databases
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.servers import running


class Standby(Postgres):
    """Starts as a copy of a running primary, and follows it until it is promoted."""

    def __init__(self, folder: Path, primary: Postgres, **options: Any) -> None:
        super().__init__(folder, password=primary.password, settings=QUICK, **options)
        self._primary = primary

    def _initialise(self, binaries: Path, folder: int) -> None:
        done = subprocess.run(
            [
                str(binaries / "pg_basebackup"),
                f"--pgdata=/proc/self/fd/{folder}/data",
                f"--dbname={self._primary.dsn}",
                "--write-recovery-conf",
                "--checkpoint=fast",
            ],
            env=self._environment(),
            cwd="/",
            pass_fds=(folder,),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **as_user(self.user),
        )
        if done.returncode:
            raise ServerError(f"pg_basebackup failed:\n{done.stdout.decode(errors='replace')}")


QUICK = {"fsync": "off", "full_page_writes": "off"}


class Pair(Databases):
    """A primary and its standby, which confirms each commit; URLs name both."""

    def __init__(self, server: Postgres, standby: Standby) -> None:
        super().__init__(server)
        self.standby = standby
        self.first: list[str] = []
        """Hosts before these in each URL."""

    def account_url(self, role: str, name: str, driver: str) -> str:
        own = (f"{HOST}:{each.port}" for each in (self.standby, self.server))
        return f"{driver}://{role}:{PASSWORDS[role]}@{','.join([*self.first, *own])}/{name}"

    def ask(self, sql: str) -> Any:
        return ask(self.server.dsn, sql)

    def confirm_by(self, names: str) -> None:
        """Set which standbys confirm a commit before it is answered."""
        self.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.ask("SELECT pg_reload_conf()")

    async def in_step(self) -> None:
        async def confirms() -> bool:
            states = "SELECT array_agg(sync_state) FROM pg_stat_replication"
            return bool(self.ask(states) == ["quorum"])

        await eventually(confirms)

    def promote(self) -> None:
        """Make the standby the primary, which nothing may do while the other one may write."""
        ask(self.standby.dsn, "SELECT pg_promote()")


def ask(dsn: str, sql: str) -> Any:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()[0][0] if cursor.description else None


@contextmanager
def running_pair(folder: Path, take_port: Callable[[], int]) -> Iterator[Pair]:
    own = Postgres(folder / "primary", port=take_port(), password="superuser", settings=QUICK)
    with (
        running(own) as primary,
        running(Standby(folder / "standby", primary, port=take_port())) as standby,
    ):
        pair = Pair(primary, standby)
        pair.confirm_by("ANY 1 (*)")
        yield pair


@contextmanager
def black_hole() -> Iterator[str]:
    """Give a host and port that drop each packet of a new connection."""
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # now the backlog is full
            yield f"{address[0]}:{address[1]}"


@contextmanager
def freezing() -> Iterator[Callable[[Postgres], None]]:
    """Give what holds a server and all its processes still; they are killed in the end."""
    held: list[int] = []

    def freeze(server: Postgres) -> None:
        assert server.pid is not None
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        for pid in (server.pid, *map(int, children)):
            os.kill(pid, signal.SIGSTOP)
            held.append(pid)

    try:
        yield freeze
    finally:
        for pid in held:
            os.kill(pid, signal.SIGKILL)
