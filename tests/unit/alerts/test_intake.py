"""What intake publishes together."""

import asyncio
import base64
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from libs.common import beside
from libs.common.messaging.broker import Broker, Message
from libs.common.process import tasks
from services.alerts.channels.slack import SlackTarget
from services.alerts.config import targets as config
from services.alerts.intake import MAX_BATCH, Intake
from services.alerts.messages import AlertAccepted
from services.alerts.rules.subjects import Subjects
from services.alerts.store.ledger.intake import Taken
from tests.support.consumers import until

TABLE = beside.toml(__file__)
CONFIG = """
[routes]
"slack_alert" = ["slack"]
"escalation" = ["slack"]
"consent.mail" = ["slack", "mail", "other"]
[targets.slack]
channel = "slack"
url = { env = "SLACK_WEBHOOK_URL" }
""" + "".join(
    f'[targets.{name}]\nchannel = "email"\nhost = "h"\nport = 25\n'
    'sender = "a@b.pl"\nto = "c@b.pl"\n'
    for name in ("mail", "other")
)
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
        self.under_way += sum(len(each.body.get("works", "1")) for each in works)
        await asyncio.Event().wait()


@pytest.fixture
def intake_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[object], Intake]:
    """Make an intake with this broker; every row can be written."""

    async def written(_: Intake, batch: Sequence[object]) -> list[Taken]:
        return [Taken(0, 0, {}, ())] * len(batch)

    monkeypatch.setattr(Intake, "_write", written)
    file = tmp_path / "alerts.toml"
    file.write_text(CONFIG)
    configured, _ = config.load(file, {"SLACK_WEBHOOK_URL": "https://hooks.example"})
    subjects = Subjects(SUBJECT_KEYS)
    return lambda broker: Intake(configured, cast("Any", None), cast("Broker", broker), subjects)


async def test_concurrent_batches_are_bounded_so_that_confirms_come_in_time(
    intake_with: Callable[[object], Intake],
) -> None:
    broker = Unanswering()
    intake = intake_with(broker)
    handling = [asyncio.create_task(intake.handle(batch(*some_ids()))) for _ in range(MAX_BATCH)]
    await until(lambda: broker.under_way >= TOGETHER)
    await asyncio.sleep(0.5)  # time enough for all the others
    assert broker.under_way <= 2 * TOGETHER
    await tasks.end(*handling)


@pytest.mark.parametrize(("changes", "processes", "rows"), TABLE["holds"])
def test_a_message_holds_what_is_soon_sent(
    changes: dict[str, Any], processes: int, rows: int
) -> None:
    target = SlackTarget.model_construct(retry_delays=(300,), **changes)
    assert target.together(processes) == rows


def test_a_mail_that_needs_a_permit_has_one_target(intake_with: Callable[[object], Intake]) -> None:
    """Two would share the permit of an attempt, and one of them would return it for both."""
    once = {"address": "a@example.com", "purpose": "opt-in", "reference": "r"}
    mail = body(str(uuid.uuid4())) | {"event_type": "consent.mail", "once": once}
    rows = intake_with(Unanswering()).rows(AlertAccepted.model_validate(mail), None)
    assert [row.target for row in rows] == ["mail"]


def some_ids() -> list[str]:
    return [str(uuid.uuid4()) for _ in range(TOGETHER)]


def body(alert_id: str) -> dict[str, Any]:
    return {
        "id": alert_id,
        "event_type": "slack_alert",
        "payload": {},
        "source": "gateway",
        "accepted_at": "2026-11-25T10:15:30+00:00",
    }


def batch(*ids: str) -> Message:
    return Message(str(uuid.uuid4()), "alerts.accepted", {"alerts": list(map(body, ids))})
