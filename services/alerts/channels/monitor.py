"""Requests the URL of an external monitor, which alerts a person when the requests stop."""

import aiohttp
from pydantic import SecretStr

from libs.common.process.logs import log

TIMEOUT = aiohttp.ClientTimeout(total=10)


async def ping(url: SecretStr) -> None:
    """Request it once; only the status of the answer is read."""
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url.get_secret_value(), timeout=TIMEOUT, allow_redirects=False) as answer,
        ):
            fault = None if answer.status // 100 == 2 else str(answer.status)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        fault = type(error).__name__  # its text has the URL, which is a secret
    if fault is not None:
        log.warning("monitor.refused", fault=fault)
