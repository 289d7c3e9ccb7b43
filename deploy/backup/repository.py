"""pgBackRest's repository, and how PostgreSQL and its commands reach it; standard library only.

All options go through the environment, so that no file has to agree with .env. `PGBACKREST_…` of
.env replaces any of them, which puts the repository into S3, for example.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from deploy.up.environment import parse
from deploy.up.process import HOST, ServerError, account
from libs.common import beside

STANZA = "ostoja"
ARCHIVE_SECONDS = 60
"""The log of the last minute is what the loss of all disks costs."""

# As in deploy/up/servers.py: the user of the server opens neither folder by its path. The
# numbers are fixed, because pgBackRest compares its path of the data with PostgreSQL's own.
_SERVER, _REPOSITORY, _FREE = 100, 101, 200
DATA = f"/proc/self/fd/{_SERVER}/data"


@dataclass(frozen=True)
class Repository:
    folder: Path
    key: str = field(repr=False)
    options: Mapping[str, str]
    """The PGBACKREST_… settings of .env."""

    def environment(self, port: int) -> dict[str, str]:
        template = Template(beside.text(__file__, "pgbackrest.env"))
        text = template.substitute(
            host=HOST,
            stanza=STANZA,
            port=port,
            data=DATA,
            server=f"/proc/self/fd/{_SERVER}",
            repository=f"/proc/self/fd/{_REPOSITORY}",
        )
        return {**parse(text), "PGBACKREST_REPO1_CIPHER_PASS": self.key, **self.options}

    def settings(self) -> dict[str, str]:
        """Return PostgreSQL's settings that archive its log."""
        return {
            "archive_mode": "on",
            "archive_timeout": str(ARCHIVE_SECONDS),
            "archive_command": f"{program()} --no-config archive-push %p",
        }

    def has_backups(self) -> bool:
        """Return whether this machine's folder has any; a repository elsewhere is not queried."""
        return (self.folder / "backup" / STANZA).is_dir()

    @contextmanager
    def held(self, server: Path, user: str) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """Open the folders, and yield a command's prefix that gives them their numbers."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.geteuid() == 0:
            entry = account(user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        with ExitStack() as opened:
            fds = []
            for folder in (server, self.folder):
                first = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                # Above the fixed numbers, so that neither is overwritten before it is copied.
                fds.append(fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, _FREE))
                os.close(first)
                opened.callback(os.close, fds[-1])
            move = f'exec {_SERVER}<&{fds[0]} {_REPOSITORY}<&{fds[1]}; exec "$@"'
            yield ["/bin/bash", "-c", move, "bash"], tuple(fds)


def repository(values: Mapping[str, str], root: Path) -> Repository | None:
    """Return the repository of .env; None if no BACKUP_DIR is set."""
    if not values.get("BACKUP_DIR"):
        return None
    options = {name: value for name, value in values.items() if name.startswith("PGBACKREST_")}
    return Repository(root / values["BACKUP_DIR"] / "postgres", values["BACKUP_KEY"], options)


def program() -> str:
    """:raises ServerError: it is not installed"""
    if (found := shutil.which("pgbackrest")) is None:
        raise ServerError(
            "BACKUP_DIR is set: install pgbackrest first (apt-get install pgbackrest)"
        )
    return found
