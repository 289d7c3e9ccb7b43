"""Detached processes with a record, ports, and dropping root's privileges.

Standard library only: it runs before anything is installed.
"""

import json
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
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


def check_ports_free(ports: Mapping[str, int], host: str = HOST) -> None:
    """:raises PortTakenError: names every port that is taken"""
    deadline = time.monotonic() + LEAVING_SECONDS
    while taken := {name: port for name, port in ports.items() if not _is_free(host, port)}:
        if time.monotonic() > deadline:
            raise PortTakenError(taken)
        time.sleep(0.05)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore TIME_WAIT
        try:
            probe.bind((host, port))
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
        text = json.dumps({"pid": pid, "born": born(pid), "fingerprint": fingerprint})
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
        pid, since = record.get("pid"), record.get("born")
        alive = isinstance(pid, int) and since is not None and born(pid) == since
        _reap()
        return pid if alive else None

    def runs_as(self, fingerprint: str) -> bool:
        return self.pid is not None and self._read().get("fingerprint") == fingerprint

    def signal(self, number: int) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, number: int, seconds: float) -> None:
        """Send the signal and wait; after `seconds`, kill the process and its group.

        A supervisor may have started the next process, and recorded it, before this one looks.
        """
        pid = self.pid
        self.signal(number)
        deadline = time.monotonic() + seconds
        while pid is not None and self.pid == pid:
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(0.02)
        if self.pid is None:
            self.record.unlink(missing_ok=True)


def _reap() -> None:
    """Reap ended children, which are zombies until their parent does."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)  # another thread may have done so


def born(pid: int) -> str | None:
    """Return boot id and start time of a process; None if it does not exist or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if stat[0] == "Z" else f"{boot} {stat[19]}"


def family(pid: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def as_user(user: str | None) -> dict[str, Any]:
    """Return Popen's arguments that drop root's privileges; empty if not root.

    Popen changes to `cwd` before it changes the user; servers.py relies on that.
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
