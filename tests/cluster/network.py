"""Three hosts on one machine: network namespaces at a switch, which drops what it is told to."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from deploy.up.process import account
from tests.cluster.harness import NAMES

PREFIX = "ostoja-"
RULES = """
table bridge cut {{
    set ways {{ type ipv4_addr . ipv4_addr; {ways} }}
    set lossy {{ type ipv4_addr . ipv4_addr; {lossy} }}
    chain forward {{
        type filter hook forward priority 0;
        ip saddr . ip daddr @ways drop
        ip saddr . ip daddr @lossy numgen random mod 100 < 30 drop
    }}
}}
"""
RATE = "512kbit"
Way = tuple[str, str]


class Network:
    """Needs root. Host a is .1 of a network of its own, this process and the sandbox are .254."""

    def __init__(self) -> None:
        self._net = f"10.77.{os.getpid() % 250}"
        self._name = f"{PREFIX}{os.getpid()}"
        self._link = f"ost{os.getpid()}"
        self.addresses = {name: f"{self._net}.{n}" for n, name in enumerate(NAMES, 1)}
        self.outside = f"{self._net}.254"
        self.subnet = f"{self._net}.0/24"
        self.callers = [f"{self._net}.{number}" for number in range(100, 200)]
        """More addresses of this process, to call from."""
        self._ways: set[Way] = set()
        self._lossy: set[Way] = set()
        self._slow: set[str] = set()

    def __enter__(self) -> Self:
        _remove_orphans()
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        switch = self._space("switch")
        for name in ("switch", *NAMES):
            _run("ip", "netns", "add", self._space(name))
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        for name, address in self.addresses.items():
            space = self._space(name)
            pair = ("type", "veth", "peer", "name", f"to-{name}", "netns", switch)
            _run("ip", "-n", space, "link", "add", "eth0", *pair)
            self._attach(f"to-{name}")
            _run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _run("ip", "-n", space, "link", "set", link, "up")
        pair = ("type", "veth", "peer", "name", "to-us", "netns", switch)
        _run("ip", "link", "add", self._link, *pair)
        self._attach("to-us")
        for address in (self.outside, *self.callers):
            _run("ip", "address", "add", f"{address}/24", "dev", self._link)
        _run("ip", "link", "set", self._link, "up")

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError):
            _run("ip", "link", "delete", self._link)
        for name in ("switch", *NAMES):
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "delete", self._space(name))

    def enter(self, host: str, user: str | None = None) -> tuple[str, ...]:
        """Return the command that runs another one on this host, as this user."""
        command: tuple[str, ...] = ("nsenter", f"--net=/run/netns/{self._space(host)}")
        if user is not None:
            entry = account(user)
            command += (f"--setuid={entry.pw_uid}", f"--setgid={entry.pw_gid}")
        return (*command, "--")

    @contextmanager
    def cut(self, ways: Iterable[Way]) -> Iterator[None]:
        """Drop everything that goes these ways, each from one host to another."""
        with self._changed(self._ways, ways):
            yield

    @contextmanager
    def losing(self, ways: Iterable[Way]) -> Iterator[None]:
        """Drop three of ten packets that go these ways."""
        with self._changed(self._lossy, ways):
            yield

    @contextmanager
    def slow(self, host: str) -> Iterator[None]:
        """Let little through each way: up to 1.5 s late, and what does not fit is lost."""
        if host in self._slow:  # the other fault has slowed it
            yield
            return
        self._slow.add(host)
        ends = (("switch", f"to-{host}"), (host, "eth0"))
        for name, link in ends:
            limit = ("tbf", "rate", RATE, "burst", "16kb", "latency", "1500ms")
            _run("tc", "-n", self._space(name), "qdisc", "replace", "dev", link, "root", *limit)
        try:
            yield
        finally:
            for name, link in ends:
                _run("tc", "-n", self._space(name), "qdisc", "delete", "dev", link, "root")
            self._slow.discard(host)

    @contextmanager
    def _changed(self, kept: set[Way], ways: Iterable[Way]) -> Iterator[None]:
        fresh = {*ways} - kept
        kept |= fresh
        self._apply()
        try:
            yield
        finally:
            kept -= fresh
            self._apply()

    def _apply(self) -> None:
        def elements(ways: set[Way]) -> str:
            pairs = (f"{self.addresses[a]} . {self.addresses[b]}" for a, b in sorted(ways))
            return f"elements = {{ {', '.join(pairs)} }}" if ways else ""

        rules = RULES.format(ways=elements(self._ways), lossy=elements(self._lossy))
        # One transaction: the old table goes as the new one comes.
        text = f"table bridge cut {{}}\ndelete table bridge cut\n{rules}"
        subprocess.run([*self.enter("switch"), "nft", "-f", "-"], input=text.encode(), check=True)

    def _attach(self, link: str) -> None:
        _run("ip", "-n", self._space("switch"), "link", "set", link, "master", "br0", "up")

    def _space(self, name: str) -> str:
        return f"{self._name}-{name}"


def both_ways(host: str) -> list[Way]:
    """Return the ways between a host and the others."""
    return [way for other in NAMES if other != host for way in ((host, other), (other, host))]


def _remove_orphans() -> None:
    """Delete the namespaces of runs that were killed."""
    for path in Path("/run/netns").glob(f"{PREFIX}*-*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "delete", path.name)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
