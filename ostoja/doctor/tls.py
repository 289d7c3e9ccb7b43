"""Each encrypted link: who refuses whom, and when a certificate ends."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from deploy.up.environment import WITH_TABLES
from libs.common.process import certificates, sockets
from libs.common.process.certificate_ends import Peer, own, peers
from ostoja.doctor.deployment import Deployment
from ostoja.doctor.finding import Finding, ok, wrong

DUE = timedelta(days=21)
"""As the rule CertificateDue has it."""
PAGE = "docs/tls.md"
DUE_PAGE = "docs/runbooks/certificate-due.md"


def check(deployment: Deployment, now: Callable[[], float]) -> Iterator[Finding]:
    """:param now: this machine's clock, as `time.time`"""
    due = datetime.fromtimestamp(now(), UTC) + DUE
    links = {
        "PostgreSQL": deployment.database_url(WITH_TABLES[0]),
        "RabbitMQ": deployment.amqp_url("gateway"),
        "Redis": deployment.redis_url,
        **deployment.service_urls,
    }
    for folder in _folders(deployment):
        yield from _own(folder, due)
    for link, url in links.items():
        for peer in peers(link, url):
            yield _peer(peer, deployment.tls_dir, due)
    yield from _unprotected(deployment.values, links)


def _folders(deployment: Deployment) -> list[Path]:
    """Return the folders of all processes; in a container only its own is there."""
    if deployment.tls_dir is None:
        return []
    every = deployment.tls_dir.parent.glob(f"*/{certificates.AUTHORITIES}")
    return sorted(path.parent for path in every) or [deployment.tls_dir]


def _own(folder: Path, due: datetime) -> Iterator[Finding]:
    try:
        certificates.check(folder)
        for name, end in own(folder):
            yield _judged(f"{folder.name}/{name}", end, due)
    except (OSError, ValueError) as error:
        yield wrong("TLS", str(error), f"make certs HOSTS=… writes it; {PAGE}")


def _peer(peer: Peer, tls_dir: Path | None, due: datetime) -> Finding:
    name = f"{peer.link} at {peer.host}:{peer.port}"
    try:
        return _judged(name, peer.end(tls_dir), due)
    except OSError as error:
        return wrong("TLS", f"{name}: {error}", f"{PAGE}, section 'When a link is refused'")


def _judged(name: str, end: datetime, due: datetime) -> Finding:
    if end < due:
        return wrong("TLS", f"the certificate of {name} ends on {end:%Y-%m-%d}", DUE_PAGE)
    return ok("TLS", f"the certificate of {name} ends on {end:%Y-%m-%d}")


def _unprotected(values: Mapping[str, str], links: Mapping[str, str]) -> Iterator[Finding]:
    addresses = {
        "PostgreSQL": "POSTGRES_ADDRESS",
        "RabbitMQ": "RABBITMQ_ADDRESS",
        "Redis": "REDIS_ADDRESS",
    }
    for link, variable in addresses.items():
        url = links[link]
        hosts = [Peer(link, each).host for each in sockets.each_host(url)]
        if values[variable] and not all(map(_is_here, hosts)) and not certificates.uses_tls(url):
            yield wrong(
                "TLS",
                f"{link} at {', '.join(hosts)}: passwords and people's data cross the network in "
                "clear text",
                PAGE,
            )
    mode = certificates.options(links["PostgreSQL"]).get("sslmode", "verify-full")
    if mode != "verify-full":
        yield wrong(
            "TLS",
            f"PostgreSQL: sslmode={mode} does not check whose certificate it is",
            "set sslmode=verify-full in POSTGRES_OPTIONS",
        )


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or "." not in host  # a container of ours
