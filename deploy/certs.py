"""`make certs`: a private authority, and a certificate for each process of each host.

    certs-authority/{ca.crt,ca.key}          signs; no process needs it, so keep it elsewhere
    certs/<host>/<process>/{ca.crt,tls.crt,tls.key}     the TLS_DIR of that process

Nothing is replaced unless RENEW, NEW_AUTHORITY or DROP_OLD_AUTHORITY asks for it, except a
certificate and a key that do not match: a run was killed between the two. docs/tls.md says how to
rotate.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.up.environment import SERVICES, put
from libs.common.process.certificates import AUTHORITIES, CERTIFICATE, KEY

PROCESSES = (*SERVICES, "ostoja", "postgres", "rabbitmq", "redis", "etcd", "haproxy")
"""`ostoja`: setup and the command-line tool. The last two only serve three hosts."""
LOCAL_NAMES = ("localhost", "127.0.0.1")  # a proxy on the same machine, and health checks
DAYS = 365
AUTHORITY_DAYS = 3650
AUTHORITY_KEY = "ca.key"


@dataclass(frozen=True)
class Order:
    """What `make certs` is asked for."""

    folder: Path = Path("certs")
    authority: Path = Path("certs-authority")
    hosts: Sequence[str] = ()
    """Each with further names: a.example.com,10.0.0.1; none: those that are in the folder."""
    names: Sequence[str] = PROCESSES
    days: int = DAYS
    renew: bool = False
    new_authority: bool = False
    drop_old_authority: bool = False

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Self:
        """:raises ValueError: DAYS is not a number"""
        read: dict[str, Callable[[str], Any]] = {
            "authority": Path, "hosts": str.split, "names": str.split, "days": int,
            "renew": bool, "new_authority": bool, "drop_old_authority": bool,
        }  # fmt: skip
        given = {name: variables.get(name.upper()) for name in read}
        return cls(**{name: read[name](value) for name, value in given.items() if value})


class CertsError(Exception):
    pass


@dataclass(frozen=True)
class Signed:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_authority(name: str, ends: datetime) -> Signed:
    return issue(None, name, (), ends)


def issue(
    authority: Signed | None,
    name: str,
    hosts: Sequence[str],
    ends: datetime,
    *,
    begins: datetime | None = None,
) -> Signed:
    """Sign a certificate for a server and a client, or of an authority.

    :param authority: None for one of its own
    :param name: the common name, which PostgreSQL may compare with the role
    :param hosts: the names and addresses that clients may verify
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signer = authority.key if authority else key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = (begins or datetime.now(UTC)) - timedelta(hours=1)  # another clock may be behind
    ca = authority is None
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = dict.fromkeys((*unused, "encipher_only", "decipher_only"), False)
    usage |= {"digital_signature": not ca, "key_cert_sign": ca, "crl_sign": ca}
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(
            min(ends, authority.certificate.not_valid_after_utc) if authority else ends
        )
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        # Python 3.13 verifies strictly (RFC 5280): the key identifiers, and what a key may do.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    if hosts:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(
            x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False
        ).add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return Signed(builder.sign(signer, hashes.SHA256()), key)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(each.value) for each in found]


def write_pair(folder: Path, signed: Signed) -> None:
    """After a kill between the two, the next run repairs it; processes keep the old pair."""
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / KEY, signed.key_pem, is_secret=True)
    put(folder / CERTIFICATE, signed.certificate_pem)


