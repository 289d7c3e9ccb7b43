"""The shipped templates, as each target gets them."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from libs.common import beside
from services.alerts.config import targets as config
from services.alerts.rules.delivery import Claimed
from tests.unit.alerts.test_config import ENV, SHIPPED

SAID = beside.toml(__file__)
_, TEMPLATES = config.load(SHIPPED, ENV)


def rendered(target: str, event: str = "lead.qualified", **payload: Any) -> str:
    now = datetime.now(UTC)
    job = Claimed(uuid4(), target, event, SAID["known"] | payload, now, now, None)
    return TEMPLATES.render(target, job) or ""


@pytest.mark.parametrize("row", SAID["message"], ids=lambda row: row["case"])
def test_a_message_says_what_its_reader_needs(row: dict[str, Any]) -> None:
    text = rendered(row["target"], row["event"], **row["payload"])
    if text.startswith("{"):
        whole = json.loads(text)
        text = f"{whole.get('text', '')}\n{json.dumps(whole, ensure_ascii=False)}"
    assert text.startswith(row.get("begins", ""))
    assert [each for each in row.get("has", ()) if each not in text] == []
    assert [each for each in row.get("lacks", ()) if each in text] == []


def test_monday_gets_a_phone_in_its_documented_form_and_no_empty_columns() -> None:
    item = json.loads(rendered("monday", phone="+48600700800", phone_country="PL", email=None))
    assert item["item_name"] == "+48600700800"
    assert item["column_values"]["phone"] == {"phone": "+48600700800", "countryShortName": "PL"}
    assert "email" not in item["column_values"]


def test_a_visitors_text_cannot_break_json_or_notify_a_channel() -> None:
    text = rendered("slack", name='"}] <!channel> \\', summary="<!here>\n{{ 7*7 }}")
    json.loads(text)
    assert "<!" not in text
    assert "{{ 7*7 }}" in text
    assert json.loads(rendered("monday", name='"quoted" \\'))["item_name"] == '"quoted" \\'
