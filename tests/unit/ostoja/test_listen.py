"""`ostoja listen`: events of the API at a program on this machine, signed."""

import json

from standardwebhooks import Webhook

from tests.unit.ostoja.conftest import Gateway, Run

EVENT = {
    "type": "lead.closed", "id": "6f6d4c52-6a0e-4b58-8f39-2d54a8c0f0aa",
    "timestamp": "2026-11-25T10:15:30+00:00", "data": {"state": "won", "by": "Łucja"},
}  # fmt: skip


def test_each_event_is_posted_once_with_a_signature_that_the_public_library_verifies(
    run: Run, gateway: Gateway
) -> None:
    gateway.answers = [
        (200, {"items": [EVENT], "next_cursor": "8"}), (204, b""),
        (401, {"title": "Unauthorized"}),
    ]  # fmt: skip
    done = run("listen", "--forward", f"{gateway.url}/hook", "--after", "7")
    assert done.exit_code == 4
    (first, posted, again) = gateway.asked
    assert (first[1], again[1]) == ("/api/events?after=7", "/api/events?after=8")
    assert (posted[0], posted[1], posted[2]) == ("POST", "/hook", EVENT)
    secret = done.stdout.splitlines()[0].removeprefix("secret: ")
    headers = {name.lower(): value for name, value in posted[3].items()}
    assert "x-admin-api-key" not in headers
    body = json.dumps(EVENT, ensure_ascii=False)
    assert Webhook(secret).verify(body, headers) == EVENT
    assert f"lead.closed {EVENT['id']} -> 204" in done.stdout


def test_a_program_that_refuses_or_is_away_stops_nothing(run: Run, gateway: Gateway) -> None:
    gateway.answers = [
        (200, {"items": [EVENT, EVENT], "next_cursor": "8"}), (500, b""), (404, b""),
        (401, {"title": "Unauthorized"}),
    ]  # fmt: skip
    done = run("listen", "--forward", f"{gateway.url}/hook")
    assert [line.rpartition(" ")[2] for line in done.stdout.splitlines()[1:]] == ["500", "404"]
    gateway.answers = [(200, {"items": [EVENT], "next_cursor": "8"}), (401, {"title": "No"})]
    gateway.asked.clear()
    assert "refused" in run("listen", "--forward", "http://127.0.0.1:9/").stdout.lower()
