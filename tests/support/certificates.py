"""Certificates for loopback: of an authority of the test, right or with one fault."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy import certs
from deploy.up.environment import put
from libs.common.process.certificates import AUTHORITIES
from tests.support.ports import HOST

NAME = "localhost"  # a certificate is of a name


class Authority:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._signed = certs.new_authority("authority of this test", _in(days=2))
        self.path = folder / "authority.pem"
        """As SSL_CERT_FILE it makes a process trust this authority only."""
        self.path.write_bytes(self._signed.certificate_pem)

    @property
    def pem(self) -> bytes:
        return self._signed.certificate_pem

    def server(self, host: str, *, signed: bool = True) -> ssl.SSLContext:
        """Return a server's side with a certificate for this host name."""
        by = self._signed if signed else certs.new_authority(host, _in(days=2))
        own = certs.issue(by, host, [host], _in(days=1))
        path = self._folder / f"{host}-{signed}.pem"
        path.write_bytes(own.key_pem + own.certificate_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def issue(
        self,
        folder: Path,
        *hosts: str,
        name: str = "test",
        trusts: bytes | None = None,
        begins: datetime | None = None,
        ends: datetime | None = None,
    ) -> Path:
        """Write a TLS_DIR, or replace its files.

        :param trusts: other authorities than this one
        """
        ends = ends or _in(days=1)
        signed = certs.issue(self._signed, name, hosts or (NAME,), ends, begins=begins)
        certs.write_pair(folder, signed)
        put(folder / AUTHORITIES, trusts or self.pem)
        return folder

    def expired(self, folder: Path) -> Path:
        return self.issue(folder, begins=_in(days=-2), ends=_in(days=-1))

    def unnamed(self, folder: Path) -> Path:
        """Write a TLS_DIR without a certificate of its own."""
        folder.mkdir()
        (folder / AUTHORITIES).write_bytes(self.pem)
        return folder


def _in(*, days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


REFUSED: dict[str, tuple[Callable[[Authority, Path], Path], str]] = {
    "another name": (Authority.issue, HOST),
    "a server of an unknown authority": (
        lambda ours, at: ours.issue(at, trusts=Authority(at.parent).pem),
        NAME,
    ),
    "no certificate": (Authority.unnamed, NAME),
    "a client of an unknown authority": (
        lambda ours, at: Authority(at.parent).issue(at, trusts=ours.pem),
        NAME,
    ),
}
"""Where one of both sides does not trust the other: the client's TLS_DIR, and whom it asks."""
