"""API keys and sessions in use while something breaks, and some of them ended meanwhile."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import uuid4

import aiohttp

from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.staff import Person, person
from tests.support.system import Answer

EACH = 4
"""Keys, and people. Half of them are ended."""
PAUSE_SECONDS = 0.05
AGAIN_SECONDS = 0.2
OPEN, ENDED, AWAY = "open", "ended", "away"
REASON = {"reason": "the laptop was stolen"}


class ConsoleUse:
    """`async with ConsoleUse(stack, seed, seconds) as use`: at the end all that was to end has.

    An end is asked for again until it is answered 200, from a moment that the seed chooses.
    """

    def __init__(self, stack: Stack, seed: int, seconds: float) -> None:
        self.seen: dict[str, list[str]] = defaultdict(list)
        """What each call found, in their order, by key and person."""
        self.ended: set[str] = set()
        self._stack = stack
        self._chance = random.Random(seed)
        self._seconds = seconds
        self._over = asyncio.Event()
        self._calls: dict[str, Callable[[], Awaitable[str]]] = {}
        self._callers: list[asyncio.Task[None]] = []
        self._enders: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for number in range(EACH):
            self._use(f"key {number}", *await self._key(), ends=number % 2 == 0)
            self._use(f"person {number}", *await self._person(), ends=number % 2 == 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await asyncio.gather(*self._enders)
        finally:
            self._over.set()
            for task in self._enders:
                task.cancel()
            await asyncio.gather(*self._callers, return_exceptions=kind is not None)
        for name, call in self._calls.items():  # begun after the 200
            self.seen[name].append(await call())

    def hold(self) -> None:
        """What was not ended was never found so; what was ended never opened again."""
        for name, seen in self.seen.items():
            if name not in self.ended:
                assert ENDED not in seen, (name, seen)
                assert seen[-1] == OPEN, (name, seen)
            else:
                assert seen[-1] == ENDED, (name, seen)
                assert OPEN not in seen[seen.index(ENDED) :], (name, seen)

    def _use(
        self,
        name: str,
        call: Callable[[], Awaitable[str]],
        end: Callable[[], Awaitable[Answer]],
        *,
        ends: bool,
    ) -> None:
        self._calls[name] = call
        self._callers.append(asyncio.create_task(self._call(name, call)))
        if ends:
            self.ended.add(name)
            after = self._chance.random() * self._seconds
            self._enders.append(asyncio.create_task(self._end(after, end)))

    async def _call(self, name: str, call: Callable[[], Awaitable[str]]) -> None:
        while not self._over.is_set():
            try:
                self.seen[name].append(await call())
            except aiohttp.ClientError:  # its answer broke off
                self.seen[name].append(AWAY)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _end(self, after: float, end: Callable[[], Awaitable[Answer]]) -> None:
        async def ended() -> bool:
            return (await end()).status == 200

        await asyncio.sleep(after)
        await eventually(ended, 120, every=AGAIN_SECONDS)

    async def _key(self) -> tuple[Callable[[], Awaitable[str]], Callable[[], Awaitable[Answer]]]:
        soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        wanted: dict[str, Any] = {"name": "crm", "purpose": "reads alerts", "owner": "Ewa"}
        wanted |= {"scopes": ["alerts:read"], "expires_at": soon}
        made = (await self._stack.http("POST", "/api/keys", wanted, key="admin")).body

        async def call() -> str:
            headers = {"X-API-KEY": made["key"]}
            path = f"/api/alerts/{uuid4()}"
            answer = await self._stack.http("GET", path, headers=headers)
            return {404: OPEN, 401: ENDED}.get(answer.status, AWAY)

        async def end() -> Answer:
            path = f"/api/keys/{made['id']}/revoke"
            return await self._stack.http("POST", path, REASON, key="admin")

        return call, end

    async def _person(
        self,
    ) -> tuple[Callable[[], Awaitable[str]], Callable[[], Awaitable[Answer]]]:
        who: Person = await person(self._stack, "viewer")
        sql = "SELECT id FROM console.staff WHERE email = %s"
        (row,) = self._stack.query(sql, who.email)

        async def call() -> str:
            shown = await who.get("/console/me")
            return {200: OPEN, 303: ENDED}.get(shown.status, AWAY)

        async def end() -> Answer:
            path = f"/api/staff/{row.id}/disable"
            return await self._stack.http("POST", path, REASON, key="admin")

        return call, end
