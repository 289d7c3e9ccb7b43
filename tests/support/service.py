"""One service as a process of its own, asked over HTTP."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
from yarl import URL

from tests.support import warm
from tests.support.eventually import eventually
from tests.support.ports import HOST


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: Any = None
    seconds: float = 0


class ServiceUnderTest:
    """:param environment: its settings, which count from the next start; HTTP_PORT is its port"""

    health = "/health"
    process: warm.Started

    def __init__(
        self, name: str, environment: Mapping[str, str], log: Path, session: aiohttp.ClientSession
    ) -> None:
        self.name, self.log, self.session = name, log, session
        self.environment = dict(environment)
        self.port = int(environment["HTTP_PORT"])
        self.url = f"http://{HOST}:{self.port}"

    def launch(self, program: str | None = None) -> None:
        """:param program: what Python runs instead; it may stop somewhere, for a kill there"""
        self.process = warm.Started(self.name, env=self.environment, log=self.log, program=program)

    async def start(self, program: str | None = None) -> None:
        self.launch(program)
        await eventually(self.answers, 120)

    async def answers(self) -> bool:
        """:raises RuntimeError: it has ended; what it logged"""
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text())
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(5):  # another may have its port, and say nothing
                return (await self.send("GET", self.health)).status == 200
        return False

    @contextmanager
    def running(self, program: str | None = None) -> Iterator[warm.Started]:
        self.launch(program)
        try:
            yield self.process
        finally:
            self.kill9()

    async def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with self.session.request(
            method,
            URL(self.url + path, encoded=True),
            headers=headers,
            allow_redirects=False,
            **options,
        ) as response:
            text = await response.text()
            is_json = text and response.content_type.endswith("json")
            body = json.loads(text) if is_json else text
            return Answer(response.status, body, response.headers, loop.time() - start)

    def by(self, session: aiohttp.ClientSession) -> Self:
        """Return it as another client reaches it."""
        other = copy(self)
        other.session = session
        return other

    async def stop(self) -> int:
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 35)

    def kill9(self) -> None:
        if hasattr(self, "process"):  # it has been started
            self.process.kill()
            self.process.wait(10)
