import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import pytest

from libs.common.process import service


@asynccontextmanager
async def resource(name: str, events: list[str]) -> AsyncIterator[None]:
    events.append(f"open {name}")
    yield
    events.append(f"close {name}")


def test_sigterm_closes_in_reverse_order_and_exits_with_0() -> None:
    events: list[str] = []

    async def start(running: service.Service) -> None:
        await running.enter(resource("database", events))
        await running.enter(resource("broker", events))
        os.kill(os.getpid(), signal.SIGTERM)

    assert service.run("test", start) == 0
    assert events == ["open database", "open broker", "close broker", "close database"]


@pytest.mark.parametrize("error", [RuntimeError(), asyncio.CancelledError(), None], ids=repr)
def test_a_background_task_that_ends_in_whatever_way_stops_the_service(
    error: BaseException | None,
) -> None:
    async def ends() -> None:
        if error is not None:
            raise error

    async def start(running: service.Service) -> None:
        running.spawn("relay", ends())

    assert service.run("test", start) == 1


@pytest.mark.parametrize("told", [1, "alerts.toml is at fault: targets"])
def test_a_failed_start_closes_what_was_open_and_a_fault_of_a_file_is_all_that_is_said(
    told: int | str, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[str] = []

    async def start(running: service.Service) -> None:
        await running.enter(resource("database", events))
        raise SystemExit(told) if isinstance(told, str) else RuntimeError

    assert service.run("test", start) == told
    assert events == ["open database", "close database"]
    gc.collect()  # a task whose exception nobody asked for is told of when it goes
    assert "Traceback" not in capfd.readouterr().err


def test_a_stop_while_starting_ends_the_start() -> None:
    async def start(_: service.Service) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert service.run("test", start) == 0


class Taking:
    """What takes work in, and needs a while to finish."""

    def __init__(self, name: str, events: list[str]) -> None:
        self._name = name
        self._events = events

    async def drain(self) -> None:
        self._events.append(f"{self._name} stops taking")
        await asyncio.sleep(0.01)
        self._events.append(f"{self._name} is done")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._events.append(f"close {self._name}")


def test_all_intake_stops_before_the_drain_and_the_drain_before_closing() -> None:
    events: list[str] = []

    async def start(running: service.Service) -> None:
        await running.enter(resource("database", events))
        await running.enter(Taking("first", events))
        await running.enter(Taking("second", events))
        os.kill(os.getpid(), signal.SIGTERM)

    assert service.run("test", start) == 0
    assert events[1:3] == ["first stops taking", "second stops taking"]
    assert sorted(events[3:5]) == ["first is done", "second is done"]
    assert events[5:] == ["close second", "close first", "close database"]


def test_with_a_drain_delay_a_service_leaves_before_it_stops() -> None:
    seen: list[tuple[bool, bool]] = []

    async def start(running: service.Service) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

        async def watch() -> None:
            while not running.leaving:  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0)
            seen.append((running.leaving, running.stopping.is_set()))
            await running.stopping.wait()
            seen.append((running.leaving, running.stopping.is_set()))

        running.spawn("watch", watch())

    assert service.run("test", start, drain_delay=0.05) == 0
    assert seen == [(True, False), (True, True)]
