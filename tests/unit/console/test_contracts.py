"""The console's message to alerts matches the golden file that alerts reads."""

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from services.console import messages

CONTRACT = Path(__file__).parents[2] / "contracts/alert.accepted.staff.json"
AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)


def test_a_mail_to_staff_matches_its_contract() -> None:
    body = json.loads(CONTRACT.read_text(encoding="utf-8"))
    assert messages.staff_mail(UUID(body["id"]), body["payload"], AT) == body
