"""Several processes share one target: one breaker, one trial, one pause, a share for each."""

from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.domain.acts import Act
from services.alerts.rules.delivery import BreakerState, Kind
from services.alerts.targets.breaker import Admission, Breaker
from services.alerts.targets.status import TargetStatus
from services.alerts.targets.throttle import Throttle
from tests.integration.alerts.conftest import execute
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P6")

RESET = 0.5


@dataclass
class Process:
    breaker: Breaker
    throttle: Throttle
    status: TargetStatus

    async def call(self, kind: Kind) -> None:
        await self.end(self.breaker.admit(), kind)

    async def refused(self, said: str) -> None:
        await self.end(self.breaker.admit(), Kind.HELD, said)

    async def end(self, admission: Admission | None, kind: Kind, said: str | None = None) -> None:
        assert admission is not None
        admission.kind, admission.refusal = kind, said
        self.breaker.record(admission)
        await self.status.exchange()


def a_process(engine: AsyncEngine) -> Process:
    breaker = Breaker("slack", fail_max=5, reset_timeout=RESET)
    throttle = Throttle(breaker, per_minute=60, concurrency=6)
    return Process(breaker, throttle, TargetStatus(engine, {"slack": breaker}, {"slack": throttle}))


async def processes(engine: AsyncEngine, count: int = 3) -> list[Process]:
    made = [a_process(engine) for _ in range(count)]
    await all_exchange(made)
    await all_exchange(made)
    return made


async def all_exchange(made: list[Process]) -> None:
    for each in made:
        await each.status.exchange()


async def test_five_failures_in_any_processes_open_the_breaker(engine: AsyncEngine) -> None:
    first, second, third = made = await processes(engine)
    for each in (first, second, third, first):
        await each.call(Kind.FAILED)
    await all_exchange(made)
    assert {each.breaker.state for each in made} == {BreakerState.CLOSED}
    await second.call(Kind.FAILED)
    await all_exchange(made)
    assert {each.breaker.state for each in made} == {BreakerState.OPEN}
    assert (await third.status.now())["slack"]["failures"] == 5


async def test_work_goes_together_when_no_process_is_of_the_release_before(
    engine: AsyncEngine,
) -> None:
    assert a_process(engine).status.sharing("slack") == 0  # not known yet
    first, second = made = await processes(engine, 2)
    assert [each.status.sharing("slack") for each in made] == [2, 2]
    await execute(engine, "INSERT INTO replica (process, numbers) VALUES (gen_random_uuid(), true)")
    for ago, sharing in (("59 min", 0), ("61 min", 2)):
        await execute(
            engine, f"UPDATE replica SET seen_at = now() - interval '{ago}' WHERE NOT together"
        )
        await all_exchange(made)
        assert first.status.sharing("slack") == sharing
    second.throttle.hold(10)
    assert second.status.sharing("slack") == 0


async def test_a_success_in_one_process_resets_the_count_of_all(engine: AsyncEngine) -> None:
    first, second, _ = made = await processes(engine)
    for _ in range(4):
        await first.call(Kind.FAILED)
    await all_exchange(made)
    await second.call(Kind.DELIVERED)
    await first.call(Kind.FAILED)
    await all_exchange(made)
    assert {each.breaker.state for each in made} == {BreakerState.CLOSED}


async def test_one_process_makes_the_trial_and_all_follow(engine: AsyncEngine) -> None:
    made = await processes(engine)
    for kind, state in ((Kind.FAILED, BreakerState.OPEN), (Kind.DELIVERED, BreakerState.CLOSED)):
        if made[0].breaker.state is BreakerState.CLOSED:
            for _ in range(5):
                await made[0].call(Kind.FAILED)

        tries, trial = await the_trial(made, within=RESET)
        await all_exchange(made)
        assert [each.breaker.admit() for each in made] == [None] * 3
        await tries.end(trial, kind)
        await all_exchange(made)
        assert {each.breaker.state for each in made} == {state}


