"""A real Dovecot (Debian's dovecot-imapd) in a folder and on a port of its own, unprivileged."""

import getpass
import imaplib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import Ports

PATH = shutil.which("dovecot") or shutil.which("dovecot", path="/usr/sbin")
needs_dovecot = pytest.mark.skipif(PATH is None, reason="needs Debian's dovecot-imapd")
USER = "kontakt@example.com"
_CONFIG = Path(__file__).with_suffix(".conf").read_text(encoding="utf-8")


class Dovecot:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.password = "secret"
        self.separator = "."
        self.more = ""
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, port: int | None = None) -> str:
        user = USER.replace("@", "%40")
        return f"imap://{user}:{self.password}@127.0.0.1:{port or self.port}/INBOX"

    def start(self) -> None:
        is_root = os.geteuid() == 0
        me = "dovecot" if is_root else getpass.getuser()
        for name in ("mail", "home"):
            (self.folder / name).mkdir(exist_ok=True)
            if is_root:
                shutil.chown(self.folder / name, me, me)
        config = self.folder / "dovecot.conf"
        text = _CONFIG.format(
            folder=self.folder, port=self.port, user=me, group=me, password=self.password,
            login="dovenull" if is_root else me, separator=self.separator, more=self.more,
        )  # fmt: skip
        config.write_text(text, encoding="utf-8")
        assert PATH is not None
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen([PATH, "-F", "-c", config], stdout=out, stderr=out)
        for _ in range(200):
            try:
                with self.open():
                    return
            except (OSError, imaplib.IMAP4.error):
                time.sleep(0.05)
        raise AssertionError((self.folder / "out").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    @contextmanager
    def open(self) -> Iterator[imaplib.IMAP4]:
        with imaplib.IMAP4("127.0.0.1", self.port, timeout=5) as client:
            client.login(USER, self.password)
            yield client

    def deliver(self, *mails: bytes, folder: str = "INBOX") -> None:
        with self.open() as client:
            for mail in mails:
                said = client.append(folder, "", "", mail.replace(b"\n", b"\r\n"))
                assert said[0] == "OK", said

    def count(self, folder: str = "INBOX", which: str = "ALL") -> int:
        with self.open() as client:
            if client.select(folder, readonly=True)[0] != "OK":
                return 0
            return len(client.search(None, which)[1][0].split())

    @property
    def done(self) -> int:
        return self.count(f"Ostoja{self.separator}done")

    @property
    def failed(self) -> int:
        return self.count(f"Ostoja{self.separator}failed")

    def fill(self, *, ends: bool = False) -> None:
        """Let the mailbox be over its quota: nothing can be delivered or moved; or end that."""
        self.stop()
        quota = 'quota "all" {\n  quota_driver = count\n  quota_storage_size = 1K\n}'
        self.more = "" if ends else f"mail_plugins {{\n  quota = yes\n}}\n{quota}"
        self.start()

    def jam(self, *, ends: bool = False) -> None:
        """Let nothing be moved, as on a full disk; or end that."""
        (self.folder / "mail" / ".Ostoja.done").chmod(0o700 if ends else 0)

    def renumber(self) -> None:
        """Give the mailbox another UIDVALIDITY, as a server does that was restored."""
        self.stop()
        for path in (self.folder / "mail").glob("dovecot*"):
            path.unlink()
        time.sleep(1.1)  # it is a time, in seconds
        self.start()


@contextmanager
def running(ports: Ports) -> Iterator[Dovecot]:
    """Start one in a folder that its own user can enter."""
    with tempfile.TemporaryDirectory(prefix="ostoja-dovecot-") as path:
        folder = Path(path)
        folder.chmod(0o755)
        server = Dovecot(folder, ports.take())
        server.start()
        try:
            yield server
        finally:
            server.stop()
