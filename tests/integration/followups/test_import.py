"""Import of leads: each row once, whole, with its grant, and without other effects."""

import asyncio
import json
from typing import Any

import pytest

from deploy.up.environment import EXAMPLE_CONFIG
from libs.common.messaging import outbox
from libs.common.messaging.broker import Broker
from libs.common.messaging.rpc import Requester
from libs.domain import company
from services.followups.leads import imports
from services.followups.store import tables
from tests.integration.followups.conftest import NOBODY_ERASED, REFUSED, World

AGREED = {"consent_text": "Zgadzam się na oferty.", "consent_at": "2024-05-01"}


async def sent(world: World, data: Any, kind: str = "application/x-ndjson") -> tuple[int, Any]:
    headers = {"Content-Type": kind}
    return await world.call("POST", "/api/leads/import", data=data, headers=headers)


async def imported(world: World, *rows: dict[str, Any]) -> tuple[int, Any]:
    return await sent(world, b"".join(json.dumps(row).encode() + b"\n" for row in rows))


async def talks(world: World) -> list[Any]:
    return await world.rows(tables.chat_conversations, "email")


async def test_a_row_becomes_a_conversation_with_its_facts_its_score_and_its_grant(
    world: World,
) -> None:
    header = (
        "email;name;phone;language;wish;area;budget;start;"
        "consent_text;consent_at;consent_source;consent_ip"
    )
    row = (
        "Anna@Example.pl;Anna  Nowak;600 700 800;pl;remont kuchni;80,5;250 000;2027-03;"
        "Zgadzam się.;2024-05-01T12:00:00+02:00;formularz;203.0.113.7"
    )
    told = await sent(world, f"{header}\n{row}\n".encode(), "text/csv")
    assert told == (200, {
        "rows": 1, "created": 1, "updated": 0, "unchanged": 0, "grants": 1, "to_confirm": 1,
        "withdrawals": 0, "followups": 0, "rejected": [],
    })  # fmt: skip
    [found] = await talks(world)
    assert (found["email"], found["session_id"], found["score"]) == ("anna@example.pl", None, 100)
    assert found["state"]["facts"] == {
        "email": "anna@example.pl", "name": "Anna Nowak", "phone": "+48600700800", "area": 80.5,
        "budget": 250_000, "currency": "PLN", "start": "2027-03", "wish": "remont kuchni",
    }  # fmt: skip
    [grant] = await world.outbox("grant.record")
    assert grant == {
        "email": "anna@example.pl", "purpose": "marketing", "wording": "Zgadzam się.",
        "language": "pl", "source": "import: formularz", "session_id": None,
        "ip_address": "203.0.113.7", "ip_address_from": "import", "user_agent": None,
        "at": "2024-05-01T10:00:00+00:00", "place": "import", "proven": True,
    }  # fmt: skip


async def test_an_agreement_in_the_future_is_kept_and_asks_though_its_words_are_published(
    world: World,
) -> None:
    words = company.load(EXAMPLE_CONFIG / "company.toml").published[0].text
    rows = [
        {"email": f"l{at[:4]}@example.com", "consent_text": words, "consent_at": at,
         "consent_source": "targi"}
        for at in ("2017-12-31", "2024-05-01", "2999-01-01")
    ]  # fmt: skip
    _, report = await imported(world, *rows)
    assert (report["created"], report["grants"], report["to_confirm"]) == (3, 3, 2)
    kept = {grant["email"]: grant["at"] for grant in await world.outbox("grant.record")}
    assert kept["l2999@example.com"] == "2999-01-01T00:00:00+00:00"


async def test_an_import_enrols_no_one_and_raises_no_alert(world: World) -> None:
    rows = [{"email": f"l{n}@example.com", "phone": "600700800", "budget": 9e5} for n in range(3)]
    await imported(world, *rows)
    assert await world.steps() == []
    assert await world.outbox("lead.qualified") == []


