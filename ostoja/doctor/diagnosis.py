"""Every check, in the order in which a person would look."""

import time
from collections.abc import Callable, Iterator

from ostoja.doctor import cache, database, mail, rabbitmq, secrets, web
from ostoja.doctor.deployment import Deployment
from ostoja.doctor.finding import Finding


def findings(
    deployment: Deployment,
    key: str,
    received: bytes | None = None,
    *,
    now: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Look at all of it; one part that is away keeps no other from being looked at.

    :param key: the admin key that this tool sends
    :param received: a mail, for what its signature covers
    """
    yield from secrets.check(deployment)
    yield from web.check(deployment, key)
    yield from database.check(deployment, now)
    yield from rabbitmq.check(deployment, now)
    yield from cache.check(deployment)
    yield from mail.check(deployment.values, received)
