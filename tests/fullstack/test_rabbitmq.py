"""What an ops person sees in RabbitMQ's management UI."""

import re
from typing import Any

import pytest

from deploy.provision import RIGHTS
from tests.fullstack.conftest import Running
from tests.support.eventually import eventually

pytestmark = pytest.mark.fullstack


async def _queues(system: Running) -> dict[str, dict[str, Any]]:
    """Return the queues by name, once the API knows all of each: it samples every 5 seconds."""

    async def known() -> list[dict[str, Any]]:
        found = await system.rabbitmq("queues")
        return found if all("consumers" in queue for queue in found) else []

    return {queue["name"]: queue for queue in await eventually(known, 30)}


async def test_each_target_has_a_work_a_retry_and_a_dead_queue_that_lose_nothing(
    system: Running,
) -> None:
    queues = await _queues(system)
    breakers = (await system.http("GET", "/api/breakers", key="admin")).body
    for target in breakers:
        names = {f"alerts.{target}{part}" for part in ("", ".retry", ".dead")}
        assert names <= queues.keys()
        assert {queues[name]["type"] for name in names} == {"quorum"}
        arguments = queues[f"alerts.{target}"]["arguments"]
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"
        assert "message-ttl" in queues[f"alerts.{target}.retry"]["effective_policy_definition"]


async def test_messages_can_be_moved_in_the_ui(system: Running) -> None:
    assert await system.rabbitmq("shovels") == []  # not 404: its plugin is there


async def test_only_its_service_may_configure_and_consume_a_queue(
    system: Running,
) -> None:
    async def consumed() -> bool:  # the drill before may have ended with a start of services
        queues = await _queues(system)
        owned = ("alerts.intake", "consent.commands", "followups.outcomes")
        return all(queues[name]["consumers"] >= 1 for name in owned)

    await eventually(consumed, 60, every=0.5)
    granted = {row["user"]: row for row in await system.rabbitmq("permissions")}
    assert granted.keys() == {"admin", *RIGHTS}
    for service, rights in RIGHTS.items():
        assert bool(re.fullmatch(granted[service]["configure"], f"{service}.x")) is rights.owns
        for other in RIGHTS.keys() - {service}:
            assert not re.fullmatch(granted[service]["configure"], f"{other}.anything")
