"""How much of what waits is under way at a time."""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from libs.common import tasks
from libs.common.broker import Broker, Message
from libs.common.consume import Delivery
from services.alerts import config
from services.alerts.consumers import MAX_BATCH, Intake
from services.alerts.store.intake import NewRow, Taken
from tests.support.eventually import eventually

CONFIG = """
[routes]
"slack_alert" = ["slack"]
"escalation" = ["slack"]
[targets.slack]
channel = "slack"
url = { env = "SLACK_WEBHOOK_URL" }
"""
TOGETHER = 100


class Unanswering:
    """A broker that confirms nothing."""

    def __init__(self) -> None:
        self.under_way = 0

    async def publish(self, *_: object) -> None:
        self.under_way += 1
        await asyncio.Event().wait()


async def test_so_few_of_many_batches_are_under_way_that_each_confirm_comes_in_its_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def written(_: Intake, batch: Sequence[list[NewRow]]) -> list[Taken]:
        return [Taken(0, {})] * len(batch)

    monkeypatch.setattr(Intake, "_write", written)
    file = tmp_path / "alerts.toml"
    file.write_text(CONFIG)
    configured, _ = config.load(file, {"SLACK_WEBHOOK_URL": "https://hooks.example"})
    broker = Unanswering()
    intake = Intake(configured, cast("Any", None), cast("Broker", broker))
    delivery = Delivery(redelivered=False, death_count=0)
    handling = [asyncio.create_task(intake.handle(batch(), delivery)) for _ in range(MAX_BATCH)]

    async def begun() -> bool:
        return broker.under_way >= TOGETHER

    await eventually(begun)
    await asyncio.sleep(0.5)  # in which all the others would follow
    assert broker.under_way <= 2 * TOGETHER
    await tasks.end(*handling)


def batch() -> Message:
    alerts = [
        {
            "id": str(uuid.uuid4()),
            "event_type": "slack_alert",
            "payload": {},
            "source": "gateway",
            "accepted_at": "2026-11-25T10:15:30+00:00",
        }
        for _ in range(TOGETHER)
    ]
    return Message(str(uuid.uuid4()), "alerts.accepted", {"alerts": alerts})
