"""Where Redis is: at an address, or at the master that its Sentinels name.

`redis+sentinel://:PASSWORD@a:26379,b:26379,c:26379/0?master=NAME` names the Sentinels and Redis'
account and database. With `rediss+sentinel` all these connections use TLS. The Sentinels have no
password, or with `&sentinel_auth=yes` the account of Redis.
"""

from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

from libs.common.process import sockets
from libs.common.process.finding import Finding, say

LOOK_SECONDS = 5.0
MARK = "+sentinel"


class RedisServer:
    def __init__(self, url: str) -> None:
        """:raises ValueError: the URL cannot be read"""
        places = [parse_url(each) for each in sockets.each_host(url.replace(MARK, "", 1))]
        self.options: dict[str, Any] = dict(places[0])
        """The options of a connection to Redis, as redis-py names them."""
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


def findings(url: str) -> Iterator[Finding]:
    """Say whether the server answers and, behind Sentinels, whether all name one master."""
    server = RedisServer(url)
    options = {"ssl": server.sentinel_options["ssl"], **server.options}
    options.pop("connection_class", None)
    masters = {(options.pop("host", "localhost"), options.pop("port", 6379))}
    if server.sentinels:
        masters = set()
        for place in server.sentinels:
            try:
                with _client(place, server.sentinel_options | {"decode_responses": True}) as client:
                    master = client.sentinel_get_master_addr_by_name(server.master)
            except RedisError as error:
                yield say("sentinel-fault", where=_shown(place), fault=error)
                continue
            if master is None:
                yield say("sentinel-unknowing", where=_shown(place), master=server.master)
            else:
                masters.add(master)
    if len(masters) > 1:
        yield say("sentinels-differ", names=", ".join(map(_shown, sorted(masters))))
    for master in sorted(masters):
        try:
            with _client(master, options) as client:
                replicas = client.info("replication")["connected_slaves"]
        except RedisError as error:
            yield say("redis-fault", where=_shown(master), fault=error)
        else:
            yield say("redis", where=_shown(master))
            if server.sentinels and not replicas:
                yield say("redis-alone", where=_shown(master))


def _client(place: tuple[str, int], options: dict[str, Any]) -> Redis:
    host, port = place
    given = options | {"socket_timeout": LOOK_SECONDS, "socket_connect_timeout": LOOK_SECONDS}
    return Redis(host=host, port=port, **given)


def _shown(place: tuple[str, int]) -> str:
    return f"{place[0]}:{place[1]}"
