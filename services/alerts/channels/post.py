"""HTTP POST to one target: TLS verified, no redirect, no cookie, a bounded part of the answer.

A POST is sent once an attempt, also where it meets a kept connection that the target was closing:
it may have had its effect, and when to try again is for the attempts' own delays.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from yarl import URL

from libs.common.http_client import Broken, Connection, Pool, Unreachable, compose
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
    """Connections of the target's own, so that a hanging one cannot use up another's."""

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
        self._headers = {"Content-Type": "application/json", **_credentials(self._url)}
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None
        self._pool = Pool(self._connect, target.concurrency)

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send within the target's time-out; a failure to is an answer too, with no status."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(body, headers)
        except TimeoutError:
            outcome = Outcome(Kind.FAILED, Reason.TIMEOUT, excerpt=f"after {self._timeout:g} s")
        except (Unreachable, Broken, OSError) as error:
            excerpt = self._redact(f"{type(error).__name__}: {error}")
            outcome = Outcome(Kind.FAILED, reason(error), excerpt=excerpt)
        return Answer(b"", outcome)

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        request = compose(self._line, self._fixed, {**self._headers, **headers}, body)
        connection = await self._pool.take()
        try:
            await connection.send(request, self._timeout)
            answer = connection.answer
            read = await answer.read(MAX_ANSWER)
        finally:
            self._pool.give_back(connection)  # one that still reads or waits is closed
        return Answer(
            read,
            answers.classify(
                answer.status,
                self._redact(read.decode("utf-8", "replace")),
                answers.retry_after(answer.headers.get("Retry-After")),
            ),
        )

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


def _credentials(url: URL) -> dict[str, str]:
    if url.user is None and url.password is None:
        return {}
    pair = f"{url.user or ''}:{url.password or ''}".encode()
    return {"Authorization": f"Basic {b64encode(pair).decode()}"}
