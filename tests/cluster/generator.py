"""Callers that do, as a seed says, what callers do all day; each repeats until it is answered."""

import asyncio
import random
import socket
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from tests.cluster.history import History
from tests.support.load import ROUND, rounds
from tests.support.system import WORDING, System

ANSWER_SECONDS = 12.0
AGAIN_SECONDS = 0.3
GIVE_UP_SECONDS = 130.0
PAUSE_SECONDS = 0.3
QUOTA = 30  # chats of one address in a minute
BURST = 45
FOLLOW_UP_SECONDS = (1, 6)
APART_SECONDS = 10.5
"""Between an end and what fires: hosts whose clocks are 5 s wrong stamp them in this order."""


class Generator:
    """`async with Generator(...)`: at the end each operation has ended."""

    def __init__(
        self, system: System, urls: list[str], clients: list[str], history: History, seed: int
    ) -> None:
        """:param clients: addresses of this machine to call from"""
        self._system = system
        self._clients = clients
        self._urls = urls
        self._history = history
        self._seed = seed
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, connect=2),
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
        )
        callers = [self._alerts, self._alerts, self._alerts, self._batches]
        callers += [
            self._alarms,
            self._alarms,
            self._people,
            self._people,
            self._people,
            self._bursts,
        ]
        self._tasks = [
            asyncio.create_task(caller(random.Random(f"{self._seed} {number}")))
            for number, caller in enumerate(callers)
        ]

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        try:
            found = await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await self._session.close()
        if kind is None:
            for one in found:
                if isinstance(one, BaseException):
                    raise one

    async def _alerts(self, chance: random.Random) -> None:
        while await self._pause(chance):
            key = _key(chance)
            body = {"event_type": "slack_alert", "payload": {"text": f"alert {key}"}}
            await self._do(chance, "alert", key, "/api/alerts", body, texts=[f"alert {key}"])

    async def _alarms(self, chance: random.Random) -> None:
        thing, fires = _key(chance), chance.random() < 0.5
        for fields in rounds(fires, self._stopping):
            turns = fields is ROUND[0] or fields is ROUND[-1]
            await asyncio.sleep(APART_SECONDS if turns else PAUSE_SECONDS)
            key = _key(chance)
            body = {"event_type": "slack_alert", "payload": {"text": f"alarm {key}"}, **fields}
            body["dedup_key"], fired = thing, "resolved" not in fields
            await self._do(
                chance, "alarm", key, "/api/alerts", body,
                texts=[f"alarm {key}"], thing=thing, fires=fired,
            )  # fmt: skip

    async def _batches(self, chance: random.Random) -> None:
        while await self._pause(chance):
            key = _key(chance)
            texts = [f"alert {key}/{number}" for number in range(chance.randint(2, 20))]
            body = {
                "alerts": [{"event_type": "slack_alert", "payload": {"text": t}} for t in texts]
            }
            await self._do(chance, "batch", key, "/api/alerts/batch", body, texts=texts)
            await asyncio.sleep(1)

    async def _people(self, chance: random.Random) -> None:
        """Opt in, be enrolled; then stay, leave or be erased, as the mail may be on its way."""
        while await self._pause(chance):
            address = f"p.{_key(chance)[:12]}@example.pl"
            agreed = {"email": address, "text": WORDING.text}
            if not await self._do(chance, "opt-in", address, "/api/opt-in", agreed, key=None):
                continue
            seconds = chance.randint(*FOLLOW_UP_SECONDS)
            wanted = {"email": address, "delay_seconds": seconds}
            await self._do(chance, "enrol", address, "/api/followups", wanted)
            end = chance.choice(["stay", "unsubscribe", "unsubscribe", "erase"])
            await asyncio.sleep(chance.uniform(0, seconds + 2))
            body = {"email": address}
            if end == "unsubscribe":
                await self._do(chance, end, address, "/api/unsubscribe", body, key=None)
            elif end == "erase":
                await self._do(chance, end, address, "/api/consent/erase", body, key="admin")

    async def _bursts(self, chance: random.Random) -> None:
        """Chat more often than one address may; each burst from an address of its own."""
        for client in self._clients:
            if not await self._pause(chance):
                return
            self._history.add("invoke", "burst", client)
            urls = [chance.choice(self._urls) for _ in range(BURST)]
            connector = aiohttp.TCPConnector(limit=0, local_addr=(client, 0))
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                minute = datetime.now(UTC).minute
                said = await asyncio.gather(*(_chat(session, url) for url in urls))
                minutes = (datetime.now(UTC).minute - minute) % 60 + 1
            self._history.add("ok", "burst", client, answers=said, minutes=minutes)
            await asyncio.sleep(8)

    async def _do(
        self,
        chance: random.Random,
        what: str,
        name: str,
        path: str,
        body: Mapping[str, Any],
        *,
        key: str | None = "service",
        **details: Any,
    ) -> bool:
        """Ask until it is answered, each time another host; tell whether it was done."""
        headers = {"Idempotency-Key": name}
        if key == "service":
            headers["X-API-KEY"] = self._system.values["SERVICE_API_KEY"]
        elif key == "admin":
            headers = {"X-ADMIN-API-KEY": self._system.values["ADMIN_API_KEY"]}
        self._history.add("invoke", what, name, **details)
        urls = chance.sample(self._urls, len(self._urls))
        clock = asyncio.get_running_loop().time
        deadline = clock() + GIVE_UP_SECONDS
        tries = 0
        told: set[int] = set()
        while True:
            status, answer = await self._ask(urls[tries % len(urls)] + path, body, headers)
            tries += 1
            told.add(status)
            seen = {"status": status, "tries": tries, "told": sorted(told)}
            if status in {200, 202} and not (what in {"unsubscribe", "erase"} and status == 202):
                ids = [one["id"] for one in answer.get("items", [answer]) if "id" in one]
                self._history.add("ok", what, name, **seen, ids=ids)
                return True
            if 400 <= status < 500 and status not in {408, 409, 425, 429}:
                self._history.add("fail", what, name, **seen, answer=answer)
                return False
            # Withdrawn, but a mail is in flight: what died with it is counted for a minute.
            gives_up = status == 202 and self._stopping.is_set()
            if gives_up or clock() > deadline:
                self._history.add("unknown", what, name, **seen)
                return False
            await asyncio.sleep(AGAIN_SECONDS)

    async def _ask(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[int, Any]:
        try:
            async with self._session.post(url, json=body, headers=headers) as answer:
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, socket.gaierror, ValueError):
            return 0, {}

    async def _pause(self, chance: random.Random) -> bool:
        await asyncio.sleep(chance.uniform(0, 2) * PAUSE_SECONDS)
        return not self._stopping.is_set()


async def _chat(session: aiohttp.ClientSession, url: str) -> int:
    body = {"message": "Dzień dobry", "session_id": str(uuid.uuid4())}
    try:
        async with session.post(f"{url}/api/chatbot/chat", json=body) as answer:
            return answer.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


def _key(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))
