"""The console's message to alerts matches the golden file that alerts reads."""

from datetime import UTC, datetime
from uuid import UUID

from services.console import messages
from tests.support.contracts import golden

AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)


def test_a_mail_to_staff_matches_its_contract() -> None:
    body = golden("alert.accepted.staff")
    assert messages.staff_mail(UUID(body["id"]), body["payload"], AT) == body
