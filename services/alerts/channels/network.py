"""Restricts the networks of targets. Connections go to exactly the address that was checked."""

import asyncio
import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import aiohappyeyeballs

from libs.common.process.logs import log
from services.alerts.rules.delivery import Reason

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]
AddrInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]

SECOND_ADDRESS_SECONDS = 0.25  # RFC 8305: until the next address of a name is tried as well

# On some supported Python, ipaddress calls these global, but they are not: site-local and other
# unassigned space, and the IETF's block, in which a cloud has its metadata service.
_UNICAST = ip_network("2000::/3")
_IETF = ip_network("192.0.0.0/24")
_NAT64 = ip_network("64:ff9b::/96")


def allowed(address: str, private: Networks, *, public: bool = True) -> bool:
    """Return whether a numeric address is in one of these networks, or on the public internet.

    :param public: whether the latter counts
    """
    try:
        reached = _reached(ip_address(address))
    except ValueError:  # a name would be looked up again, perhaps with another result
        return False
    if any(reached in network for network in private):
        return True
    return (
        public
        and reached.is_global
        and not reached.is_multicast
        and reached not in _IETF
        and (reached.version == 4 or reached in _UNICAST)
    )


def _reached(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address embeds, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def reason(error: Exception) -> Reason:
    """Return whether the address was refused or the connection failed.

    A retry makes sense for both: a name's address may be wrong for a moment.
    """
    # By errno, not by class: when several addresses fail, the library raises one new OSError and
    # keeps the errno if all had the same. (Not EPERM: TLS errors have 1 as well.)
    refused = isinstance(error, OSError) and error.errno == errno.EACCES
    return Reason.ADDRESS_REFUSED if refused else Reason.CONNECTION


class Network:
    """One target's look-ups and sockets.

    Look-ups block, so each target has threads for them: a name server that hangs cannot exhaust
    those of another target. (The loop's own pool is small and shared by all.)
    """

    def __init__(self, name: str, private: Networks, threads: int) -> None:
        self._name = name
        self._private = private
        self.public = True  # whether it may also be on the public internet
        self.setting = "ALERTS_PRIVATE_NETWORKS"  # has these networks
        self._threads = ThreadPoolExecutor(threads, f"dns-{name}")

    def check(self, address: str) -> None:
        """:raises OSError: EACCES: the address is not allowed"""
        if not allowed(address, self._private, public=self.public):
            log.warning("address.refused", target=self._name, address=address)
            text = f"{address} is not public, and not in {self.setting}"
            raise OSError(errno.EACCES, text)

    async def connect(self, host: str, port: int) -> socket.socket:
        return await aiohappyeyeballs.start_connection(
            await self._look_up(host, port),
            happy_eyeballs_delay=SECOND_ADDRESS_SECONDS,
            socket_factory=self._open_socket,
        )

    def _open_socket(self, info: AddrInfo) -> socket.socket:
        """Check an address and open the socket that connects to it, without another look-up.

        :raises OSError: EACCES: the address is not allowed
        """
        family, kind, proto, _, address = info
        self.check(address[0])
        return socket.socket(family, kind, proto)

    async def _look_up(self, host: str, port: int) -> list[AddrInfo]:
        def look_up() -> list[AddrInfo]:
            # Called through its module, so that a test can replace it.
            return socket.getaddrinfo(  # type: ignore[return-value]
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )

        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
