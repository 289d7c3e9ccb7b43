"""PostgreSQL and Redis with a second server that takes over, and hosts that do not answer."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from redis import Redis as Client
from redis.exceptions import RedisError

from deploy.up.process import HERE
from deploy.up.servers import Postgres, Redis, redis_binary
from tests.support.consumers import until
from tests.support.databases import PASSWORDS, Databases
from tests.support.ports import HOST
from tests.support.servers import running


class Standby(Postgres):
    """Starts as a copy of a running primary, and follows it until it is promoted."""

    def __init__(self, folder: Path, primary: Postgres, **options: Any) -> None:
        super().__init__(folder, password=primary.password, settings=QUICK, **options)
        self._primary = primary

    def _initialise(self, binaries: Path, folder: int) -> None:
        self._run(
            "pg_basebackup",
            [
                str(binaries / "pg_basebackup"),
                f"--pgdata=/proc/self/fd/{folder}/data",
                f"--dbname={self._primary.dsn}",
                "--write-recovery-conf",
                "--checkpoint=fast",
            ],
            (folder,),
        )


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
        await until(
            lambda: self.ask("SELECT array_agg(sync_state) FROM pg_stat_replication") == ["quorum"]
        )

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


class Replica(Redis):
    """Follows another Redis until a Sentinel promotes it."""

    def __init__(self, folder: Path, of: Redis, **options: Any) -> None:
        super().__init__(folder, password=of.password, **options)
        self._of = of

    def _shape(self) -> str:
        return f"{super()._shape()}replicaof {HOST} {self._of.port}\nmasterauth {self.password}\n"

    def lose_what_follows(self) -> None:
        """Follow no longer: what the master takes from now on is lost with it."""
        self.command("CONFIG SET masterauth another")
        self.command("CLIENT KILL TYPE master")


class Sentinel(Redis):
    """Watches a master, and with one other promotes its replica two seconds after its death."""

    def __init__(self, folder: Path, master: Redis, **options: Any) -> None:
        super().__init__(folder, password=master.password, **options)
        self._master = master

    def _shape(self) -> str:
        lines = (
            f"bind {HOST}",
            f"port {self.port}",
            "dir .",
            f"sentinel monitor {MASTER} {HOST} {self._master.port} 2",
            f"sentinel auth-pass {MASTER} {self.password}",
            f"sentinel down-after-milliseconds {MASTER} 1000",
            f"sentinel failover-timeout {MASTER} 5000",
        )
        return "\n".join([*lines, ""])

    def _launch(self, fingerprint: str) -> None:
        self._write("sentinel.conf", self._shape())
        self._spawn([redis_binary(), f"{HERE}/sentinel.conf", "--sentinel"], fingerprint)

    def ready(self) -> bool:
        """Return whether it knows the replica and the two other Sentinels."""
        try:
            with client(self.port, decode_responses=True) as asked:
                state = asked.sentinel_master(MASTER)
        except RedisError:
            return False
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)


MASTER = "ostoja"


@dataclass
class Sentinels:
    master: Redis
    replica: Replica
    sentinels: list[Sentinel]
    first: list[str] = field(default_factory=list)
    """Sentinels before these in the URL."""

    @property
    def url(self) -> str:
        own = (f"{HOST}:{each.port}" for each in self.sentinels)
        hosts = ",".join([*self.first, *own])
        return f"redis+sentinel://:{self.master.password}@{hosts}/0?master={MASTER}"

    def in_step(self) -> bool:
        return bool(self._about_replica("master_link_status") == "up")

    def promoted(self) -> bool:
        return bool(self._about_replica("role") == "master")

    def _about_replica(self, name: str) -> Any:
        with client(self.replica.port, password=self.replica.password) as asked:
            return asked.info("replication").get(name)


@contextmanager
def running_sentinels(folder: Path, take_port: Callable[[], int]) -> Iterator[Sentinels]:
    with ExitStack() as stack:
        master = stack.enter_context(
            running(Redis(folder / "master", port=take_port(), password="redis-password"))
        )
        replica = stack.enter_context(
            running(Replica(folder / "replica", master, port=take_port()))
        )
        sentinels = [
            Sentinel(folder / f"sentinel-{number}", master, port=take_port()) for number in range(3)
        ]
        for sentinel in sentinels:
            stack.callback(sentinel.stop)
            sentinel.launch()
        for sentinel in sentinels:
            sentinel.wait()
        yield Sentinels(master, replica, sentinels)


def client(port: int, **options: Any) -> Client:
    return Client(host=HOST, port=port, **options)


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
