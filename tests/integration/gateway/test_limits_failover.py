"""P8 over failovers of Redis that lose counts: one quota more at most, and then exact again."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.gateway.door.limits import Decision, Limiter, LocalCounts, Window, charge_of
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.test_limits import flood, statuses
from tests.support.consumers import until
from tests.support.pipelines import pipeline
from tests.support.ports import Ports
from tests.support.replicas import Sentinels, running_sentinels

pytestmark = pytest.mark.promise("P8")

QUOTA = 30
LOSSES = 4
DAY = Window("chat", QUOTA, 86_400)
KEY = "ostoja:admitted:a"


@pytest.fixture
def sentinels(private_folder: Path, tmp_path: Path, ports: Ports) -> Iterator[Sentinels]:
    with running_sentinels(private_folder / tmp_path.name, ports.take) as started:
        yield started


@pytest.mark.parametrize("settled", [True, False])
async def test_a_failover_that_loses_counts_admits_one_quota_more_at_most(
    start_gateway: StartGateway, sentinels: Sentinels, *, settled: bool
) -> None:
    """If each gateway is asked once, the quota is exact again."""
    settings = {"CHAT_RATE_LIMIT": f"{QUOTA} per day", "REDIS_URL": sentinels.url}
    gateways = [await start_gateway(**settings) for _ in range(2)]
    for gateway in gateways:
        await gateway.redis_is("healthy")
    await until(sentinels.in_step)
    sentinels.replica.lose_what_follows()
    answers = await flood(20, *gateways)
    await asyncio.to_thread(sentinels.master.kill)
    await until(sentinels.promoted)
    for gateway in gateways:
        await gateway.redis_is("healthy")
    if settled:
        answers += [(await flood(1, gateway))[0] for gateway in gateways]
    answers += await flood(200, *gateways)
    admitted = statuses(answers)[200]
    assert QUOTA <= admitted <= (QUOTA if settled else 2 * QUOTA)


def today() -> int:
    return int(time.time()) // DAY.seconds * DAY.seconds


@asynccontextmanager
async def limiters(redis_url: str, count: int) -> AsyncIterator[list[Limiter]]:
    async with AsyncExitStack() as stack:
        pipes = (pipeline(redis_url) for _ in range(count))
        yield [Limiter(await stack.enter_async_context(pipe)) for pipe in pipes]


@pytest.mark.parametrize("seed", range(10))
async def test_counts_heal_whatever_was_lost(redis_url: str, seed: int) -> None:
    chance = random.Random(seed)
    async with Redis.from_url(redis_url) as redis, limiters(redis_url, 3) as gateways:
        backups: list[bytes | None] = [None]
        admitted = losses = 0
        unheard: set[Limiter] = set()
        """Gateways whose counts may be lost."""
        for _ in range(150):
            step = chance.random()
            if step < 0.05:
                lost = chance.choice(backups)
                await redis.delete(KEY)
                if lost is not None:
                    await redis.restore(KEY, 86_400_000, lost)
                losses += 1
                unheard = set(gateways)
            elif step < 0.15:
                backups.append(await redis.dump(KEY))
            else:
                gateway = chance.choice(gateways)
                exact = unheard <= {gateway}
                # One that has admitted the whole quota by itself refuses without telling Redis.
                tells = gateway._here.count(DAY.seconds, today(), "a") < QUOTA
                decision = await gateway.decide("chat", "a", (DAY,))
                if exact:
                    assert decision.admitted == (admitted < QUOTA)
                admitted += decision.admitted
                if tells:
                    unheard.discard(gateway)
            assert admitted <= QUOTA * (1 + losses)
        assert losses


@pytest.mark.control("P8")
@pytest.mark.parametrize("remembers", [True, False])
async def test_only_what_each_gateway_remembers_heals_counts(
    redis_url: str, *, remembers: bool
) -> None:
    """Without it, the control, each loss would admit the quota once more."""
    async with Redis.from_url(redis_url) as redis, limiters(redis_url, 2) as gateways:
        admitted = 0
        for _ in range(LOSSES):
            for gateway in gateways * QUOTA:
                admitted += (await gateway.decide("chat", "a", (DAY,))).admitted
                if not remembers:
                    gateway._here = LocalCounts()
            await redis.delete(KEY)
        if remembers:  # whoever is asked first after a loss does not know of the other
            assert QUOTA <= admitted <= QUOTA + LOSSES
        else:
            assert admitted == LOSSES * QUOTA


async def test_a_window_goes_on_if_the_clock_of_a_new_master_is_behind(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis, limiters(redis_url, 2) as (one, other):
        later = today() + DAY.seconds  # by the clock of the master before
        await redis.hset(KEY, "86400", f"{later} other={QUOTA - 3}")
        said = [(await each.decide("chat", "a", (DAY,))).admitted for each in (one, other) * 3]
        assert Counter(said) == {True: 3, False: 3}
        (kept,) = await redis.hmget(KEY, "86400")
        assert str(later) in str(kept)

        # The same, if the count is lost: a gateway knows its own.
        await redis.delete(KEY)
        assert (await one.decide("chat", "a", (DAY,))).admitted
        (kept,) = await redis.hmget(KEY, "86400")
        assert str(later) in str(kept)


async def test_a_process_that_starts_again_keeps_what_it_had_admitted(redis_url: str) -> None:
    async with limiters(redis_url, 1) as (before,):
        for _ in range(QUOTA - 1):
            await before.decide("chat", "a", (DAY,))
    async with limiters(redis_url, 1) as (after,):
        said = [(await after.decide("chat", "a", (DAY,))).admitted for _ in range(3)]
    assert said == [True, False, False]


BUDGET = Window("budget", 40, 86_400)


async def charged(gateway: Limiter, network: str, *, by_itself: bool) -> Decision:
    if not by_itself:
        client, charge = f"{network} {random.random()}", charge_of("b", BUDGET, network)
        if (
            made := (await gateway.decide("api", client, (DAY,), charge=charge)).charge
        ) is not None:
            return made
    return await gateway.charge("budget", "b", BUDGET, network)


@pytest.mark.parametrize("seed", range(5))
async def test_what_is_given_back_is_free_again_and_nothing_else_is(
    redis_url: str, seed: int
) -> None:
    """Whichever gateway charged it, also at once; after losses never more than is free."""
    chance = random.Random(seed)
    async with Redis.from_url(redis_url) as redis, limiters(redis_url, 3) as gateways:
        held: list[tuple[Limiter, str, Decision]] = []

        async def charge(network: str) -> bool:
            gateway = chance.choice(gateways)
            decision = await charged(gateway, network, by_itself=chance.random() < 0.5)
            if decision.admitted:
                held.append((gateway, network, decision))
            return decision.admitted

        async def give_back() -> None:
            gateway, _, decision = held.pop(chance.randrange(len(held)))
            await gateway.refund(decision)

        for _ in range(300):
            if chance.random() < 0.4 and held:
                await give_back()
                continue
            network = f"{chance.randrange(30)}"
            part = sum(other == network for _, other, _ in held)
            free = part < 2 and len(held) < 40
            assert await charge(network) == free
        for _ in range(20):
            backs = [give_back() for _ in range(min(len(held), chance.randrange(20)))]
            await asyncio.gather(*backs, *(charge(f"{network}") for network in range(30)))
            assert len(held) <= 40
        for is_lost in (False, True):
            if is_lost:
                await redis.flushdb()
            while held:
                await give_back()
            admitted = [await charge(f"{network}") for network in range(60)]
            assert sum(admitted) == 40


async def test_what_its_own_limit_refuses_is_charged_nothing(redis_url: str) -> None:
    once = Window("once", 1, 86_400)
    async with limiters(redis_url, 2) as gateways:
        for number, gateway in enumerate(gateways * 2):
            charge = charge_of("b", BUDGET, "n")
            decision = await gateway.decide("api", "a", (once,), charge=charge)
            assert decision.admitted == (decision.charge is not None) == (number == 0)
        used = (await gateways[1].charge("budget", "b", BUDGET, "n")).uses
        assert [each.used for each in used] == [1, 1]
