"""The shipped templates of a lead, as Slack and Monday.com get them."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from services.alerts.channels.templates import Templates
from services.alerts.rules.delivery import Claimed
from tests.support.contracts import golden
from tests.support.shipped import EXAMPLE

PREVIOUS = {"id": "1", "state": "won", "owner": "Jan <!channel> Kos"}


def rendered(file: str, **payload: Any) -> dict[str, Any]:
    templates = Templates(EXAMPLE / "templates")
    templates.add("here", "lead.qualified", file)
    now = datetime.now(UTC)
    job = Claimed(
        alert_id=uuid.uuid4(), target="here", event_type="lead.qualified", accepted_at=now,
        payload=golden("lead.qualified") | payload, request_id=None, due_at=now,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(templates.render("here", job) or "")
    return found


@pytest.mark.parametrize(
    ("language", "kind", "before"),
    [
        ("pl", "Klient wraca: ", "*Poprzednio:* wygrany, Jan &lt;!channel&gt; Kos"),
        ("en", "Returning customer: ", "*Before:* won, Jan &lt;!channel&gt; Kos"),
    ],
)
def test_both_say_that_a_customer_returns(language: str, kind: str, before: str) -> None:
    slack = rendered("slack-lead.j2", staff_language=language, previous=PREVIOUS)
    assert slack["text"].startswith(kind)
    assert before in [each["text"]["text"] for each in slack["blocks"] if "text" in each]
    monday = rendered("monday-lead.j2", staff_language=language, previous=PREVIOUS)
    assert monday["column_values"]["summary"].startswith(kind.removesuffix(": "))
