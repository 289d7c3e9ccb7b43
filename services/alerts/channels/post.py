"""HTTP POST to one target: TLS verified, no redirects, no cookies, a bounded response.

A POST is sent once per attempt, even on a kept-alive connection that the target was closing: it may
have taken effect, and the retry delays decide when to try again.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from aiohttp import BasicAuth
from pydantic import SecretStr
from yarl import URL

from libs.common.http import client
from libs.common.http.client import Broken, Connection, Pool, Unreachable, build_request
from services.alerts.channels import responses
from services.alerts.channels.channel import BaseChannel, Target
from services.alerts.channels.network import Network, reason
from services.alerts.channels.redact import Redactor
from services.alerts.channels.templates import Templates
from services.alerts.rules.delivery import Kind, Outcome, Reason

MAX_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes  # the first MAX_BODY bytes
    outcome: Outcome  # by the status alone

    @property
    def data(self) -> dict[str, Any]:
        """The JSON object in the body; empty if it is none."""
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}


class Poster:
    """A target's own connections, so that a hanging one cannot exhaust another target's."""

    def __init__(self, target: Target, url: str, network: Network) -> None:
        self._network = network
        self._redact = Redactor(target.secrets())
        self._timeout = target.timeout
        self._url = URL(url)
        self._line = f"POST {self._url.raw_path_qs} HTTP/1.1"
        self._fixed = (
            f"Host: {self._url.host_port_subcomponent}\r\n"
            "Accept: */*\r\nAccept-Encoding: identity\r\nUser-Agent: ostoja\r\n"
        )
        self._headers = {"Content-Type": "application/json"}
        if (login := BasicAuth.from_url(self._url, encoding="utf-8")) is not None:
            self._headers["Authorization"] = login.encode()
        self._tls = _tls() if self._url.scheme == "https" else None
        self._pool = Pool(self._connect, target.concurrency)

    async def post(
        self, body: bytes, headers: Mapping[str, str], until: float | None = None
    ) -> Response:
        """Send within the target's time-out; a failure is a response without a status.

        :param until: the loop's time at which it ends, if earlier
        """
        request = build_request(self._line, self._fixed, {**self._headers, **headers}, body)
        got: client.Response | None = None
        try:
            async with asyncio.timeout(self._timeout), asyncio.timeout_at(until):
                connection = await self._pool.acquire()
                try:
                    await connection.send(request, self._timeout)
                    await connection.response.read(MAX_BODY)
                finally:
                    got = connection.response
                    self._pool.release(connection)  # which closes one that has not finished
        except TimeoutError:
            if got is None or got.status // 100 != 2:  # else accepted, though its body stays open
                said = f"after {self._timeout:g} s"
                return Response(b"", Outcome(Kind.FAILED, Reason.TIMEOUT, excerpt=said))
        except (Unreachable, Broken, OSError) as error:
            said = self._redact(f"{type(error).__name__}: {error}")
            return Response(b"", Outcome(Kind.FAILED, reason(error), excerpt=said))
        read = bytes(got.received[:MAX_BODY])
        excerpt = self._redact(read.decode("utf-8", "replace"))
        retry_after = responses.retry_after(got.headers.get("Retry-After"))
        return Response(read, responses.classify(got.status, excerpt, retry_after))

    async def _connect(self) -> Connection:
        host, port = self._url.raw_host or "", self._url.port or 0
        sock = await self._network.connect(host, port)
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection,
            sock=sock,
            ssl=self._tls,
            server_hostname=host.rstrip(".") if self._tls else None,
        )
        return connection

    async def close(self) -> None:
        self._pool.close()


class HttpTarget(Target):
    url: str | SecretStr


T = TypeVar("T", bound=HttpTarget)


class HttpChannel(BaseChannel[T]):
    """Base of the channels that POST to the target's URL."""

    def __init__(self, name: str, target: T, templates: Templates, network: Network) -> None:
        super().__init__(name, target, templates, network)
        self._poster = Poster(target, self._endpoint(), network)

    def _endpoint(self) -> str:
        url = self._target.url
        return url if isinstance(url, str) else url.get_secret_value()

    def _end(self) -> float:
        """Return the loop's time at which this attempt is over, however many requests it takes."""
        return asyncio.get_running_loop().time() + self._target.timeout

    async def close(self) -> None:
        await self._poster.close()


@cache
def _tls() -> ssl.SSLContext:
    """Return the settings of all targets: each copy would take a megabyte."""
    return ssl.create_default_context()
