"""C2: after a revocation that every gateway process has confirmed, no request with the key is 2xx.

Two gateways of two workers each, called flat out, without RabbitMQ, and with a Redis that is killed
meanwhile. Workers and gateways are killed, stopped and started at random, and so is the console.
The seed says when; a history holds what was called and answered, and a checker judges it.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from deploy.up.servers import Redis
from tests.integration.gateway.conftest import Gateway, StartGateway, workers_of
from tests.support.console import INTERNAL_KEY, Console, api_key
from tests.support.consumers import until
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P12")

PATH = "/api/alerts/1"
KEYS = 12
CALLERS = 8
IDS = [f"{'A' * 8}{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(KEYS)]


def text_of(id_: str) -> str:
    return f"osk_{id_}_secret"


@dataclass
class History:
    """On one clock, that of this process."""

    calls: list[tuple[float, str, int]] = field(default_factory=list)
    """When a call began, with which key, and how it was answered."""
    revoked: dict[str, float] = field(default_factory=dict)
    """When a revocation was confirmed by all."""

    def after(self, id_: str) -> list[int]:
        """How the calls were answered that began with this key after its end."""
        return [
            status for began, of, status in self.calls if of == id_ and began > self.revoked[id_]
        ]

    def violations(self) -> list[tuple[float, str, int]]:
        return [
            (began, id_, status)
            for began, id_, status in self.calls
            if began > self.revoked.get(id_, float("inf")) and status < 300
        ]


async def call_for_ever(gateways: list[Gateway], history: History, seed: str) -> None:
    chance = random.Random(seed)
    while True:
        # A connection of its own each time, which the kernel gives to any of the workers.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
            for _ in range(20):
                id_, gateway, began = chance.choice(IDS), chance.choice(gateways), monotonic()
                headers = {"X-API-KEY": text_of(id_)}
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(gateway.url + PATH, headers=headers) as answer:
                        history.calls.append((began, id_, answer.status))
                await asyncio.sleep(0)


async def revoke(console: Console, id_: str, history: History) -> None:
    version = console.change(revoked=[id_])
    # The rules of the console (docs/models/revocation.pml) are about who is on its list.
    await eventually(lambda: confirmed(console, version), 120, every=0.005)
    history.revoked[id_] = monotonic()


async def confirmed(console: Console, version: int) -> bool:
    return console.settled and not console.waiting_for(version)


async def break_something(
    chance: random.Random, console: Console, gateways: list[Gateway], redis: Redis
) -> None:
    """Break one thing, and mend it."""
    gateway = chance.choice(gateways)
    match chance.choice(["kill worker", "freeze worker", "console", "redis"]):
        case "kill worker":
            if workers := workers_of(gateway):
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
        case "freeze worker":
            if workers := workers_of(gateway):
                frozen = chance.choice(workers)
                with suppress(ProcessLookupError):
                    os.kill(frozen, signal.SIGSTOP)
                    await asyncio.sleep(chance.uniform(0, 1))
                    os.kill(frozen, signal.SIGCONT)
        case "console":
            await console.stop()
            await asyncio.sleep(chance.uniform(0, 2))
            await console.start()
        case "redis":
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)


@pytest.fixture
async def console() -> AsyncIterator[Console]:
    console = Console(port=0)
    console.change(*(api_key(id_, text_of(id_), "alerts:read") for id_ in IDS))
    await console.start()
    yield console
    await console.stop()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.faults)])
async def test_no_request_begun_after_the_confirmation_is_answered_2xx(
    start_gateway: StartGateway, own_redis: Redis, console: Console, tmp_path: Path, seed: int
) -> None:
    gateways = [
        await start_gateway(
            CONSOLE_URL=console.url,
            CONSOLE_INTERNAL_KEY=INTERNAL_KEY,
            KEYS_STATE_FILE=str(tmp_path / f"keys-{n}.json"),
            GATEWAY_WORKERS="2",
            REDIS_URL=own_redis.url,
            SERVICE_RATE_LIMIT="1000000 per minute",
            API_RATE_LIMIT_MINUTE="1000000 per minute",
            API_RATE_LIMIT_HOUR="1000000 per hour",
        )
        for n in range(2)
    ]
    chance, history = random.Random(seed), History()
    callers = [
        asyncio.create_task(call_for_ever(gateways, history, f"{seed} {n}")) for n in range(CALLERS)
    ]
    try:
        for number, id_ in zip(count(), IDS[:-1], strict=False):
            revoking = asyncio.create_task(revoke(console, id_, history))
            if number % 2:
                await asyncio.sleep(chance.uniform(0, 0.3))
                await break_something(chance, console, gateways, own_redis)
            await revoking
            await until(lambda id_=id_: len(history.after(id_)) >= 5, 60)  # type: ignore[misc]
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    assert history.violations() == []
    assert len(history.revoked) == KEYS - 1
    assert [status for _, id_, status in history.calls if id_ == IDS[-1]].count(200) > 0
    for id_ in IDS[:-1]:
        assert set(history.after(id_)) <= {401, 502, 503}


@pytest.mark.control("P12")
def test_the_checker_finds_a_call_after_a_confirmation() -> None:
    history = History([(1.0, "A", 200), (2.0, "A", 401), (3.0, "A", 200)], {"A": 1.5})
    assert history.violations() == [(3.0, "A", 200)]
