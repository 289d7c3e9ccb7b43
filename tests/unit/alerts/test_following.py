"""Subscriptions are followed: started, changed, ended; one that cannot start harms no other."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from libs.common.process.service import Service
from services.alerts.delivery.running import Subscriptions
from services.alerts.store import subscriptions
from services.alerts.store.subscriptions import target_of

pytestmark = pytest.mark.promise("P15")

SECRET = "whsec_c2FuZGJveC1zYW5kYm94LXNhbmRib3gtMTIzNA=="
ONE, TWO = UUID(int=1), UUID(int=2)


class Table:
    """What the table says, and what was done about it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[UUID, tuple[str, list[str]]] = {}
        self.done: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.slow = asyncio.Event()
        self.slow.set()
        known: dict[str, Any] = {}
        self.targets: Any
        self.targets = SimpleNamespace(
            engine=SimpleNamespace(begin=self.transaction),
            broker=SimpleNamespace(declare=self.declare, remove=self.remove),
            breakers={}, throttles={}, start=self.start,
        )  # fmt: skip
        self.subject = Subscriptions(self.targets, known, ())
        monkeypatch.setattr(subscriptions, "run", self.run)

    async def run(self, _: Any, name: str, **__: Any) -> list[Any]:
        rows = self.rows.items() if name == "running" else ()
        return [SimpleNamespace(id=id_, url=url, secrets=keys) for id_, (url, keys) in rows]

    @asynccontextmanager
    async def transaction(self) -> Any:
        yield None

    async def declare(self, *queues: Any) -> None:
        self.done.append(("declare", queues[0].name))

    async def remove(self, *queues: Any) -> None:
        self.done.append(("remove", queues[0].name))

    async def start(self, service: Service, name: str, target: Any, _: Any) -> None:
        if name in self.broken:
            raise ValueError(name)
        self.done.append(("start", name))
        self.targets.breakers[name] = target

        @asynccontextmanager
        async def resource() -> Any:
            yield
            await self.slow.wait()
            self.done.append(("stop", name))

        await service.enter(resource())

    async def follow(self) -> list[tuple[str, str]]:
        """Follow, and return what was done, but for queues."""
        self.done.clear()
        await self.subject.follow()
        await asyncio.sleep(0.01)
        return [each for each in self.done if each[0] in {"start", "stop"}]


@pytest.fixture
async def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


async def test_one_that_cannot_start_is_tried_again_and_stops_no_other(table: Table) -> None:
    table.rows = {ONE: ("https://a.example", ["whsec_!"]), TWO: ("https://b.example", [SECRET])}
    assert await table.follow() == [("start", target_of(TWO))]
    table.rows[ONE] = ("https://a.example", [SECRET])
    table.broken = {target_of(ONE)}
    assert await table.follow() == []
    table.broken.clear()
    await table.follow()
    assert await table.follow() in ([], [("start", target_of(ONE))])
    assert table.subject.known.keys() == {target_of(ONE), target_of(TWO)}


async def test_one_that_takes_its_time_to_end_holds_up_no_other(table: Table) -> None:
    table.rows = {ONE: ("https://a.example", [SECRET])}
    await table.follow()
    table.slow.clear()
    table.rows = {TWO: ("https://b.example", [SECRET])}
    assert await table.follow() == [("start", target_of(TWO))]
    table.rows[ONE] = ("https://a.example", [SECRET])
    assert await table.follow() == []  # its old part is still ending
    table.slow.set()
    await asyncio.sleep(0.01)
    assert await table.follow() == [("start", target_of(ONE))]


async def test_a_process_that_stops_ends_all_and_starts_none(table: Table) -> None:
    table.rows = {ONE: ("https://a.example", [SECRET])}
    async with aclosing(table.subject):
        await table.follow()
        table.done.clear()
    assert table.done == [("stop", target_of(ONE))]
    assert await table.follow() == []
