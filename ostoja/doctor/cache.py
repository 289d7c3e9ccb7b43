"""Redis. Without it each gateway process counts its limits separately."""

from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from libs.common.database.redis_server import RedisServer
from ostoja.doctor.deployment import PATIENCE, RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, wrong


def check(deployment: Deployment) -> Iterator[Finding]:
    try:
        server = RedisServer(deployment.redis_url)
    except ValueError as error:
        yield wrong("Redis", str(error), "correct REDIS_ADDRESS and REDIS_OPTIONS in .env")
        return
    options = {"ssl": server.sentinel_options["ssl"], **server.options}
    options.pop("connection_class", None)
    address = (options.pop("host"), options.pop("port", 6379))
    found: list[Finding] = []
    masters = list(_masters(server, found)) if server.sentinels else [address]
    yield from found
    if len(set(masters)) > 1:
        yield wrong("Redis", f"the Sentinels name different masters: {_shown(*masters)}", LOOK)
    for master in sorted(set(masters)):
        try:
            with _client(master, options) as client:
                client.ping()
                replicas = client.info("replication")["connected_slaves"]
        except RedisError as error:
            yield wrong(
                "Redis", f"{_shown(master)}: {error}", f"{RESTART} starts it; nothing is lost"
            )
        else:
            yield ok("Redis", f"answers at {_shown(master)}")
            if server.sentinels and not replicas:
                yield wrong("Redis", f"{_shown(master)} has no replica to fail over to", LOOK)


LOOK = "redis-cli -p 26379 SENTINEL MASTERS, on each host; nothing is lost"


def _masters(server: RedisServer, found: list[Finding]) -> Iterator[tuple[str, int]]:
    for sentinel in server.sentinels:
        where = f"the Sentinel at {_shown(sentinel)}"
        try:
            with _client(sentinel, server.sentinel_options | {"decode_responses": True}) as client:
                master = client.sentinel_get_master_addr_by_name(server.master)
        except RedisError as error:
            found.append(wrong("Redis", f"{where}: {error}", "start it; two of three are needed"))
            continue
        if master is None:
            found.append(wrong("Redis", f"{where} knows no master {server.master!r}", LOOK))
        else:
            yield master


def _client(address: tuple[str, int], options: dict[str, Any]) -> Redis:
    host, port = address
    return Redis(
        host=host, port=port, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, **options
    )


def _shown(*addresses: tuple[str, int]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in addresses)
