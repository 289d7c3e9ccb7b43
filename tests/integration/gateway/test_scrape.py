"""/metrics/all: one scrape of every process, whichever of them is sick."""

import asyncio
import re
import socket
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deploy.local.environment import SERVICES
from libs.common import serving
from libs.common.service import Service
from services.gateway.scrape import ANSWER_SECONDS, Scrape
from tests.conftest import NewStack
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.promql import selectors
from tests.support.servers import frozen
from tests.support.stack import Stack
from tests.unit.deploy.test_prometheus import rules

BROKERS = ("rabbitmq", "queues")
JOBS = (*SERVICES, *BROKERS)


async def scraped(port: int) -> list[Sample]:
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.get(f"http://{HOST}:{port}/metrics/all") as answer,
    ):
        text = await answer.text()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


async def of(stack: Stack) -> list[Sample]:
    return await scraped(int(stack.values["GATEWAY_METRICS_PORT"]))


def up(samples: list[Sample]) -> dict[str, float]:
    return {each.labels["job"]: each.value for each in samples if each.name == "up"}


async def test_one_scrape_has_every_process(stack: Stack) -> None:
    await stack.alert("counted")
    samples = await of(stack)

    assert up(samples) == dict.fromkeys(JOBS, 1)
    assert {
        each.labels["job"] for each in samples if each.name == "process_start_time_seconds"
    } == {*SERVICES, "rabbitmq"}
    ports = {each.labels["job"]: each.labels["instance"] for each in samples if each.name == "up"}
    assert ports == {
        **{name: f"{HOST}:{stack.values[f'{name.upper()}_METRICS_PORT']}" for name in SERVICES},
        **dict.fromkeys(BROKERS, f"{HOST}:{stack.rabbitmq.metrics_port}"),
    }

    async def counted() -> bool:  # by RabbitMQ, every few seconds
        queues = {
            each.labels["queue"]
            for each in await of(stack)
            if each.name == "rabbitmq_detailed_queue_messages"
        }
        return {"alerts.intake", "consent.commands.dead"} <= queues

    await eventually(counted, 30)


async def test_whatever_a_rule_asks_for_is_in_the_one_scrape(stack: Stack) -> None:
    await stack.alert("counted")
    asked = {
        (selector.metric, value)
        for rule in rules()
        for selector in selectors(rule["expr"])
        for value in ([value for name, _, value in selector.matchers if name == "job"] or [".*"])
    }

    async def found() -> bool:
        samples = await of(stack)
        return all(
            any(each.name == name and re.fullmatch(job, each.labels["job"]) for each in samples)
            for name, job in asked
        )

    await eventually(found, 30)


async def test_a_dead_service_is_down_and_the_others_are_told(stack: Stack) -> None:
    await stack.kill9("consent")
    try:
        samples = await of(stack)
    finally:
        await stack.start("consent")

    assert up(samples) == {**dict.fromkeys(JOBS, 1), "consent": 0}


async def test_a_service_that_hangs_costs_a_bounded_time(stack: Stack) -> None:
    clock = asyncio.get_running_loop().time
    with frozen(stack.pid("followups")):
        start = clock()
        samples = await of(stack)
        took = clock() - start

    assert up(samples) == {**dict.fromkeys(JOBS, 1), "followups": 0}
    assert took < 3 * ANSWER_SECONDS


async def test_several_workers_are_one_gateway(new_stack: NewStack) -> None:
    stack = await asyncio.to_thread(new_stack, GATEWAY_WORKERS="2")
    await stack.alert("counted once, by whichever worker")

    async def supervisor() -> Any:
        with suppress(aiohttp.ClientError):  # it listens once all workers serve
            return await of(stack)

    samples = await eventually(supervisor)

    assert up(samples) == dict.fromkeys(JOBS, 1)
    accepted = [each.value for each in samples if each.name == "gateway_alerts_accepted_total"]
    assert sum(accepted) == 1


async def test_each_replica_behind_a_name_is_scraped(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, service = ports.take(), Service("test")
    for number, address in enumerate(("127.0.0.1", "127.0.0.2")):
        registry = CollectorRegistry()
        Gauge("number", "Which replica.", registry=registry).set(number)
        await serving.serve_metrics(service, address, port, registry)

    everything = Scrape(CollectorRegistry(), {"alerts": ("alerts", port, "/metrics")})
    own = ports.take()
    more = [web.get("/metrics/all", everything.handle)]
    await serving.serve_metrics(service, HOST, own, CollectorRegistry(), more)

    async def resolve(*_: Any, **__: Any) -> list[Any]:
        """What containers' DNS says of three replicas, one of them just gone; and of IPv6."""
        found = [(socket.AF_INET, ip) for ip in ("127.0.0.2", "127.0.0.1", "127.0.0.3")]
        found.append((socket.AF_INET6, "::1"))
        return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for family, ip in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    samples = await scraped(own)
    monkeypatch.undo()
    await service.close()

    def by_instance(name: str) -> dict[str, float]:
        return {
            each.labels["instance"].partition(":")[0]: each.value
            for each in samples
            if each.name == name and each.labels["job"] == "alerts"
        }

    assert by_instance("up") == {"127.0.0.1": 1, "127.0.0.2": 1, "127.0.0.3": 0}
    assert by_instance("number") == {"127.0.0.1": 0, "127.0.0.2": 1}
