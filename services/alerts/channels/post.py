"""HTTP POST to one target: TLS verified, no redirect, no cookie, a bounded part of the answer."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from services.alerts.alert import Kind, Outcome, Reason
from services.alerts.channels import answers
from services.alerts.channels.network import Network, reason
from services.alerts.channels.redact import Redactor
from services.alerts.config import Target

MAX_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes  # the first MAX_ANSWER bytes
    outcome: Outcome  # what the status line alone says


class Poster:
    """A session per target, so that a hanging one cannot use up another's connections."""

    def __init__(self, target: Target, network: Network) -> None:
        self._network = network
        self._redact = Redactor(target.secrets())
        self._timeout = target.timeout
        self._limit = target.concurrency
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send within the target's time-out; a failure to is an answer too, with no status."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(url, body, headers)
        except TimeoutError:
            outcome = Outcome(Kind.FAILED, Reason.TIMEOUT, excerpt=f"after {self._timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            outcome = Outcome(Kind.FAILED, reason(error), excerpt=self._redact(_said(error)))
        return Answer(b"", outcome)

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self._session is None:  # here and not in __init__: it wants a running loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._limit,
                    resolver=self._network,
                    socket_factory=self._network.open_socket,
                ),
                trust_env=False,  # a proxy would connect where nobody judged the address
                timeout=aiohttp.ClientTimeout(total=None),  # post() bounds the whole
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a small answer must not unpack into a large one
                headers={"Accept-Encoding": "identity", "User-Agent": "ostoja"},
            )
        async with self._session.post(
            url,
            data=body,
            headers={"Content-Type": "application/json", **headers},
            allow_redirects=False,
        ) as response:
            read = b""
            while len(read) < MAX_ANSWER and (part := await response.content.read(MAX_ANSWER)):
                read += part
            read = read[:MAX_ANSWER]
            return Answer(
                read,
                answers.classify(
                    response.status,
                    self._redact(read.decode("utf-8", "replace")),
                    answers.retry_after(response.headers.get("Retry-After")),
                ),
            )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _said(error: Exception) -> str:
    name = type(error).__name__
    # What does not parse is quoted by the library, cut where a secret may stand.
    return name if isinstance(error, aiohttp.ClientResponseError) else f"{name}: {error}"
