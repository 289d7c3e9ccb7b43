"""When certificates expire: this process's own, and those of the servers that it connects to."""

import asyncio
import socket
import ssl
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from pydantic import SecretStr

from libs.common.process import certificates, sockets
from libs.common.process.finding import Finding, say
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED

WATCH_SECONDS = 600.0
CONNECT_SECONDS = 5.0
REFUSAL_SECONDS = 0.5
"""In TLS 1.3 a server refuses a client's certificate only after the client is done."""
DUE = timedelta(days=21)
"""The same as in the rule CertificateDue."""
PORTS = {"amqps": 5671, "https": 443, "postgresql": 5432, "rediss": 6379}
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # PostgreSQL's protocol, section SSLRequest

END = SHARED.gauge("tls_certificate_end_time_seconds", "livemin")


@dataclass(frozen=True)
class Peer:
    """A server at the other end of a link."""

    link: str
    url: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or PORTS[self._scheme]

    @property
    def _scheme(self) -> str:
        return self.url.partition(":")[0].partition("+")[0]

    def end(self, tls_dir: Path | None) -> datetime:
        """Connect, and return when its certificate expires.

        :raises OSError: no connection; the text says who refused what
        """
        https = self._scheme == "https"
        context = certificates.client(tls_dir) if https else certificates.of_url(self.url)
        try:
            with closing(self._encrypted(context)) as connection:
                found = connection.getpeercert() or {}
                connection.settimeout(REFUSAL_SECONDS)
                with suppress(TimeoutError):  # it waits for the first request
                    if not connection.recv(1):
                        raise ConnectionError("it closes; it may refuse this process's certificate")
        except ssl.SSLCertVerificationError as error:
            raise ConnectionError(f"this process refuses it: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise ConnectionError(f"it refuses this process: {error.reason or error}") from error
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found["notAfter"])), UTC)

    def _encrypted(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        with socket.create_connection((self.host, self.port), CONNECT_SECONDS) as plain:
            if self._scheme == "postgresql":
                plain.sendall(_SSL_REQUEST)
                if plain.recv(1) != b"S":
                    raise ConnectionError("it does not speak TLS")
            return context.wrap_socket(plain, server_hostname=self.host)  # it takes `plain` over


def peers(link: str, url: str) -> list[Peer]:
    """Return each host of a URL; none if the link is not encrypted."""
    if not certificates.uses_tls(url):
        return []
    return [Peer(link, each) for each in sockets.each_host(url)]


def own(tls_dir: Path) -> Iterator[tuple[str, datetime]]:
    """Yield each file, with the time at which the first of its certificates expires.

    :raises OSError, ValueError: a file cannot be read
    """
    for name in (certificates.AUTHORITIES, certificates.CERTIFICATE):
        path = tls_dir / name
        if path.exists():
            every = x509.load_pem_x509_certificates(path.read_bytes())
            yield name, min(each.not_valid_after_utc for each in every)


async def watch(tls_dir: Path | None, links: Mapping[str, SecretStr]) -> None:
    """Keep the metric up to date.

    :param links: URLs, by what they lead to
    """
    every = [peer for link, url in links.items() for peer in peers(link, url.get_secret_value())]
    while True:
        try:
            for name, end in own(tls_dir) if tls_dir else ():
                END.labels(name).set(end.timestamp())
        except (OSError, ValueError) as error:
            log.warning("certificates.unreadable", folder=str(tls_dir), error=str(error))
        ends: dict[str, list[float]] = defaultdict(list)
        for peer in every:
            seen = await asyncio.to_thread(_end, peer, tls_dir)
            if seen is not None:
                ends[peer.link].append(seen.timestamp())
        for link, found in ends.items():
            END.labels(link).set(min(found))
        await asyncio.sleep(WATCH_SECONDS)


def _end(peer: Peer, tls_dir: Path | None) -> datetime | None:
    """Return None if it cannot be reached; the link itself logs that."""
    try:
        return peer.end(tls_dir)
    except OSError as error:
        at = f"{peer.host}:{peer.port}"
        log.warning("certificates.unseen", link=peer.link, at=at, error=str(error))
        return None


def findings(tls_dir: Path | None, links: Mapping[str, str]) -> Iterator[Finding]:
    """Report for each encrypted link which side refuses, and when a certificate expires.

    :param links: URLs, by what they lead to
    """
    if tls_dir is not None:
        try:
            certificates.check(tls_dir)
            for name, end in own(tls_dir):
                yield _judged(f"{tls_dir.name}/{name}", end)
        except (OSError, ValueError) as error:
            yield say("certificates-unreadable", fault=error)
    for link, url in links.items():
        for peer in peers(link, url):
            name = f"{link} at {peer.host}:{peer.port}"
            try:
                yield _judged(name, peer.end(tls_dir))
            except OSError as error:
                yield say("link-refused", name=name, fault=error)
        hosts = [Peer(link, each).host for each in sockets.each_host(url)]
        if not certificates.uses_tls(url) and not all(map(_is_here, hosts)):
            yield say("link-open", link=link, hosts=", ".join(hosts))
    mode = certificates.options(links.get("postgres", "")).get("sslmode", "verify-full")
    if mode != "verify-full":
        yield say("link-unchecked", mode=mode)


def _judged(name: str, end: datetime) -> Finding:
    due = end < datetime.now(UTC) + DUE
    return say("certificate-due" if due else "certificate", name=name, end=end)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or "." not in host  # a container of ours
