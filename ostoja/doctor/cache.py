"""Redis, without which each gateway process counts its limits alone."""

from collections.abc import Iterator

from redis import Redis
from redis.exceptions import RedisError

from ostoja.doctor.deployment import PATIENCE, RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, wrong


def check(deployment: Deployment) -> Iterator[Finding]:
    host, port = deployment.redis_address
    password = deployment.values["REDIS_PASSWORD"]
    try:
        with Redis(
            host, port, password=password, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE
        ) as client:
            client.ping()
    except RedisError as error:
        yield wrong("Redis", f"{host}:{port}: {error}", f"{RESTART} starts it; nothing is lost")
    else:
        yield ok("Redis", f"answers at {host}:{port}")
