"""What an ops person sees in RabbitMQ's management UI."""

from typing import Any

import pytest

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
