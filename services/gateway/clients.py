"""Who is asking: the client's address, and the key it holds."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple

from multidict import istr

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

API_KEY = istr("X-API-KEY")
ADMIN_API_KEY = istr("X-ADMIN-API-KEY")
UNKNOWN = "unknown"


class Role(StrEnum):
    PUBLIC = "public"
    SERVICE = "service"
    ADMIN = "admin"


class AddressFrom(StrEnum):
    """How an address was found, as the proof of a consent has to tell."""

    PEER = "peer"
    FORWARDED = "x-forwarded-for"


class Client(NamedTuple):
    address: str
    """The whole address, as the audit trail keeps it."""

    address_from: AddressFrom
    role: Role


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read comma-separated CIDRs.

    :raises ValueError: names the part at fault
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


class Addresses:
    """Finds the client's address; only a trusted proxy's word about it is believed."""

    def __init__(self, trusted: Iterable[Network]) -> None:
        self._trusted = tuple(trusted)

    def resolve(self, peer: str | None, forwarded: Sequence[str]) -> tuple[str, AddressFrom]:
        """Return the peer, or for a trusted peer X-Forwarded-For's rightmost untrusted entry.

        Everything left of that entry was written by the client and may be forged.
        """
        address = _parse(peer or "")
        if address is None:
            return UNKNOWN, AddressFrom.PEER
        if not self._trusted or not forwarded:
            return str(address), AddressFrom.PEER
        source = AddressFrom.PEER
        entries = ",".join(forwarded).split(",")
        while entries and self._trusts(address):
            entry = _parse(entries.pop())
            if entry is None:
                break  # a trusted proxy writes addresses: from here on it is the client's own text
            address, source = entry, AddressFrom.FORWARDED
        return str(address), source

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def bucket_of(address: str) -> str:
    """Return what shares one limit: an IPv4 address, or an IPv6 /64 (one customer's)."""
    if ":" not in address:
        return address
    return str(IPv6Network((address, 64), strict=False))


@lru_cache(maxsize=1024)
def _parse(text: str) -> Address | None:
    text = text.strip()
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A dual-stack listener shows an IPv4 client as ::ffff:192.0.2.1; both forms are one client.
    return getattr(address, "ipv4_mapped", None) or address


class Keys:
    """The two keys; one that is unset is held by nobody."""

    def __init__(self, service: str | None, admin: str | None) -> None:
        self._digests = [
            (role, header, _digest(key))
            for role, header, key in (
                (Role.ADMIN, ADMIN_API_KEY, admin),
                (Role.SERVICE, API_KEY, service),
            )
            if key
        ]

    def role(self, headers: Mapping[str, str], needed: Role) -> Role:
        """Return the role in which a route that needs `needed` is called.

        A key opens the routes of its own role only. On a public route the highest key counts.
        """
        for role, header, digest in self._digests:
            if (
                needed in {role, Role.PUBLIC}
                and (given := headers.get(header)) is not None
                and hmac.compare_digest(_digest(given), digest)
            ):
                return role
        return Role.PUBLIC


def _digest(key: str) -> bytes:
    # Compared as digests, so that the time does not even tell the length.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
