"""`ostoja cases`, take, later, close, release: what they ask, print and return."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.support.cli import fits
from tests.unit.ostoja.conftest import Gateway, Run

ID = "9b2e8a52-0f0d-5c3b-8a44-1f6d3a1f2b7c"
SINCE = "2026-11-25T10:02:00+00:00"
TAKEN = {"state": "answered", "owner": "Anna Nowak", "since": SINCE, "version": 2}
OPEN = {"state": "open", "owner": None, "since": SINCE, "version": 3}


def case(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": str(uuid4()),
        "event_type": "lead.qualified",
        "state": "open",
        "owner_name": None,
        "step": 1,
        "steps_in_all": 6,
        "opened_at": (now - timedelta(hours=3)).isoformat(),
        "next_at": (now + timedelta(minutes=5)).isoformat(),
        **changes,
    }


def test_cases_are_listed_page_by_page_within_80_columns(run: Run, gateway: Gateway) -> None:
    first, second = case(), case(state="answered", owner_name="Anna Nowak", next_at=None)
    pages = [
        {"items": [first], "next_cursor": first["id"]},
        {"items": [second], "next_cursor": None},
    ]
    gateway.answers = [(200, page) for page in pages]

    done = run("cases", "--state", "open", "--owner", "anna")

    assert [path for _, path, *_ in gateway.asked] == [
        "/api/cases?state=open&owner=anna",
        f"/api/cases?after={first['id']}&state=open&owner=anna",
    ]
    shown = " ".join(done.stdout.split())
    for said in (first["id"], second["id"], "step 1 of 6", "Anna Nowak", "in 5 min"):
        assert said in shown
    assert fits(done.stdout)


def test_no_more_pages_are_read_than_its_limit_needs(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"items": [case() for _ in range(3)], "next_cursor": ID})]

    done = run("cases", "--limit", "3", "--json")

    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3
    assert len(gateway.asked) == 1


@pytest.mark.parametrize(
    ("words", "body", "said", "printed"),
    [
        (("take", ID, "--as", "anna"), {"answer": "taken"}, TAKEN, "answered: Anna Nowak has it"),
        (
            ("close", ID, "not_a_lead", "--as", "anna", "--reason", "spam"),
            {"answer": "not_a_lead", "reason": "spam"},
            TAKEN,
            "answered: Anna Nowak has it",
        ),
        (("release", ID, "--as", "anna"), {"answer": "release"}, OPEN, "is open"),
    ],
)
def test_an_answer_names_its_person_and_has_a_key_of_its_own(
    run: Run,
    gateway: Gateway,
    words: tuple[str, ...],
    body: dict[str, str],
    said: dict[str, Any],
    printed: str,
) -> None:
    gateway.answers = [(200, said)]

    done = [run(*words) for _ in range(2)]

    assert [each.exit_code for each in done] == [0, 0]
    assert printed in done[0].stdout
    method, path, given, _ = gateway.asked[0]
    assert (method, path) == ("POST", f"/api/cases/{ID}/answer")
    assert given == {"by": "anna", "via": "cli", **body}
    keys = {headers["Idempotency-Key"] for *_, headers in gateway.asked}
    assert len(keys) == 2


def test_a_case_is_put_off_so_long_from_now(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, OPEN)]

    done = run("later", ID, "--as", "anna", "--until", "1h")

    assert done.exit_code == 0
    until = datetime.fromisoformat(gateway.asked[0][2]["until"])
    assert timedelta(minutes=55) < until - datetime.now(UTC) <= timedelta(hours=1)


def test_when_somebody_else_has_it_the_exit_code_is_1_and_the_person_named(
    run: Run, gateway: Gateway
) -> None:
    detail = f"Ewa Lis has it since {SINCE}"
    gateway.answers = [(409, {"detail": detail, "error": "answered", "owner": "Ewa Lis"})]

    done = run("take", ID, "--as", "anna")

    assert (done.exit_code, done.stderr.strip()) == (1, f"ostoja: {detail}")


def test_no_answer_is_sent_without_a_person(run: Run, gateway: Gateway) -> None:
    assert run("take", ID).exit_code == 2
    assert gateway.asked == []


COUNTED = {
    "ok": True, "opened": 9, "open": 2, "answered": 5, "unanswered": 1, "cancelled": 1,
    "stranded": 0, "missing": 0, "unlisted": 0, "ownerless": 0, "updates_overdue": 0,
    "undelivered": 0,
}  # fmt: skip
BALANCED = {
    "ok": True, "accepted": 9, "delivered": 3, "pending": 6, "failed": 0, "discarded": 0,
    "in_doubt": 0, "stranded": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({}, 0, ""),
        ({"ok": False, "stranded": 2}, 1, "the check of cases failed: 2 stranded"),
        ({"ok": False, "opened": 10}, 1, "the check of cases failed: 1 not accounted for"),
    ],
)
def test_the_ledger_s_check_covers_the_cases(
    run: Run, gateway: Gateway, changes: dict[str, Any], code: int, told: str
) -> None:
    gateway.answers = [(200, BALANCED | {"cases": COUNTED | changes})]

    done = run("ledger", "check")

    assert done.exit_code == code
    assert told in done.stderr
    assert ("ok: nothing is lost" in done.stdout) == (code == 0)
    assert "unanswered 1" in " ".join(done.stdout.split())
