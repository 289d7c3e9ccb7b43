import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from libs.common.database.group_commit import Batches, pace


class Statement:
    """Squares numbers; waits while it is held, and says how it was called."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.called = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self.bad: set[int] = set()
        self.error: type[Exception] = ValueError

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.called.set()
        await self.free.wait()
        if self.bad & set(items):
            raise self.error
        return [item * item for item in items]


@pytest.fixture
def statement() -> Statement:
    return Statement()


@pytest.fixture
def squares(statement: Statement) -> Batches[int, int]:
    return Batches(statement, limit=8)


async def hold(
    statement: Statement, squares: Batches[int, int], *items: int
) -> list[asyncio.Future[int]]:
    """Have one batch under way with the first item, and the others waiting."""
    statement.free.clear()
    tasks = [squares.submit(items[0])]
    await statement.called.wait()
    tasks += [squares.submit(item) for item in items[1:]]
    await asyncio.sleep(0)
    return tasks


async def test_items_that_arrive_during_a_batch_form_the_next_one(
    statement: Statement, squares: Batches[int, int]
) -> None:
    tasks = await hold(statement, squares, 1, 2, 3)
    statement.free.set()
    assert await asyncio.gather(*tasks) == [1, 4, 9]
    assert statement.batches == [[1], [2, 3]]


async def test_a_batch_is_no_larger_than_its_limit(
    statement: Statement, squares: Batches[int, int]
) -> None:
    items = range(20)
    assert await asyncio.gather(*map(squares.submit, items)) == [item * item for item in items]
    assert [len(batch) for batch in statement.batches] == [8, 8, 4]


async def test_within_the_pace_items_wait_for_company(statement: Statement) -> None:
    squares: Batches[int, int] = Batches(statement, limit=8, pace=0.1)
    assert await squares.submit(1) == 1
    second = squares.submit(2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert list(await asyncio.gather(squares.submit(3), second)) == [9, 4]
    assert statement.batches == [[1], [2, 3]]


async def test_half_a_full_batch_starts_before_the_pace(statement: Statement) -> None:
    squares: Batches[int, int] = Batches(statement, limit=8, pace=3600)
    async with asyncio.timeout(30):
        assert await squares.submit(1) == 1  # nor does the first one
        waiting = squares.submit(2)
        await asyncio.sleep(0)
        assert await asyncio.gather(waiting, *map(squares.submit, (3, 4, 5))) == [4, 9, 16, 25]
    assert statement.batches == [[1], [2, 3, 4, 5]]


async def test_a_bad_item_fails_alone(statement: Statement, squares: Batches[int, int]) -> None:
    statement.bad = {3}
    answers = await asyncio.gather(*map(squares.submit, range(8)), return_exceptions=True)
    assert [item for item, answer in enumerate(answers) if isinstance(answer, ValueError)] == [3]
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 1, 4, 16, 25, 36, 49]


async def test_a_transient_fault_fails_the_batch_without_retries(
    statement: Statement, squares: Batches[int, int]
) -> None:
    statement.bad, statement.error = {3}, PoolTimeoutError
    answers = await asyncio.gather(*map(squares.submit, range(8)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {PoolTimeoutError}
    assert len(statement.batches) == 1


async def test_a_cancelled_asker_leaves_no_other_waiting(
    statement: Statement, squares: Batches[int, int]
) -> None:
    first, second, third, *_ = tasks = await hold(statement, squares, 1, 2, 3)
    for task in (first, second):
        task.cancel()
    statement.free.set()
    async with asyncio.timeout(30):
        assert await third == 9
        assert await squares.submit(4) == 16
    assert [task.cancelled() for task in tasks] == [True, True, False]
    assert statement.batches == [[1], [3], [4]]  # the second was asked for no more


async def test_a_cancelled_batch_leaves_no_caller_waiting(
    statement: Statement, squares: Batches[int, int]
) -> None:
    tasks = await hold(statement, squares, 1, 2)
    (running,) = (task for task in asyncio.all_tasks() if task.get_name() == "batches")
    running.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    statement.free.set()
    assert await squares.submit(3) == 9


@pytest.mark.parametrize("limit", [1, 8, 16, 100, 200])
def test_no_limit_with_its_pace_bounds_the_rate_below_5000_a_second(limit: int) -> None:
    assert limit / pace(limit) >= 5000
    assert pace(limit) <= 0.02