async def test_what_another_system_sent_or_was_refused_is_taken_once_and_never_sent_again(
    world: World,
) -> None:
    who, at = "ewa@example.com", "2025-03-01T10:00:00+01:00"
    body = {"email": "jan@example.com", "delay_seconds": 3600}
    assert (await world.post("/api/followups", body))[0] == 202  # scheduled here already
    rows: list[dict[str, Any]] = [
        {"email": who, "withdrawn_at": at},
        *({"email": who, "followup_number": n, "followup_sent_at": at} for n in (1, 2, 2)),
        {"email": "jan@example.com", "followup_number": 1, "followup_sent_at": at},
        {"email": who, "followup_number": 3},
    ]
    reports = [(await imported(world, *rows))[1] for _ in range(2)]
    counted = [(each["withdrawals"], each["followups"]) for each in reports]
    assert counted == [(1, 3), (0, 0)]
    assert [each["line"] for each in reports[0]["rejected"]] == [6]
    [withdrawal] = await world.outbox("withdrawal.record")
    assert (withdrawal["email"], withdrawal["at"]) == (who, "2025-03-01T09:00:00+00:00")
    status, told = await world.post("/api/followups", {"email": who})
    assert status == 200
    steps = [(each["step"], each["status"]) for each in told["items"]]
    assert steps == [(1, "sent"), (2, "sent")]
    others = [step for step in await world.steps() if step["email"] != who]
    assert {step["step"]: step["status"] for step in others}[1] == "sent"


async def test_the_same_file_again_changes_nothing(world: World) -> None:
    rows = [{"email": f"l{n}@example.com", "area": 50 + n, **AGREED} for n in range(900)]
    rows.append(dict(rows[0]))  # twice in one file
    status, first = await imported(world, *rows)
    assert (status, first["created"], first["unchanged"], first["grants"]) == (200, 900, 1, 900)
    before = await talks(world)
    await world.published()
    _, second = await imported(world, *rows)
    assert (second["created"], second["updated"], second["grants"]) == (0, 0, 0)
    assert second["unchanged"] == second["rows"] == 901
    assert await talks(world) == before
    assert await world.outbox("grant.record") == []


async def test_each_grant_of_an_address_is_sent_once_in_any_order(world: World) -> None:
    row = {"email": "a@example.com", **AGREED}
    rows = [row, {**row, "consent_at": "2025-01-01"}, {**row, "consent_text": "Tak."}]
    for order in (rows, rows, rows[::-1]):
        _, report = await imported(world, *order)
    assert (report["updated"], report["unchanged"], report["grants"]) == (0, 3, 0)
    assert len(await world.outbox("grant.record")) == 3


async def test_a_new_grant_alone_is_an_update_and_is_erased_with_the_person(world: World) -> None:
    row = {"email": "a@example.com", **AGREED}
    await imported(world, {"email": "a@example.com"})
    _, report = await imported(world, row)
    assert (report["updated"], report["grants"]) == (1, 1)
    await world.erase("a@example.com")
    _, report = await imported(world, row)
    assert (report["created"], report["grants"]) == (1, 1)


async def test_two_concurrent_imports_of_one_file_create_each_lead_once(world: World) -> None:
    rows = [{"email": f"l{n}@example.com", **AGREED} for n in range(400)]
    answers = await asyncio.gather(*(imported(world, *rows) for _ in range(3)))
    assert {status for status, _ in answers} == {200}
    assert len(await talks(world)) == 400
    told = await world.outbox("grant.record")
    assert {grant["email"] for grant in told} == {f"l{n}@example.com" for n in range(400)}


async def test_newer_facts_replace_older_ones_and_a_new_grant_is_added(world: World) -> None:
    first = {"email": "a@example.com", "name": "Ala", "area": 50, **AGREED}
    again = {"email": "a@example.com", "area": 60, **AGREED, "consent_at": "2025-01-01"}
    await imported(world, first)
    _, report = await imported(world, again)
    assert (report["updated"], report["grants"]) == (1, 1)
    [found] = await talks(world)
    assert (found["state"]["facts"]["name"], found["state"]["facts"]["area"]) == ("Ala", 60)
    assert [grant["at"][:4] for grant in await world.outbox("grant.record")] == ["2024", "2025"]


async def test_an_import_leaves_chats_alone_and_lifts_no_bounce(world: World) -> None:
    await world.say("remont 50 m2, jan@example.com")
    await world.sql("UPDATE chat_conversations SET followups_ended_by = 'bounce'")
    [chat] = await talks(world)
    await imported(world, {"email": "jan@example.com", "area": 70})
    assert chat in await talks(world)


