"""What a command asks, prints and returns, whatever the gateway answers."""

import json
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from standardwebhooks import Webhook

from tests.support.cli import fits
from tests.unit.ostoja.conftest import Gateway, Run

ID = "9b2e8a52-0f0d-5c3b-8a44-1f6d3a1f2b7c"
BALANCED = {
    "ok": True, "accepted": 9, "delivered": 3, "pending": 6, "failed": 0, "discarded": 0,
    "in_doubt": 0, "stranded": 0,
}  # fmt: skip


ROWS: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8")
)


def filled(value: Any) -> Any:
    """Return what a row of commands.yaml means: ID, and times such as +3h or ~8h."""
    if isinstance(value, dict):
        return {name: filled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each) for each in value]
    if isinstance(value, str) and (found := re.fullmatch(r"([-+]|~-?)(\d+)h", value)):
        hours = int(found[2]) * (-1 if "-" in found[1] else 1)
        at = datetime.now(UTC) + timedelta(hours=hours, minutes=1)
        return About(at) if "~" in found[1] else at.isoformat()
    return value.replace("ID", ID) if isinstance(value, str) else value


@dataclass(eq=False)
class About:
    at: datetime
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, given: object) -> bool:
        return abs(datetime.fromisoformat(str(given)) - self.at) < timedelta(minutes=10)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["of"])
def test_a_command_asks_prints_and_returns(run: Run, gateway: Gateway, row: dict[str, Any]) -> None:
    gateway.answers = filled(row["answers"])

    done = run(*shlex.split(filled(row["typed"])), said=row.get("said", ""))

    assert done.exit_code == row.get("code", 0), done.output
    if "asked" in row:
        asked = [[*each] if each[2] is not None else [*each[:2]] for *each, _ in gateway.asked]
        assert asked == filled(row["asked"])
    assert done.stdout == filled(row.get("out", done.stdout))
    assert len(done.stdout.splitlines()) == row.get("lines", len(done.stdout.splitlines()))
    assert fits(done.stdout) or "--json" in row["typed"]
    shown = " ".join(done.stdout.split())
    assert [each for each in filled(row.get("shown", [])) if each not in shown] == []
    assert [each for each in row.get("err", []) if each not in done.stderr] == []


def test_each_answer_to_a_case_has_a_key_of_its_own(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"id": ID, "state": "open", "owner": None})]
    for _ in range(2):
        assert run("release", ID, "--as", "anna").exit_code == 0
    assert len({headers["Idempotency-Key"] for *_, headers in gateway.asked}) == 2


def row(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": str(uuid4()),
        "target": "slack",
        "event_type": "slack_alert",
        "severity": "info",
        "state": "pending",
        "status": "pending",
        "reason": "server_error",
        "error_message": "500 Internal Server Error",
        "attempts": 2,
        "created_at": (now - timedelta(hours=3)).isoformat(),
        "next_attempt_at": (now + timedelta(minutes=5)).isoformat(),
        "finished_at": None,
        **changes,
    }


def page(*rows: dict[str, Any], more: str | None = None) -> dict[str, Any]:
    return {"items": list(rows), "next_cursor": more}


def test_a_target_s_response_cannot_control_the_terminal(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, page(row(error_message="\x1b[2J\x07\u202e[red]no[/red]")))]

    done = run("pending")

    assert "[red]no[/red]" in done.stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)


def test_a_list_reads_pages_up_to_its_limit(run: Run, gateway: Gateway) -> None:
    gateway.answers = [
        (200, page(*(row() for _ in range(1000)), more="next")),
        (200, page(*(row() for _ in range(200)), more="further")),
    ]

    done = run("failed", "--limit", "1200", "--json")

    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 1200
    assert gateway.asked[1][1] == "/api/dlq/failed?limit=200&cursor=next"


def test_each_call_carries_the_key_and_the_operator(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, BALANCED)]

    run("ledger", "check")
    run("ledger", "check", OSTOJA_OPERATOR="żaneta\r\nX-Evil: 1")

    headers = gateway.asked[0][3]
    assert (headers["X-Admin-Api-Key"], headers["X-Operator"]) == ("the-key", "ola")
    assert "X-Evil" not in gateway.asked[1][3]


def test_a_key_with_scopes_has_one_header_for_all_it_may_do(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, BALANCED)]
    run("ledger", "check", OSTOJA_KEY="osk_own")
    headers = gateway.asked[0][3]
    assert headers["X-Api-Key"] == "osk_own"
    assert "X-Admin-Api-Key" not in headers


def test_a_global_option_may_follow_the_command(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, BALANCED)]

    before, behind = run("--json", "ledger", "check"), run("ledger", "check", "--json")

    assert json.loads(before.stdout) == json.loads(behind.stdout) == BALANCED


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 4), (403, 4), (404, 1), (409, 1), (422, 2), (429, 4), (500, 3), (503, 3)],
)
def test_a_refusal_is_one_line_with_an_exit_code(
    run: Run, gateway: Gateway, status: int, code: int
) -> None:
    gateway.answers = [(status, {"title": "T", "status": status, "detail": "so it is"})]
    gateway.headers = {"Retry-After": "7"}

    done = run("stats")

    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert ("7 seconds" if status == 429 else "so it is") in done.stderr
    assert "the-key" not in done.output


def test_an_invalid_gateway_url_fails_without_a_traceback(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, b"<html>")]

    assert run("stats").exit_code == 2
    assert run("stats", "--url", "file:///etc/passwd").exit_code == 2
    assert run("stats", "--url", "http://127.0.0.1:1").exit_code == 3
    assert run("stats", OSTOJA_URL="", GATEWAY_PORT="none").exit_code == 2


