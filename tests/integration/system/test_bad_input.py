"""What no client should send: refused with its field named, and never our failure."""

import base64
import json
import uuid

import aiohttp
import pytest

from tests.support.eventually import eventually
from tests.support.stack import Stack


def cursor(at: str, target: str = "slack") -> str:
    text = json.dumps([at, str(uuid.UUID(int=1)), target])
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/api/dlq/failed?target=%00", "admin"),
        ("/api/dlq/failed?event_type=a%00b", "admin"),
        ("/api/dlq/failed?since=never", "admin"),
        ("/api/dlq/failed?until=0001-01-01T00:00:00%2B23:00", "admin"),
        ("/api/dlq/failed?limit=0", "admin"),
        ("/api/dlq/failed?limit=1e3", "admin"),
        ("/api/dlq/failed?colour=red", "admin"),
        (f"/api/dlq/failed?cursor={cursor('0001-01-01T00:00:00+23:00')}", "admin"),
        (f"/api/dlq/failed?cursor={cursor('2026-01-01T00:00:00+00:00', chr(0))}", "admin"),
        ("/api/dlq/failed?cursor=nonsense", "admin"),
        ("/api/followups?email=a%00@example.com", "service"),
        ("/api/followups?conversation_id=%00", "service"),
        (f"/api/followups?conversation_id={uuid.UUID(int=1)}&cursor=%00", "service"),
        ("/api/consent/audit/a%00@example.com", "admin"),
        ("/api/consent/audit/anna@example.com?cursor=-1", "admin"),
        ("/api/unsubscribe/status/%00", None),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused_by_name(
    stack: Stack, path: str, key: str | None
) -> None:
    answer = await stack.http("GET", path, key=key)
    assert answer.status == 422, answer
    assert answer.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/api/alerts/%00", "service", 404),
        ("/api/alerts/batch", "service", 405),
        ("/unsubscribe?token=%00", None, 400),
        ("/erasure/confirm?token=%ED%A0%80", None, 400),
        ("/erasure/confirm", None, 400),
    ],
)
async def test_a_missing_object_is_404(
    stack: Stack, path: str, key: str | None, status: int
) -> None:
    assert (await stack.http("GET", path, key=key)).status == status


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/dlq/cleanup", {"older_than_hours": False}),
        ("/api/dlq/cleanup", {"older_than_hours": "1"}),
        ("/api/dlq/cleanup", {"older_than_hours": 87_601}),
        ("/api/dlq/retry", {"until": 0}),
        ("/api/dlq/retry", {"until": "0001-01-01T00:00:00+23:00"}),
        ("/api/dlq/retry", {}),
        ("/api/dlq/discard", {"reason": "x"}),
        ("/api/dlq/resolve", {"id": "1", "outcome": "delivered", "reason": "x"}),
        ("/api/consent/erase", {"email": "a\0@example.com"}),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused(
    stack: Stack, path: str, body: dict[str, object]
) -> None:
    answer = await stack.http("POST", path, body, key="admin")
    assert answer.status == 422, answer


async def test_a_moment_of_any_offset_is_understood(stack: Stack) -> None:
    chosen = {"since": "0697-02-26T23:08:25-23:44", "status": "failed"}
    answer = await stack.http("POST", "/api/dlq/retry", chosen, key="admin")
    assert (answer.status, answer.body["matched"]) == (200, 0)


NUMBERS = [
    *("0", "-1", "1.50", "0.1", "0.30000000000000004", "1e3", "-2.5E-7", "6.02214076e23", "1e39"),
    *("9007199254740993", "9" * 40, f"-{'9' * 40}", "1e-39", "-0.0", "100E-2"),
]


async def test_a_number_arrives_as_it_was_sent(stack: Stack) -> None:
    text = f"numbers {uuid.uuid4()}"
    payload = f'{{"text": "{text}", "numbers": [{",".join(NUMBERS)}]}}'
    headers = {"Content-Type": "application/json", "X-API-KEY": stack.values["SERVICE_API_KEY"]}
    one = f'{{"event_type": "webhook", "payload": {payload}}}'
    for path, body in (("/api/alerts", one), ("/api/alerts/batch", f'{{"alerts": [{one}]}}')):
        async with (
            aiohttp.ClientSession() as session,
            session.post(stack.url + path, data=body, headers=headers) as answer,
        ):
            assert answer.status == 202, await answer.text()

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
