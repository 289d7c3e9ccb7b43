"""A folder for one test run, and the end of what a killed run left behind."""

import fcntl
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.up.process import Process

PREFIX = "ostoja-test-"


@contextmanager
def private_run() -> Iterator[Path]:
    """Make the folder; it is locked as long as the run lives, however that ends."""
    end_orphans()
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    with (made / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = made.rename(made.with_name(made.name[1:]))  # seen by others only once locked
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def end_orphans() -> None:
    """End the servers and services of runs that were killed with -9."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for record in folder.rglob("*.pid"):
                    Process(record).stop(signal.SIGKILL, 5)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # it lives, or is another user's
            continue
