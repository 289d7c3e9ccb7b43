"""The record of acts: who acts, and no address in what people write."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from libs.common.process import logs
from libs.domain.acts import Act, Actor, chosen, refs, without_addresses
from services.console.messages import ActionRecord

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "contracts/action.record.json").read_text(encoding="utf-8")
)
WRITTEN = tomllib.loads(Path(__file__).with_name("actions.toml").read_text(encoding="utf-8"))
EWA = "3f0e2a94-7a4e-4a3b-9f0a-2d8c1b7e5a10"
STAFF = {
    "X-Caller": "admin",
    "X-Operator": f"staff:{EWA} Ewa Lis",
    "X-Operator-Roles": "ops,viewer",
}


@pytest.mark.parametrize(
    ("headers", "actor"),
    [
        (STAFF, Actor("staff", EWA, "Ewa Lis", ("ops", "viewer"))),
        ({"X-Operator": "key:ABCDEFGHIJ", "X-Caller": "admin"}, Actor("key", "ABCDEFGHIJ")),
        ({"X-Operator": "ewa", "X-Caller": "admin"}, Actor("env", "ADMIN_API_KEY", "ewa")),
        ({"X-Caller": "service"}, Actor("env", "SERVICE_API_KEY")),
    ],
)
def test_who_acts_is_as_proven_or_the_holder_of_a_key(
    headers: dict[str, str], actor: Actor
) -> None:
    assert Actor.of(headers) == actor


def test_a_record_matches_its_contract_and_each_has_an_id_of_its_own() -> None:
    act = Act.of(
        STAFF, "alert.discard", "alert", "target=slack", reason="sent to ala@example.com by hand"
    )
    token = logs.request_id.set("request-of-ewa")
    try:
        first, second = act.message(17), act.message(17)
    finally:
        logs.request_id.reset(token)
    varying = {name: first.body[name] for name in ("id", "at")}
    assert first.body == GOLDEN | varying
    assert first.id == first.body["id"] != second.id


@pytest.mark.parametrize("extra", [{}, {"version": 2, "more": {"a": []}}])
def test_the_console_reads_a_record_with_unknown_fields(extra: dict[str, Any]) -> None:
    assert ActionRecord.model_validate(GOLDEN | extra).count == 17


@pytest.mark.parametrize(("text", "left"), WRITTEN.items())
def test_addresses_are_taken_out_of_what_people_write(text: str, left: str) -> None:
    assert without_addresses(text) == left


def test_what_was_acted_on_is_short_and_names_nobody() -> None:
    assert refs(range(102)).endswith(" 99 and 2 more")
    given = chosen(target="slack", event_type="ala@example.com", since=None)
    assert given == "target=slack event_type=[…]"
