"""A process's certificate, and the authorities that it trusts, from the folder TLS_DIR.

The files have the names of a Kubernetes TLS secret. Each new connection uses the files as they then
are, so that they can be replaced while the process runs. Standard library only, for deploy.up.
"""

import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

log = logging.getLogger(__name__)

AUTHORITIES = "ca.crt"
CERTIFICATE = "tls.crt"
KEY = "tls.key"
# The options of a URL that name these files, as the library of each link calls them.
OPTIONS = {
    "amqps": ("cafile", "certfile", "keyfile"),
    "postgresql": ("sslrootcert", "sslcert", "sslkey"),
    "rediss": ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
}


def check(folder: Path) -> Path:
    """:raises ValueError: a file is missing, malformed, or the key is another certificate's"""
    if not (folder / AUTHORITIES).is_file():
        raise ValueError(f"there is no {AUTHORITIES} in {folder}")
    if (folder / CERTIFICATE).exists() != (folder / KEY).exists():
        raise ValueError(f"{folder} needs both {CERTIFICATE} and {KEY}, or neither")
    try:
        client(folder)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"the files in {folder} cannot be used: {error}") from None
    return folder


def of_environment() -> Path | None:
    """Return TLS_DIR for a program without settings of its own."""
    return Path(given) if (given := os.environ.get("TLS_DIR")) else None


def is_complete(folder: Path | None) -> bool:
    """Return whether the folder has a certificate of this process, not authorities only."""
    return folder is not None and (folder / CERTIFICATE).exists()


def options(url: str) -> dict[str, str]:
    return dict(parse_qsl(url.partition("?")[2]))


def uses_tls(url: str) -> bool:
    """Return whether the link is encrypted; PostgreSQL's is only if the URL has `sslmode`."""
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme == "postgresql":
        return options(url).get("sslmode", "").startswith(("require", "verify"))
    return scheme in {*OPTIONS, "https"}


def in_url(url: str, folder: Path | None) -> str:
    """Name the folder's files in a URL that asks for TLS; files that it names already stay."""
    scheme = url.partition(":")[0].partition("+")[0]
    if folder is None or scheme not in OPTIONS or not uses_tls(url):
        return url
    given = options(url)
    authorities, certificate, key = OPTIONS[scheme]
    added = {} if authorities in given else {authorities: AUTHORITIES}
    if is_complete(folder) and certificate not in given:
        added |= {certificate: CERTIFICATE, key: KEY}
    query = "&".join(f"{name}={quote(str(folder / file))}" for name, file in added.items())
    return f"{url}{'&' if '?' in url else '?'}{query}" if added else url


def of_url(url: str) -> ssl.SSLContext:
    """Return a client's side with the files that the URL names; without a CA, the machine's."""
    given = options(url)
    names = OPTIONS[url.partition(":")[0].partition("+")[0]]
    authorities, certificate, key = (given.get(name) for name in names)
    return client_of(None if authorities == "system" else authorities, certificate, key)


def client(folder: Path | None) -> ssl.SSLContext:
    """Return a client's side with the folder's files; without a folder, the machine's CAs."""
    if folder is None:
        return client_of(None, None, None)
    own = (folder / CERTIFICATE, folder / KEY) if is_complete(folder) else (None, None)
    return client_of(folder / AUTHORITIES, *own)


def client_of(
    authorities: str | Path | None, certificate: str | Path | None, key: str | Path | None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authorities)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def server(folder: Path) -> ssl.SSLContext:
    """Return a server's side, for clients with a certificate of the folder's authorities only."""
    current = Current(folder, _server)

    def renew(connection: Any, *_: object) -> None:
        connection.context = current.context()

    listening = _server(folder)
    listening.sni_callback = renew  # called for each handshake, also without a name
    return listening


def _server(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / AUTHORITIES))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    # A resumed session would not verify the client's certificate against the files of today.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


class Current:
    """A context that is made again once its files have changed.

    Two files cannot be replaced at once. While they do not match, the last good ones are used.
    """

    def __init__(self, folder: Path | None, make: Callable[[Any], ssl.SSLContext]) -> None:
        self._folder = folder
        self._make = make
        self._state: object = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """:raises OSError: the files were never usable"""
        state = self._look()
        if state != self._state or self._context is None:
            try:
                self._context = self._make(self._folder)
            except OSError as error:
                if self._context is None:
                    raise
                log.error("tls.files_unusable: %s: %s", self._folder, error)  # noqa: TRY400
            self._state = state
        return self._context

    def _look(self) -> object:
        if self._folder is None:
            return None
        return [_stamp(self._folder / name) for name in (AUTHORITIES, CERTIFICATE, KEY)]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
