"""TCP clients: connect to the first address that answers, and detect dead peers."""

import asyncio
import select
import socket
from typing import Any

from aiohappyeyeballs import start_connection

NEXT_ADDRESS_SECONDS = 0.1
"""After this time also try the next address (RFC 8305: at least 0.1 s)."""
DEAD_PEER_SECONDS = 5
"""How long sent data may stay unacknowledged, or an idle peer ignore two probes."""


def each_host(url: str) -> list[str]:
    """Return a URL per host of `scheme://user:password@a:5672,b:5672/name`, as libpq writes it."""
    # Not urlsplit: since Python 3.13 it refuses a list with an IPv6 address in it.
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    account, at, hosts = netloc.rpartition("@")
    return [f"{scheme}://{account}{at}{host}{slash}{path}" for host in hosts.split(",")]


async def resolve(host: str, port: int) -> list[Any]:
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


async def connected(host: str, port: int) -> socket.socket:
    """:raises OSError: no address accepts a connection"""
    connection = await start_connection(
        await resolve(host, port), happy_eyeballs_delay=NEXT_ADDRESS_SECONDS
    )
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, DEAD_PEER_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    wait_for_peer(connection, DEAD_PEER_SECONDS)
    return connection


async def reachable(host: str, port: int) -> str:
    """Return an address that answers, for a library that does not accept a socket.

    :raises OSError: there is none, or none accepts a connection
    """
    addresses = {found[4][0] for found in await resolve(host, port)}
    if len(addresses) == 1:
        return str(addresses.pop())
    with await connected(host, port) as probe:
        return str(probe.getpeername()[0])


def wait_for_peer(connection: Any, seconds: float) -> None:
    """Set how long the peer may fail to acknowledge or accept data."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def poll_for_end(connection: Any) -> select.poll:
    """Return a poll object for an idle connection, to see its end before the loop notices."""
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN | select.POLLRDHUP)
    return look