async def test_a_bad_row_is_reported_with_line_and_reason_and_not_imported(world: World) -> None:
    bad = REFUSED["import"]
    rows = [{"email": f"{n}@example.com"} | fault for n, (fault, _) in enumerate(bad)]
    good = [{"email": f"{name}@example.com"} for name in "ab"]
    status, report = await imported(world, good[0], *rows, good[1])
    assert (status, report["rows"], report["created"]) == (200, len(rows) + 2, 2)
    for (line, (_, field)), told in zip(enumerate(bad, 2), report["rejected"], strict=True):
        assert (told["line"], [each["field"] for each in told["errors"]]) == (line, [field])
        assert all(each["message"] for each in told["errors"])
    assert [row["email"] for row in await talks(world)] == [each["email"] for each in good]
    assert await world.outbox("grant.record") == []


async def test_the_number_of_reported_faults_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "DETAILED_ROWS", 2)
    row = {"email": "a@example.com"} | {f"{n}" + "x" * 200: 1 for n in range(60)}
    _, report = await imported(world, row, row, row)
    first, second, third = (rejected["errors"] for rejected in report["rejected"])
    assert (len(first), len(second), len(third)) == (5, 5, 1)
    assert {len(fault["field"]) for fault in first} == {100}
    assert first[-1]["message"].endswith(" (and 55 more in this row)")
    assert third[0]["message"].endswith(" (and 59 more in this row)")


async def test_a_fault_in_a_field_with_a_long_name_is_shortened(world: World) -> None:
    _, report = await sent(world, b'{"' + b"x" * 60_000 + b'": "\\u0000"}\n')
    [rejected] = report["rejected"]
    assert [len(fault["message"]) for fault in rejected["errors"]] == [100]


async def test_a_failed_batch_leaves_no_rows(world: World) -> None:
    rows = [{"email": f"l{n}@example.com", **AGREED} for n in range(700)]
    kept = outbox.add_all
    calls = 0

    async def fail_second(*arguments: Any, **more: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError
        await kept(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "add_all", fail_second)
        status, _ = await imported(world, *rows)
    assert status == 500
    assert len(await talks(world)) == len(await world.outbox("grant.record")) == 500
    _, report = await imported(world, *rows)
    assert (report["created"], report["unchanged"], report["grants"]) == (200, 500, 200)


@pytest.mark.parametrize("contact", ["email:jan@example.com", "phone:+48600700800"])
async def test_who_is_erased_after_consent_was_asked_is_not_stored(
    world: World, contact: str
) -> None:
    async with world.engine.begin() as tx:
        await NOBODY_ERASED.marks.mark(tx, [contact])
    rows = [{"email": "ala@example.com"}, {"email": "jan@example.com", "phone": "600 700 800"}]
    status, told = await imported(world, *rows)
    assert (status, "just been erased" in told["detail"]) == (503, True)
    assert await talks(world) == []


async def test_without_an_answer_of_consent_nothing_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Broker.connect("amqp://127.0.0.1:1/", "followups") as away:
        asking = imports.Consent(Requester(away, "followups"), NOBODY_ERASED.marks)
        monkeypatch.setattr(type(NOBODY_ERASED), "without", lambda _, rows: asking.without(rows))
        monkeypatch.setattr(imports, "ANSWER_SECONDS", 0.2)
        monkeypatch.setattr(imports, "LOOK_SECONDS", 0.2)
        stands = await asking.marketing({"email": "ala@example.com", "name": "Ala"})
        assert stands == {"email": {"state": "unknown", "since": None, "wording": None}}
        status, told = await imported(world, {"email": "ala@example.com"})
    assert (status, "who was erased" in told["detail"]) == (503, True)
    assert await talks(world) == []


async def test_an_unknown_content_type_or_header_is_refused(world: World) -> None:
    assert (await sent(world, b"{}", "application/json"))[0] == 415
    assert (await sent(world, b"address,name\n", "text/csv"))[0] == 422
    assert (await sent(world, b"", "text/csv"))[0] == 422


async def test_too_many_rows_are_refused_and_the_first_are_imported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MAX_ROWS", 3)
    status, told = await imported(world, *({"email": f"l{n}@example.com"} for n in range(5)))
    assert status == 413
    assert "line 4" in told["detail"]
    assert len(await talks(world)) == 3


async def test_an_import_waits_for_the_broker_and_then_answers_503(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "OUTBOX_FULL", 100)
    monkeypatch.setattr(imports, "PATIENCE_SECONDS", 3.0)
    rows = [{"email": f"l{n}@example.com", **AGREED} for n in range(700)]
    status, _ = await imported(world, *rows)
    assert (status, len(await talks(world))) == (503, 500)