async def test_a_refusal_in_one_process_holds_the_target_for_all(engine: AsyncEngine) -> None:
    made = await processes(engine)
    first, *_ = made
    await first.refused("401")
    await all_exchange(made)
    assert {each.breaker.state for each in made} == {BreakerState.OPEN}
    for each in made:
        assert (await each.status.now())["slack"]["paused"] == "refused us: 401"
    tries, trial = await the_trial(made, within=RESET)  # the first is at once
    await tries.end(trial, Kind.HELD, "403")
    await all_exchange(made)
    shown = (await first.status.now())["slack"]
    assert (shown["state"], shown["paused"]) == ("open", "refused us: 403")
    assert first.breaker.seconds_to_trial > 4 * RESET
    tries, trial = await the_trial(made, within=10 * RESET)
    await tries.end(trial, Kind.FAILED)  # says nothing of whether it still refuses us
    await all_exchange(made)
    assert first.breaker.seconds_to_trial > 4 * RESET
    tries, trial = await the_trial(made, within=10 * RESET)
    await tries.end(trial, Kind.DELIVERED)
    await all_exchange(made)
    shown = (await first.status.now())["slack"]
    assert (shown["state"], shown["paused"], shown["open_since"]) == ("closed", False, None)
    async with engine.connect() as tx:
        healed = sa.text("SELECT healed_at > now() - interval '5 s' AND held IS NULL FROM breaker")
        assert await tx.scalar(healed)


async def test_a_success_that_is_no_trial_ends_no_hold(engine: AsyncEngine) -> None:
    """Rule of `singled_out`: a target that refused us counts as healed by a delivery alone."""
    first, second, _ = await processes(engine)
    late = second.breaker.admit()
    await first.call(Kind.FAILED)  # so that a success is worth a report
    await second.status.exchange()
    await first.refused("401")
    await second.end(late, Kind.DELIVERED)
    assert (await second.status.now())["slack"]["paused"] == "refused us: 401"
    async with engine.connect() as tx:
        assert await tx.scalar(sa.text("SELECT count(*) FROM breaker WHERE healed_at IS NULL"))
        assert await tx.scalar(sa.text("SELECT number FROM incident WHERE kind = 'breaker'")) == 1
    await first.status.reset("slack", Act.of({}, "breaker.reset", "target", "slack"))
    async with engine.connect() as tx:
        assert await tx.scalar(sa.text("SELECT count(*) FROM breaker WHERE healed_at IS NULL"))


async def the_trial(made: list[Process], within: float) -> tuple[Process, Admission]:
    """Wait until a process may make the trial; it and the trial."""

    async def its_time() -> bool:
        await all_exchange(made)
        return any(each.breaker.seconds_to_trial == 0 for each in made)

    await eventually(its_time, within + 5)
    admitted = [(each, each.breaker.admit()) for each in made]
    ((tries, trial),) = [(each, admission) for each, admission in admitted if admission]
    return tries, trial


async def test_another_process_takes_over_the_trial_of_a_dead_one(engine: AsyncEngine) -> None:
    first, second = await processes(engine, 2)
    for _ in range(5):
        await first.call(Kind.FAILED)
    await second.status.exchange()

    async def mine() -> bool:
        await first.status.exchange()
        return first.breaker.seconds_to_trial == 0

    await eventually(mine)
    await second.status.exchange()
    assert second.breaker.seconds_to_trial > 0
    # its time passes without a report
    await execute(engine, "UPDATE breaker SET next_trial_at = now() - interval '1 s'")

    async def taken_over() -> bool:
        await second.status.exchange()
        return second.breaker.seconds_to_trial == 0

    await eventually(taken_over)


async def test_a_pause_asked_of_one_process_holds_for_all(engine: AsyncEngine) -> None:
    first, second, _ = await processes(engine)
    first.throttle.hold(600)
    await first.status.exchange()
    await second.status.exchange()
    assert 590 < second.throttle.seconds_shut <= 600
    await second.status.reset("slack", Act.of({}, "breaker.reset", "target", "slack"))
    await first.status.exchange()
    assert first.throttle.seconds_shut == second.throttle.seconds_shut == 0


async def test_a_new_process_takes_nothing_before_it_knows_its_share(engine: AsyncEngine) -> None:
    first, second = await processes(engine, 2)
    third = a_process(engine)
    assert third.throttle.seconds_shut > 0
    await third.status.exchange()
    assert third.throttle.seconds_shut == 0
    await all_exchange([first, second])
    for each in (first, second, third):
        assert each.throttle.replicas == 3
    async with third.throttle.slots.taking_one(), third.throttle.slots.taking_one():
        assert third.throttle.slots.taken


async def test_a_stopped_process_keeps_no_share(engine: AsyncEngine) -> None:
    first, second = await processes(engine, 2)
    async with first.status.membership():
        pass
    await second.status.exchange()
    assert second.throttle.replicas == 1
