import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from libs.common import service


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


def test_a_background_task_that_dies_stops_the_service() -> None:
    async def dies() -> None:
        raise RuntimeError

    async def start(running: service.Service) -> None:
        running.spawn("relay", dies())

    assert service.run("test", start) == 1


def test_a_background_task_that_ends_stops_the_service() -> None:
    async def start(running: service.Service) -> None:
        running.spawn("relay", asyncio.sleep(0))

    assert service.run("test", start) == 1


def test_a_background_task_that_a_library_cancels_stops_the_service() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def start(running: service.Service) -> None:
        running.spawn("relay", cancelled())

    assert service.run("test", start) == 1


def test_a_failed_start_closes_what_was_open() -> None:
    events: list[str] = []

    async def start(running: service.Service) -> None:
        await running.enter(resource("database", events))
        raise RuntimeError

    assert service.run("test", start) == 1
    assert events == ["open database", "close database"]


def test_files_that_are_at_fault_are_told_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    events: list[str] = []

    async def start(running: service.Service) -> None:
        await running.enter(resource("database", events))
        raise SystemExit("alerts.toml is at fault: targets")

    assert service.run("test", start) == "alerts.toml is at fault: targets"
    assert events == ["open database", "close database"]
    gc.collect()  # a task whose exception nobody asked for is told of when it goes
    assert "Traceback" not in capfd.readouterr().err


def test_a_stop_while_starting_ends_the_start() -> None:
    async def start(_: service.Service) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert service.run("test", start) == 0
