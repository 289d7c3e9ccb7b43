"""Clients that go on sending alerts while something else breaks."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import Any, Self

import aiohttp

from tests.support.eventually import eventually
from tests.support.system import System

PAUSE_SECONDS = 0.02
AGAIN_SECONDS = 0.2
PATIENCE_SECONDS = 120.0


ROUND: tuple[dict[str, Any], ...] = (
    {"severity": "warning"},
    {"severity": "warning"},
    {"severity": "critical"},
    {"resolved": True},
)


def rounds(fires: bool, stopping: asyncio.Event) -> Iterator[dict[str, Any]]:  # noqa: FBT001
    """Yield the alerts of an alarm that fires, rises, ends and fires again.

    :param fires: whether it does so at last, once this is set
    """
    for fields in cycle(ROUND):
        if stopping.is_set() and fires != (fields is ROUND[0]):
            return
        yield fields


class Load:
    """`async with Load(stack) as load`: at the end each client has the 202 it asked for.

    What is answered otherwise, or not at all, is asked again under the same Idempotency-Key.
    """

    def __init__(self, system: System, *, clients: int = 8) -> None:
        self.accepted: dict[str, str] = {}
        self.answers: Counter[int | str] = Counter()
        """How often each status came, or each kind of no answer."""
        self.slowest = 0.0
        self.event_type = "slack_alert"
        self._system = system
        self._clients = clients
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"X-API-KEY": self._system.values["SERVICE_API_KEY"]},
            timeout=aiohttp.ClientTimeout(total=60),
        )
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        try:
            if kind is None:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._session.close()

    async def more(self, count: int, seconds: float = 60) -> None:
        """Wait until so many more were accepted."""
        enough = len(self.accepted) + count

        async def so() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return len(self.accepted) >= enough

        await eventually(so, seconds)

    async def _client(self) -> None:
        while not self._stopping.is_set():
            text, key = f"load {uuid.uuid4()}", str(uuid.uuid4())
            alert_id = await self._until_accepted(text, key)
            self.accepted[alert_id] = text
            await asyncio.sleep(PAUSE_SECONDS)

    async def _until_accepted(self, text: str, key: str, **fields: Any) -> str:
        while True:
            alert_id = await self._ask(text, key, **fields)
            if alert_id is not None:
                return alert_id
            await asyncio.sleep(AGAIN_SECONDS)

    async def _ask(self, text: str, key: str, **fields: Any) -> str | None:
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            async with self._session.post(
                f"{self._system.url}/api/alerts",
                json={"event_type": self.event_type, "payload": {"text": text}, **fields},
                headers={"Idempotency-Key": key},
            ) as answer:
                body = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1
            return None
        self.answers[answer.status] += 1
        if answer.status == 202:
            self.slowest = max(self.slowest, clock() - start)
            return str(body["id"])
        assert answer.status in {409, 502, 503, 504}, (answer.status, body)
        return None
