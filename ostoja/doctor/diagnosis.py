"""All checks, in the order in which an operator would make them."""

import time
from collections.abc import Callable, Iterator

from ostoja.doctor import (
    cache,
    cases,
    configuration,
    database,
    live,
    mail,
    rabbitmq,
    secrets,
    tls,
    web,
)
from ostoja.doctor.deployment import Deployment
from ostoja.doctor.finding import Finding, Status


def findings(
    deployment: Deployment,
    key: str,
    received: bytes | None = None,
    *,
    going_live: bool = False,
    now: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Check every part, even if others are unavailable.

    :param key: the admin key that this tool sends
    :param received: a mail whose signature is checked
    :param going_live: check a trial as if it were about to go live
    """
    yield from secrets.check(deployment)
    yield from configuration.check(deployment)
    redis = list(cache.check(deployment))
    unavailable = any(finding.status == Status.WRONG for finding in redis)
    # The gateway's report on Redis gets a row only if we can reach Redis and the gateway cannot.
    yield from (f for f in web.check(deployment, key) if not (unavailable and f.part == "redis"))
    yield from cases.check(deployment, key)
    yield from database.check(deployment, now)
    yield from rabbitmq.check(deployment, now)
    yield from redis
    yield from tls.check(deployment, now)
    yield from mail.check(deployment.values, received)
    yield from live.check(deployment, live=going_live)
