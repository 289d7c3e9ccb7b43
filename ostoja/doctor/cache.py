"""Redis. Without it each gateway process counts its limits separately."""

from collections.abc import Iterator

from redis import Redis
from redis.exceptions import RedisError

from ostoja.doctor.deployment import PATIENCE, RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, wrong


def check(deployment: Deployment) -> Iterator[Finding]:
    where = deployment.redis_url.rpartition("@")[2].partition("/")[0]
    try:
        with Redis.from_url(
            deployment.redis_url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE
        ) as client:
            client.ping()
    except RedisError as error:
        yield wrong("Redis", f"{where}: {error}", f"{RESTART} starts it; nothing is lost")
    else:
        yield ok("Redis", f"answers at {where}")
