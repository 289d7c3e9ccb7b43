"""The running numbers by which alerts sees what it never got."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.gateway.intake.alerts import MOST_UNUSED, Numbers
from services.gateway.intake.messages import AcceptedAlert


def some(count: int) -> list[AcceptedAlert]:
    return [AcceptedAlert(str(number), {}, "r") for number in range(count)]


def taken(numbers: Numbers, count: int = 1) -> list[dict[str, Any]]:
    alerts = some(count)
    with numbers.given(alerts):
        pass
    return told(alerts)


def refused(numbers: Numbers, count: int = 1) -> list[dict[str, Any]]:
    alerts = some(count)
    with pytest.raises(TimeoutError), numbers.given(alerts):
        raise TimeoutError
    return told(alerts)


def told(alerts: Sequence[AcceptedAlert]) -> list[dict[str, Any]]:
    return [alert.body["numbered"] for alert in alerts]


def test_a_later_alert_tells_which_numbers_nobody_was_promised() -> None:
    numbers = Numbers()
    taken(numbers)
    refused(numbers, 3)
    refused(numbers)
    assert [each.get("unused") for each in taken(numbers, 2)] == [[(2, 5)], None]
    assert "unused" not in taken(numbers)[0]


def test_what_a_refused_alert_told_is_told_again() -> None:
    numbers = Numbers()
    refused(numbers)
    taken_meanwhile = some(1)
    with numbers.given(taken_meanwhile):
        refused(numbers, 2)
    assert told(taken_meanwhile)[0]["unused"] == [(1, 1)]
    assert refused(numbers)[0]["unused"] == [(3, 4)]
    assert taken(numbers)[0]["unused"] == [(3, 5)]


async def test_a_caller_that_has_left_was_promised_nothing() -> None:
    numbers = Numbers()

    async def wait() -> None:
        with numbers.given(some(2)):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert taken(numbers)[0]["unused"] == [(1, 2)]


def test_what_is_remembered_is_bounded() -> None:
    numbers = Numbers()
    under_way = [numbers.given(some(1)) for _ in range(6 * MOST_UNUSED)]
    for each in under_way:
        each.__enter__()
    for each in under_way[::2]:
        each.__exit__(None, None, None)
    for each in under_way[1::2]:  # each number by itself
        assert not each.__exit__(TimeoutError, TimeoutError(), None)
    (last,) = taken(numbers)
    assert last["unused"] == [(number, number) for number in range(402, 602, 2)]
