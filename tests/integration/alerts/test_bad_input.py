"""What each route refuses: with the field named, and nothing changed."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from libs.common import beside
from tests.integration.alerts.conftest import StartAlerts
from tests.integration.alerts.test_case_http import opened, sections

pytestmark = pytest.mark.promise("P9", "P15")

TABLES = [
    "case_answer",
    "heartbeat_watch",
    "silence",
    "oncall_override",
    "quiet_hours",
    "subscription",
]


async def test_what_makes_no_sense_is_refused_with_its_place(alerts: StartAlerts) -> None:
    named = sections(within="1h")
    named["answers"]["heartbeat.missed"] = named["answers"]["lead.qualified"]
    subject = await alerts(sections=named, routes={"heartbeat.missed": ["slack"]})
    now = datetime.now(UTC)
    values = {
        "$case": str(await opened(subject)),
        "$past": (now - timedelta(hours=1)).isoformat(),
        "$now": now.isoformat(),
        "$soon": (now + timedelta(hours=2)).isoformat(),
        "$long": "x" * 501,
        '"$none"': "null",
    }
    text = json.dumps(beside.toml(__file__))
    for name, value in values.items():
        text = text.replace(name, value)
    said = json.loads(text)
    for ask, body, fields, *status in said["refused"]:
        method, path = ask.split(" ")
        whole = said["whole"].get(path, {}) | body if method != "GET" else None
        caller = "service" if path.startswith("/api/cases") else "admin"
        sent = await subject.http(method, path, whole, caller, Idempotency_Key=str(uuid4()))
        found = [each["field"] for each in sent[1].get("errors", ())]
        assert sent[0] == (status or [422])[0], (ask, body, sent)
        assert fields in (found, ["*"]), (ask, body, sent)
    counts = [await subject.scalar(f"SELECT count(*) FROM {table}") for table in TABLES]
    assert dict(zip(TABLES, counts, strict=True)) == dict.fromkeys(TABLES, 0)