class Keeper:
    """The authority's folder: the key that signs, and all certificates that are still trusted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = folder / AUTHORITY_KEY
        self._trusted = folder / AUTHORITIES

    @property
    def exists(self) -> bool:
        return self._key.exists()

    @property
    def trusted(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self._trusted.read_bytes())

    def signer(self) -> Signed:
        key = _load_key(self._key)
        mine = [each for each in self.trusted if each.public_key() == key.public_key()]
        if not mine:
            raise CertsError(f"{self._key} is not the key of a certificate in {self._trusted}")
        return Signed(mine[0], key)

    def renew(self) -> None:
        """Sign with a new key from now on; what was trusted stays trusted."""
        before = self.trusted if self.exists else []
        today = datetime.now(UTC)
        fresh = new_authority(
            f"Ostoja {today:%Y-%m-%d %H:%M:%S}", today + timedelta(days=AUTHORITY_DAYS)
        )
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # In this order: if killed between the two, it keeps signing with the old key.
        self.trust([fresh.certificate, *before])
        put(self._key, fresh.key_pem, is_secret=True)

    def trust(self, certificates: Sequence[x509.Certificate]) -> None:
        put(self._trusted, b"".join(each.public_bytes(Encoding.PEM) for each in certificates))

    def hand_out(self, folder: Path) -> bool:
        """Give a process the authorities that it trusts; return whether they changed."""
        path, wanted = folder / AUTHORITIES, self._trusted.read_bytes()
        if path.exists() and path.read_bytes() == wanted:
            return False
        put(path, wanted)
        return True


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertsError(f"{path} is not a key that this command made")
    return key


def _certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())


def _is_whole(folder: Path, certificate: x509.Certificate) -> bool:
    key = folder / KEY
    return key.exists() and _load_key(key).public_key() == certificate.public_key()


def run(order: Order) -> Iterator[str]:
    """Yield what was done, line by line.

    :raises CertsError: a step was refused, and changed nothing
    """
    certs: Path = order.folder
    keeper = Keeper(order.authority)
    wanted = _wanted(certs, order.hosts, order.names)
    if not keeper.exists and not order.new_authority and any(certs.glob(f"*/*/{AUTHORITIES}")):
        raise CertsError(
            f"the authority of {certs} is not in {order.authority}: say where it is "
            "(AUTHORITY=folder), or start another one beside it (NEW_AUTHORITY=1)"
        )
    if order.new_authority or not keeper.exists:
        keeper.renew()
        yield (
            f"{order.authority}: a new authority. Its {AUTHORITY_KEY} can sign for any name: keep "
            "the folder where no server is, and say where with AUTHORITY=folder"
        )
    signer = keeper.signer()
    ends = datetime.now(UTC) + timedelta(days=order.days)
    for folder, names in wanted.items():
        there = _certificate(folder) if (folder / CERTIFICATE).exists() else None
        if there is not None and _is_whole(folder, there) and not order.renew:
            lacking = ", ".join(name for name in names if name not in hosts_of(there))
            also = f"; it lacks {lacking} (RENEW=1 replaces it)" if lacking else ""
            yield f"{folder}: kept, ends {there.not_valid_after_utc:%Y-%m-%d}{also}"
            continue
        signed = issue(signer, folder.name, names, ends)
        write_pair(folder, signed)
        keeper.hand_out(folder)
        done = "new" if there is None else "replaced"
        yield f"{folder}: {done}, ends {signed.certificate.not_valid_after_utc:%Y-%m-%d}"
    if order.drop_old_authority:
        for folder in _folders(certs):
            try:
                _certificate(folder).verify_directly_issued_by(signer.certificate)
            except (InvalidSignature, ValueError):
                raise CertsError(f"{folder} is of an old authority: RENEW=1 first") from None
        keeper.trust([signer.certificate])
        yield "only the newest authority is trusted"
    for folder in _folders(certs):
        if keeper.hand_out(folder):
            yield f"{folder / AUTHORITIES}: replaced, {len(keeper.trusted)} trusted"


def _folders(certs: Path) -> list[Path]:
    return sorted(path.parent for path in certs.glob(f"*/*/{CERTIFICATE}"))


def _wanted(certs: Path, hosts: Sequence[str], names: Sequence[str]) -> dict[Path, list[str]]:
    """Return each certificate's folder, and the names in it."""
    found = [folder for folder in _folders(certs) if folder.name in names]
    if not hosts and found:
        return {folder: hosts_of(_certificate(folder)) for folder in found}
    wanted = {}
    for host in hosts or ["localhost"]:
        own = host.split(",")
        for name in names:
            wanted[certs / own[0] / name] = list(dict.fromkeys([*own, name, *LOCAL_NAMES]))
    return wanted


def main() -> None:
    try:
        for line in run(Order.of(os.environ)):
            print(line)
    except (CertsError, OSError, ValueError) as error:
        raise SystemExit(f"certs: {error}") from None


if __name__ == "__main__":
    main()
