"""What an ops person sees in RabbitMQ's management UI."""

import re

import pytest

from deploy.provision import RIGHTS
from tests.fullstack.conftest import Running

pytestmark = pytest.mark.fullstack


async def test_each_target_has_a_work_a_retry_and_a_dead_queue_that_lose_nothing(
    system: Running,
) -> None:
    queues = {queue["name"]: queue for queue in await system.rabbitmq("queues")}
    breakers = (await system.http("GET", "/api/breakers", key="admin")).body
    for target in breakers:
        names = {f"alerts.{target}{part}" for part in ("", ".retry", ".dead")}
        assert names <= queues.keys()
        assert {queues[name]["type"] for name in names} == {"quorum"}
        arguments = queues[f"alerts.{target}"]["arguments"]
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"
        assert "message-ttl" in queues[f"alerts.{target}.retry"]["effective_policy_definition"]


async def test_every_service_is_connected_under_its_own_account(system: Running) -> None:
    queues = await system.rabbitmq("queues")
    for name in ("alerts.intake", "consent.commands"):
        assert next(queue for queue in queues if queue["name"] == name)["consumers"] >= 1
    granted = {row["user"]: row for row in await system.rabbitmq("permissions")}
    assert granted.keys() == {"admin", *RIGHTS}
    for service in RIGHTS:
        assert re.fullmatch(granted[service]["configure"], f"{service}.anything")
        for other in RIGHTS.keys() - {service}:
            assert not re.fullmatch(granted[service]["configure"], f"{other}.anything")
