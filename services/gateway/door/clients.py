"""The client: its IP address, and the role of its key."""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from aiohttp import hdrs, web
from multidict import CIMultiDict, istr

from libs.domain.scopes import Scope
from services.gateway.door import scopes

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

API_KEY = istr("X-API-KEY")
ADMIN_API_KEY = istr("X-ADMIN-API-KEY")
OPERATOR_TOKEN = istr("X-Operator-Token")
UNKNOWN = "unknown"


class Role(StrEnum):
    PUBLIC = "public"
    SERVICE = "service"
    ADMIN = "admin"


class IpSource(StrEnum):
    """How an address was determined; part of the proof of a consent."""

    PEER = "peer"
    FORWARDED = "x-forwarded-for"


class Client(NamedTuple):
    ip: str
    """The full address, as the audit trail stores it."""

    ip_source: IpSource
    role: Role
    key: str | None = None
    """The name of the key of the environment; grants nothing."""

    holder: str = ""
    """The holder of the limit and the Idempotency-Keys: the role, `key:<id>` or `staff:<id>`."""

    operator: str | None = None
    """Who acts, if that is proven."""

    roles: str = ""
    """Roles of the person who acts."""

    sees_persons: bool = False
    """Whether events may show them personal data."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read comma-separated CIDRs.

    :raises ValueError: names the part at fault
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


class TrustedProxies:
    """Determines the client's address; X-Forwarded-For counts only from trusted proxies."""

    def __init__(self, trusted: Iterable[Network]) -> None:
        self._trusted = tuple(trusted)

    def client_ip(self, peer: str | None, forwarded: Sequence[str]) -> tuple[str, IpSource]:
        """Return the peer, or for a trusted peer the rightmost untrusted X-Forwarded-For entry.

        Entries to the left of it were written by the client and may be forged.
        """
        if not self._trusted or not forwarded:
            return _canonical(peer or ""), IpSource.PEER
        address = parse_address(peer or "")
        if address is None:
            return UNKNOWN, IpSource.PEER
        source = IpSource.PEER
        entries = ",".join(forwarded).split(",")
        while entries and self._trusts(address):
            entry = parse_address(entries.pop())
            if entry is None:
                break  # trusted proxies write addresses: the rest is the client's own text
            address, source = entry, IpSource.FORWARDED
        return str(address), source

    def connection_bucket(self, peer: str) -> str | None:
        """Return the key that a peer's connections count under; None for a trusted proxy."""
        address = parse_address(peer)
        if address is None or self._trusts(address):
            return None
        return bucket_of(str(address))

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def bucket_of(address: str) -> str:
    """Return the unit of a limit: an IPv4 address, or an IPv6 /64 (one customer)."""
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Network((address, 64), strict=False))


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """Return the part of an address that may be logged: its /24, or for IPv6 its /48."""
    if (parsed := parse_address(address)) is None:
        return UNKNOWN
    return str(ipaddress.ip_network((str(parsed), 24 if parsed.version == 4 else 48), strict=False))


@lru_cache(maxsize=1024)
def parse_address(text: str) -> Address | None:
    """Return the address in a text; None if it is none."""
    text = text.strip()
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A dual-stack listener reports an IPv4 client as ::ffff:192.0.2.1: the same client.
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=1024)
def _canonical(text: str) -> str:
    address = parse_address(text)
    return str(address) if address is not None else UNKNOWN


ADMIN_ONLY = scopes.ADMIN - scopes.SERVICE
SCOPES: Mapping[Role, scopes.Scopes] = {Role.SERVICE: scopes.SERVICE, Role.ADMIN: scopes.ADMIN}


class Keys:
    """The keys of each role, including the previous one during a rotation."""

    def __init__(self, service: Iterable[str], admin: Iterable[str]) -> None:
        self._digests = [
            (role, header, _digest(key), name + previous)
            for role, header, name, keys in (
                (Role.ADMIN, ADMIN_API_KEY, "ADMIN_API_KEY", admin),
                (Role.SERVICE, API_KEY, "SERVICE_API_KEY", service),
            )
            for key, previous in zip(keys, ("", "_PREVIOUS"), strict=False)
        ]

    def role_of(self, headers: Mapping[str, str], needed: Scope | None) -> tuple[Role, str | None]:
        """Return the role and the key's name of a caller, for a route that requires `needed`.

        A key grants the scopes of its own role only. On a public route the highest role counts.
        """
        for role, header, digest, name in self._digests:
            if (
                (needed is None or needed in SCOPES[role])
                and (given := headers.get(header)) is not None
                and hmac.compare_digest(_digest(given), digest)
            ):
                return role, name
        return Role.PUBLIC, None

    def unknown_key_header(self, headers: Mapping[str, str]) -> str | None:
        """Return the header that has an unknown key."""
        for header in (ADMIN_API_KEY, API_KEY):
            if (given := headers.get(header)) is not None:
                digest = _digest(given)
                if not any(
                    hmac.compare_digest(digest, ours)
                    for _, of, ours, _ in self._digests
                    if of == header
                ):
                    return header
        return None


def carried(request: web.BaseRequest) -> Mapping[str, str]:
    """Return the headers with the API key of a sender that cannot set X-API-KEY.

    A bearer token, the password of Basic, or `?key=`, in this order.
    """
    headers = request.headers
    if API_KEY in headers:
        return headers
    scheme, _, given = headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:  # neither base64 nor UTF-8
            given = ""
    elif scheme.lower() != "bearer":
        given = request.query.get("key", "")
    return CIMultiDict([*headers.items(), (API_KEY, given)]) if given else headers


def _digest(key: str) -> bytes:
    # Digests are compared, so that the time does not reveal even the length.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
