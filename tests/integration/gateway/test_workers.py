"""GATEWAY_WORKERS=2: one gateway to its clients, whatever happens to one of its processes."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.gateway.conftest import (
    ADMIN,
    Gateway,
    Owner,
    StartGateway,
    alive,
    ended,
    workers_of,
)
from tests.integration.gateway.test_limits import counted_by_redis, flood
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports

pytestmark = pytest.mark.promise("P8")

TWO = {"GATEWAY_WORKERS": "2"}
PATH = "/api/unsubscribe/status/a@example.com"
PLENTY = {"API_RATE_LIMIT_MINUTE": "100000 per minute", "API_RATE_LIMIT_HOUR": "100000 per hour"}


@pytest.fixture(scope="module")
def metrics_port(ports: Ports) -> int:
    return ports.take()


def files_of(gateway: Gateway) -> set[str]:
    environment = Path(f"/proc/{workers_of(gateway)[0]}/environ").read_text().split("\0")
    folder = dict(each.partition("=")[::2] for each in environment)["PROMETHEUS_MULTIPROC_DIR"]
    return {path.name for path in Path(folder).iterdir()}


async def started(gateway: Gateway, workers: int) -> None:
    """Wait until so many workers have started in all, and their supervisor."""
    await until(lambda: gateway.log.read_text().count("service.started") == workers + 1)


async def ask(gateway: Gateway, path: str = PATH) -> int:
    """Ask over a connection of its own: the kernel gives it to any of the workers."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(gateway.url + path) as answer,
    ):
        return answer.status


async def metric(port: int, name: str, **labels: str) -> float:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{HOST}:{port}/metrics") as answer,
    ):
        text = await answer.text()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_of_200_at_once_with_forged_headers_exactly_30_pass_over_two_workers(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(CHAT_RATE_LIMIT="30 per day", **TWO)
    await started(gateway, workers=2)
    await eventually(lambda: both_see_redis(gateway))
    assert await counted_by_redis(partial(flood, 200), gateway) == {200: 30, 429: 170}


async def both_see_redis(gateway: Gateway) -> bool:
    for _ in range(12):  # over new connections, so that each worker is asked
        async with (
            aiohttp.ClientSession() as session,
            session.get(gateway.url + "/api/health/deep", headers=ADMIN) as answer,
        ):
            components = (await answer.json()).get("components")  # none from a busy worker
            if components is None or components["redis"]["status"] != "healthy":
                return False
    return True


async def test_the_metrics_of_all_workers_are_one_and_survive_the_death_of_one(
    start_gateway: StartGateway, metrics_port: int
) -> None:
    gateway = await start_gateway(METRICS_PORT=str(metrics_port), **TWO, **PLENTY)

    async def counted() -> float:
        route = "/api/unsubscribe/status/{email}"
        return await metric(metrics_port, "http_requests_total", route=route, status="200")

    await started(gateway, workers=2)
    assert {await ask(gateway) for _ in range(40)} == {200}
    assert await counted() == 40
    assert await metric(metrics_port, "gateway_redis_connected") == 1
    for worker in ("0", "1"):
        resident = await metric(metrics_port, "gateway_worker_memory_bytes", worker=worker)
        assert 20e6 < resident < 500e6
    files = files_of(gateway)
    os.kill(workers_of(gateway)[0], signal.SIGKILL)
    await started(gateway, workers=3)
    assert files_of(gateway) == files
    assert await counted() == 40
    assert {await ask(gateway) for _ in range(40)} == {200}
    assert await counted() == 80
    assert await metric(metrics_port, "gateway_worker_restarts_total") == 1


async def test_while_one_worker_is_dead_the_others_answer(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**TWO, **PLENTY)
    await started(gateway, workers=2)
    for times in (1, 2):  # the second time it waits before it starts again
        os.kill(workers_of(gateway)[-1], signal.SIGKILL)
        refused = 0
        for _ in range(50):
            try:
                assert await ask(gateway) == 200
            except aiohttp.ClientConnectionError:
                refused += 1  # it was in the dead one's queue
        assert refused <= 2
        await started(gateway, workers=2 + times)


async def test_sigterm_lets_each_worker_finish_its_requests(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(**TWO)
    pids = workers_of(gateway)
    finish = owner.hold()
    asking = [asyncio.create_task(ask(gateway)) for _ in range(12)]
    await until(lambda: len(owner.of(PATH)) == 12)
    gateway.process.send_signal(signal.SIGTERM)

    async def closed() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex((HOST, int(gateway.url.rpartition(":")[2]))) != 0

    await eventually(closed)
    finish.set()
    assert await asyncio.gather(*asking) == [200] * 12
    assert await asyncio.to_thread(gateway.process.wait, 35) == 0
    assert not any(alive(pid) for pid in pids)
    assert "task_died" not in gateway.log.read_text()


async def test_workers_end_with_a_supervisor_that_was_killed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**TWO)
    pids = workers_of(gateway)
    assert len(pids) == 2
    gateway.process.kill()
    await ended(pids)


@pytest.fixture
def taken_port(ports: Ports) -> Iterator[int]:
    port = ports.take()
    with closing(socket.socket()) as listener:
        listener.bind((HOST, port))
        listener.listen()
        yield port


async def test_workers_that_cannot_start_end_the_supervisor(
    start_gateway: StartGateway, taken_port: int
) -> None:
    with pytest.raises(RuntimeError, match=r"worker \d cannot start, it ended with 1"):
        await start_gateway(HTTP_PORT=str(taken_port), **TWO)