def test_a_redirect_does_not_forward_the_key(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(302, b"")]
    gateway.headers = {"Location": f"{gateway.url}/elsewhere"}

    done = run("stats")

    assert done.exit_code == 2
    assert len(gateway.asked) == 1


def test_nothing_is_sent_without_a_key(
    run: Run, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("GATEWAY_PORT=1\n")
    monkeypatch.chdir(tmp_path)

    done = run("stats", OSTOJA_KEY="", ADMIN_API_KEY="")

    assert done.exit_code == 2
    assert "OSTOJA_KEY" in done.stderr
    assert gateway.asked == []


WRONG = f"""
    pending --limit 0
    pending --since yesterday
    retry
    retry no-id
    retry --status delivered
    discard {ID}
    show no-id
    resolve {ID} --as sent --reason r
    limits set service '1 per second'
    followups stop --reason staff
    followups stop a@example.pl --reason bored
    take {ID}
    oncall override sales ewa --until soon
    silence add pump.alarm --until 8h
    silence add pump.alarm --why 'a repair'
    nonsense
"""


def test_nothing_is_sent_on_wrong_usage(run: Run, gateway: Gateway) -> None:
    for words in WRONG.strip().splitlines():
        assert run(*shlex.split(words)).exit_code == 2, words
    assert gateway.asked == []


def test_named_alerts_are_sent_in_batches(run: Run, gateway: Gateway) -> None:
    ids = [str(uuid4()) for _ in range(1001)]
    gateway.answers = [
        (200, {"matched": 1000, "requeued": 1000, "skipped": 0}),
        (200, {"matched": 0, "requeued": 0, "skipped": 0}),
    ]

    done = run("retry", *ids)

    assert [len(body["ids"]) for _, _, body, _ in gateway.asked] == [1000, 1]
    assert done.exit_code == 1
    assert "only 1000 of 1001 alerts" in done.stderr


def test_an_export_is_written_to_a_new_private_file(
    run: Run, gateway: Gateway, tmp_path: Path
) -> None:
    held = {"email": "a@example.pl", "services": {"consent": {}}, "incomplete": []}
    gateway.answers = [(200, held)]
    path = tmp_path / "export.json"

    first = run("consent", "export", "a+b/c@example.pl", "-o", str(path))
    again = run("consent", "export", "a+b/c@example.pl", "-o", str(path))

    assert gateway.asked[0][1] == "/api/consent/export/a%2Bb%2Fc%40example.pl"
    assert json.loads(path.read_text()) == held
    assert path.stat().st_mode & 0o777 == 0o600
    assert (first.exit_code, again.exit_code) == (0, 2)


def test_json_output_cannot_control_the_terminal(run: Run, gateway: Gateway) -> None:
    wrote = "a\x9b2Jb\x85c\u202ed\x7fe\x1b[2Jf"
    gateway.answers = [(200, {"items": [{"id": "1", "reason": wrote}], "next_cursor": None})]
    done = run("failed", "--json")
    assert json.loads(done.output)["reason"] == wrote
    assert all(letter.isprintable() for letter in done.output.rstrip("\n"))


# `ostoja chat`: what is typed in a terminal, and what the gateway gets.


def told(ask: dict[str, Any] | None, **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"reply": "Słucham.", "session_id": "s1", "ask": ask, **more}


def ask(id_: str, kind: str, *choices: str, **more: Any) -> dict[str, Any]:
    listed = [{"id": each, "label": each.title()} for each in choices]
    return {"id": id_, "kind": kind, "choices": listed, "skippable": True, **more}


AREA = [{"name": "area", "text": "45 m²"}]


def test_chips_are_tapped_by_number_and_the_rest_is_a_message(run: Run, gateway: Gateway) -> None:
    consent = ask("consent-5", "consent", "yes", "no", wording={"text": "…", "sha256": "a" * 64})
    gateway.answers = [
        told(ask("opening-0", "choice", "quote", "other")), told(ask("area-1", "number")),
        told(ask("budget-2", "number", "0-30"), card=AREA),
        told(ask("area-3", "number"), card=AREA), told(consent), told(None),
    ]  # fmt: skip
    done = run("chat", said="/1\n45\n/3\n/1\n/1\n/9\n")
    assert done.exit_code == 0
    sent = [body for method, _, body, _ in gateway.asked if method == "POST"]
    assert [each.get("tap", each.get("message")) for each in sent] == [
        {"ask": "opening-0", "choice": "quote"},
        "45",
        {"ask": "card", "choice": "area"},
        {"ask": "area-3", "choice": "skip"},
        {"ask": "consent-5", "choice": "yes", "wording": "a" * 64},
        "/9",
    ]
    assert [each.get("session_id") for each in sent] == [None, *["s1"] * 5]
    assert "/1 Quote  /2 Other  /3 skip" in done.stdout
    assert "/3 change: 45 m²" in done.stdout
    assert not any("X-ADMIN-API-KEY" in headers for *_, headers in gateway.asked)


def test_what_the_ask_does_not_offer_is_said_and_can_be_answered_again(
    run: Run, gateway: Gateway
) -> None:
    fault = {"title": "Unprocessable", "errors": [{"field": "tap.choice", "message": "is past"}]}
    gateway.answers = [told(ask("start-1", "month", "2020-01", "asap")), (422, fault), told(None)]
    done = run("chat", said="/1\n/2\n")
    assert done.exit_code == 0
    assert "is past" in done.stderr
    assert gateway.asked[-1][2]["tap"] == {"ask": "start-1", "choice": "asap"}


# `ostoja listen`: events of the API at a program on this machine, signed.

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
