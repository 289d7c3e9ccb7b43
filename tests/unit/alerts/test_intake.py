"""How many batches intake processes at a time."""

import asyncio
import base64
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from libs.common.messaging.broker import Broker, Message
from libs.common.messaging.consumer import Delivery
from libs.common.process import tasks
from services.alerts import config
from services.alerts.intake import MAX_BATCH, Intake
from services.alerts.store.intake import NewRow, Taken
from services.alerts.subjects import Subjects
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
SUBJECT_KEYS = f"k1:{base64.b64encode(bytes(32)).decode()}"


class Unanswering:
    """A broker that confirms nothing."""

    def __init__(self) -> None:
        self.under_way = 0

    def encode(self, message: Message) -> Message:
        return message

    async def send_all(
        self, _exchange: str, _key: str, works: Sequence[Message], **_: object
    ) -> None:
        self.under_way += len(works)
        await asyncio.Event().wait()


async def test_concurrent_batches_are_bounded_so_that_confirms_come_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def written(_: Intake, batch: Sequence[list[NewRow]]) -> list[Taken]:
        return [Taken(0, {})] * len(batch)

    monkeypatch.setattr(Intake, "_write", written)
    file = tmp_path / "alerts.toml"
    file.write_text(CONFIG)
    configured, _ = config.load(file, {"SLACK_WEBHOOK_URL": "https://hooks.example"})
    broker = Unanswering()
    subjects = Subjects(SUBJECT_KEYS)
    intake = Intake(configured, cast("Any", None), cast("Broker", broker), subjects)
    delivery = Delivery(redelivered=False)
    handling = [asyncio.create_task(intake.handle(batch(), delivery)) for _ in range(MAX_BATCH)]

    async def begun() -> bool:
        return broker.under_way >= TOGETHER

    await eventually(begun)
    await asyncio.sleep(0.5)  # time enough for all the others
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
