"""Where Redis is: at an address, or at the master that its Sentinels name.

`redis+sentinel://:PASSWORD@a:26379,b:26379,c:26379/0?master=NAME` names the Sentinels and Redis'
account and database. With `rediss+sentinel` all these connections use TLS. The Sentinels have no
password, or with `&sentinel_auth=yes` the account of Redis.
"""

import asyncio
import socket
from typing import Any

from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from libs.common.process import sockets

ANSWER_SECONDS = 0.25
MARK = "+sentinel"


class RedisServer:
    def __init__(self, url: str) -> None:
        """:raises ValueError: the URL cannot be read"""
        places = [parse_url(each) for each in sockets.each_host(url.replace(MARK, "", 1))]
        self.options: dict[str, Any] = dict(places[0])
        """Of a connection to Redis, as redis-py names them."""
        self.master = str(self.options.pop("master", ""))
        self.sentinel_options = self._sentinel_options()
        self.sentinels: list[tuple[str, int]] = []
        if MARK in url.partition("://")[0]:
            if not self.master:
                raise ValueError("the URL of Sentinels must name the master: ?master=NAME")
            self.sentinels = [
                (each.get("host", "localhost"), each.get("port", 26379)) for each in places
            ]
        elif len(places) > 1:
            raise ValueError("only a redis+sentinel:// URL may name several hosts")

    def _sentinel_options(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.options.items() if name.startswith("ssl_")}
        if self.options.pop("sentinel_auth", "") == "yes":
            account = {"username", "password"} & self.options.keys()
            kept |= {name: self.options[name] for name in account}
        return kept | {"ssl": "connection_class" in self.options}

    async def connected(self) -> tuple[socket.socket, str]:
        """Connect to the server, or to the master of this moment.

        :returns: the socket and the host's name, which its certificate must have
        :raises OSError: it is unavailable, or no Sentinel knows a master
        """
        host, port = self.options.get("host", "localhost"), self.options.get("port", 6379)
        if self.sentinels:
            host, port = await self._ask_all()
        return await sockets.connected(host, port), host

    async def _ask_all(self) -> tuple[str, int]:
        """Ask at once: one that drops packets would use up a caller's time."""
        asking = [asyncio.create_task(self._ask(place)) for place in self.sentinels]
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    return await answer
                except (RedisError, OSError) as error:
                    fault = error
            raise ConnectionError(f"no Sentinel knows a master {self.master!r}: {fault}")
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, place: tuple[str, int]) -> tuple[str, int]:
        options = self.sentinel_options | {
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": ANSWER_SECONDS,
            "retry": Retry(NoBackoff(), 0),  # redis-py's default waits for seconds
        }
        made = Sentinel([place], sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        async with made as sentinel:
            host, port = await sentinel.discover_master(self.master)
            return str(host), int(port)
