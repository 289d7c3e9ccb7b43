"""What no client should send: refused with its field named, and never our failure."""

import base64
import json
import uuid
from pathlib import Path

import pytest
import yaml

from tests.support.eventually import eventually
from tests.support.stack import Stack


def cursor(at: str, target: str = "slack") -> str:
    text = json.dumps([at, str(uuid.UUID(int=1)), target])
    return base64.urlsafe_b64encode(text.encode()).decode()


ROWS = yaml.safe_load(Path(__file__).with_name("bad_input.yaml").read_text(encoding="utf-8"))
FAR = f"GET admin /api/dlq/failed?cursor={cursor('0001-01-01T00:00:00+23:00')}"
NUL = f"GET admin /api/dlq/failed?cursor={cursor('2026-01-01T00:00:00+00:00', chr(0))}"


async def test_what_makes_no_sense_is_refused_and_never_our_failure(stack: Stack) -> None:
    for said, status, *body in (*ROWS, (FAR, 422), (NUL, 422)):
        method, key, path = said.split(" ", 2)
        answer = await stack.http(method, path, *body, key=None if key == "nobody" else key)
        assert answer.status == status, (said, answer)
        of_problem = answer.headers["Content-Type"].startswith("application/problem+json")
        assert of_problem or status != 422, said


async def test_a_moment_of_any_offset_is_understood(stack: Stack) -> None:
    chosen = {"since": "0697-02-26T23:08:25-23:44", "status": "failed"}
    answer = await stack.http("POST", "/api/dlq/retry", chosen, key="admin")
    assert (answer.status, answer.body["matched"]) == (200, 0)


NUMBERS = [
    *("0", "-1", "1.50", "0.1", "0.30000000000000004", "1e3", "-2.5E-7", "6.02214076e23", "1e39"),
    *("9007199254740993", "9" * 40, f"-{'9' * 40}", "1e-39", "-0.0", "100E-2", "-0", "0e5", "1E+3"),
    *("0.10000000000000001", "1.7976931348623157", f"1.{'0' * 500}", "-9.99e39"),
]


async def test_a_number_arrives_as_it_was_sent(stack: Stack) -> None:
    text = f"numbers {uuid.uuid4()}"
    payload = f'{{"text": "{text}", "numbers": [{",".join(NUMBERS)}]}}'
    headers = {"Content-Type": "application/json", "X-API-KEY": stack.values["SERVICE_API_KEY"]}
    one = f'{{"event_type": "webhook", "payload": {payload}}}'
    for path, body in (("/api/alerts", one), ("/api/alerts/batch", f'{{"alerts": [{one}]}}')):
        assert (await stack.http("POST", path, raw=body, headers=headers)).status == 202

    async def arrived() -> list[list[float]] | None:
        got = [each["body"]["data"] for each in await stack.sandbox.received("webhook")]
        found = [data["numbers"] for data in got if data.get("text") == text]
        return found if len(found) == 2 else None

    for numbers in await eventually(arrived):
        for sent, got in zip(NUMBERS, numbers, strict=True):
            assert float(got) == float(sent)
            assert not sent.lstrip("-").isdigit() or got == int(sent)


@pytest.mark.parametrize("path", ["/api/alerts", "/api/alerts/batch"])
async def test_numbers_that_would_grow_are_refused_by_name(stack: Stack, path: str) -> None:
    alert = {"event_type": "webhook", "payload": {"a": [1e308] * 1000}}
    body = {"alerts": [alert]} if path.endswith("batch") else alert
    answer = await stack.http("POST", path, body, key="service")
    assert answer.status == 422, answer
    assert answer.body["errors"][0]["field"].endswith("payload.a.0")
