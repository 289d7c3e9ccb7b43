"""Checkpoints reveal whatever the database's owner does to the trail."""

import asyncio
import itertools
import json
import re
import tracemalloc
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.exc import DBAPIError

from libs.common.database import periodic
from services.consent import commands
from services.consent.store.sql import run
from services.consent.trail import chain, checkpoints
from services.consent.trail.append_only_file import AppendOnlyFile
from services.consent.trail.checkpoints import Checkpoint, Signer, Witnesses
from tests.integration.consent.conftest import ADMIN, ANNA, ENVIRONMENT, Consent, key
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P5")

COLUMNS = (
    "id", "subject_id", "action", "timestamp", "email", "ip_address", "user_agent", "reason",
    "session_id", "evidence", "hash",
)  # fmt: skip
CELLS = COLUMNS[4:]
WITNESSED = 6
"""Of the eight rows, those behind a checkpoint."""
RECHAIN = """
DO $$
DECLARE number bigint; previous bytea := decode(repeat('00', 32), 'hex');
BEGIN
    FOR number IN SELECT id FROM consent_audit_log ORDER BY id LOOP
        UPDATE consent_audit_log SET hash = sha256(previous || record_send(ROW(
            id, subject_id, action, "timestamp", email, ip_address, user_agent, reason, session_id,
            evidence))) WHERE id = number RETURNING hash INTO previous;
    END LOOP;
END $$
"""


@pytest.fixture
def signer() -> Signer:
    return Signer(ENVIRONMENT["CONSENT_CHECKPOINT_KEYS"])


@pytest.fixture
def records(tmp_path: Path) -> AppendOnlyFile:
    return AppendOnlyFile(tmp_path / "records" / "checkpoints.jsonl")


async def at(consent: Consent, signer: Signer, *rows: int) -> list[Checkpoint]:
    async with consent.engine.connect() as tx:
        return [signer.sign(place, datetime.now(UTC)) for place in await chain.positions(tx, rows)]


async def decision(
    consent: Consent, signer: Signer, seen: list[Checkpoint]
) -> tuple[bool, int | None]:
    witnesses = Witnesses(seen, signer)
    found = checkpoints.report(await chain.verify(consent.engine, witnesses=witnesses), witnesses)
    return found["ok"], found["first_broken"]


class Owner:
    """The owner of the tables, who can put back what a test did."""

    def __init__(self, consent: Consent) -> None:
        self._consent = consent
        consent.tamper("CREATE TABLE before AS SELECT * FROM consent_audit_log")

    def does(self, *statements: str) -> None:
        self._consent.tamper(
            "TRUNCATE consent_audit_log",
            "INSERT INTO consent_audit_log SELECT * FROM before",
            *statements,
        )


def renumber(first: int, by: int) -> tuple[str, str]:
    return (
        f"UPDATE consent_audit_log SET id = -id WHERE id >= {first}",
        f"UPDATE consent_audit_log SET id = -id + {by} WHERE id < 0",
    )


Attack = tuple[int, tuple[str, ...]]
"""The first row that is not what it was, and how that came."""

row = st.integers(1, 8)


@st.composite
def edits(draw: Callable[[Any], Any]) -> Attack:
    number, column = draw(row), draw(st.sampled_from(COLUMNS[1:]))
    if column == "subject_id":
        other = draw(row.filter(lambda each: each != number))
        value = f"(SELECT subject_id FROM before WHERE id = {other})"
    elif column == "action":
        value = "'unsubscribe'"
    elif column == "timestamp":
        value = f"\"timestamp\" + interval '{draw(st.integers(1, 10**9))} microseconds'"
    elif column == "hash":
        value = f"sha256('{draw(st.integers())}')"
    elif column in {"reason", "session_id"} and draw(st.booleans()):  # NULL, and not NULL
        value = "''" if column == "reason" else "reason, reason = session_id"
    else:
        value = draw(
            st.sampled_from(
                [
                    f"coalesce({column}, '') || 'x'",
                    (
                        f"CASE WHEN {column} IS NULL OR {column} = '' THEN 'x'::bytea"
                        f" ELSE set_byte({column}, 0, 255 - get_byte({column}, 0)) END"
                    ),
                ]
            )
        )
    statement = f'UPDATE consent_audit_log SET "{column}" = {value} WHERE id = {number}'
    return number, (statement,)


@st.composite
def swaps(draw: Callable[[Any], Any]) -> Attack:
    one, other = sorted(draw(st.lists(row, min_size=2, max_size=2, unique=True)))
    return one, (
        f"UPDATE consent_audit_log SET id = -1 WHERE id = {one}",
        f"UPDATE consent_audit_log SET id = {one} WHERE id = {other}",
        f"UPDATE consent_audit_log SET id = {other} WHERE id = -1",
    )


@st.composite
def deletions(draw: Callable[[Any], Any]) -> Attack:
    number = draw(st.integers(1, 7))
    closed = renumber(number + 1, -1) if draw(st.booleans()) else ()
    return number, (f"DELETE FROM consent_audit_log WHERE id = {number}", *closed)


@st.composite
def insertions(draw: Callable[[Any], Any]) -> Attack:
    number, copied = draw(row), draw(row)
    columns = ", ".join(f'"{name}"' for name in COLUMNS[1:])
    # The copy of its own row in its own place changes that row not, but the next.
    first = number if copied != number else number + 1
    return first, (
        *renumber(number, 1),
        f"INSERT INTO consent_audit_log SELECT {number}, {columns} FROM before WHERE id = {copied}",
    )


@st.composite
def cuts(draw: Callable[[Any], Any]) -> Attack:
    number = draw(st.integers(1, WITNESSED))
    return number, (f"DELETE FROM consent_audit_log WHERE id >= {number}",)


PROPERTY = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def owner(trail_of_eight: None, consent: Consent) -> Owner:
    return Owner(consent)


@pytest.mark.quick
@pytest.mark.control("P5")
@pytest.mark.parametrize("attacks", [edits(), swaps(), deletions(), insertions(), cuts()])
async def test_verify_names_the_first_row_of_any_single_attack(
    attacks: st.SearchStrategy[Attack], consent: Consent, owner: Owner, signer: Signer
) -> None:
    seen = await at(consent, signer, 3, WITNESSED)
    assert await decision(consent, signer, seen) == (True, None)
    loop = asyncio.get_running_loop()

    @PROPERTY
    @given(attack=attacks)
    def attacked(attack: Attack) -> None:
        first, statements = attack
        owner.does(*statements)
        found = asyncio.run_coroutine_threadsafe(decision(consent, signer, seen), loop).result(20)
        assert found == (False, first)

    await asyncio.to_thread(attacked)


@pytest.mark.quick
@pytest.mark.parametrize("attacks", [edits(), swaps(), deletions(), insertions()])
async def test_a_rewritten_chain_contradicts_its_checkpoint(
    attacks: st.SearchStrategy[Attack], consent: Consent, owner: Owner, signer: Signer
) -> None:
    seen = await at(consent, signer, 3, WITNESSED)
    forger = Signer(f"c1:{key('f')}")
    loop = asyncio.get_running_loop()

    @PROPERTY
    @given(
        attack=attacks.filter(lambda each: each[0] <= WITNESSED and 'SET "hash"' not in each[1][0])
    )
    def attacked(attack: Attack) -> None:
        first, statements = attack
        owner.does(*statements, *renumber_without_gaps(), RECHAIN)
        found = asyncio.run_coroutine_threadsafe(decision(consent, signer, seen), loop).result(20)
        # No one can say any more which row after the last witness it was.
        assert found == (False, 1 if first <= 3 else 4)
        resigned = asyncio.run_coroutine_threadsafe(at(consent, forger, 3, WITNESSED), loop)
        forged = asyncio.run_coroutine_threadsafe(
            decision(consent, signer, resigned.result(20)), loop
        )
        assert not forged.result(20)[0]

    await asyncio.to_thread(attacked)


def renumber_without_gaps() -> tuple[str, str]:
    return (
        (
            "UPDATE consent_audit_log SET id = -rank FROM ("
            "SELECT id AS old, row_number() OVER (ORDER BY id) AS rank FROM consent_audit_log"
            ") AS ranked WHERE id = old"
        ),
        "UPDATE consent_audit_log SET id = -id",
    )


@pytest.mark.control("P5")
@pytest.mark.usefixtures("trail_of_eight")
async def test_a_cut_after_the_last_checkpoint_is_not_detected(
    consent: Consent, signer: Signer
) -> None:
    seen = await at(consent, signer, WITNESSED)
    consent.tamper("DELETE FROM consent_audit_log WHERE id > 6")
    assert await decision(consent, signer, seen) == (True, None)


@pytest.mark.usefixtures("trail_of_eight")
async def test_a_sample_of_a_million_checkpoints_still_detects_a_cut(
    consent: Consent, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await at(consent, signer, *range(1, 9))
    ours = seen[-1]

    def peak(count: int) -> int:
        of_a_minute = ours.model_copy(update={"rows": 1, "signature": "looked at by nobody"})
        many = (of_a_minute.model_copy() for _ in range(count))
        tracemalloc.start()
        Witnesses(itertools.chain(many, [ours]), signer)
        measured = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return measured

    monkeypatch.setattr(checkpoints, "LAST_WITNESSES", 50)
    monkeypatch.setattr(checkpoints, "EARLIER_WITNESSES", 200)
    assert peak(8_000) < 1.5 * peak(800)

    monkeypatch.setattr(checkpoints, "LAST_WITNESSES", 2)
    monkeypatch.setattr(checkpoints, "EARLIER_WITNESSES", 2)
    consent.tamper("DELETE FROM consent_audit_log WHERE id > 7")
    assert await decision(consent, signer, seen) == (False, 8)
    consent.tamper("DELETE FROM consent_audit_log WHERE id > 2")
    assert await decision(consent, signer, seen) == (False, 3)


@pytest.mark.usefixtures("trail_of_eight")
async def test_verify_continues_where_it_ran_out_of_time(
    consent: Consent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "BATCH", 3)
    ticks = iter(range(1_000))
    monkeypatch.setattr(chain, "monotonic", lambda: next(ticks))
    first = await chain.verify(consent.engine, seconds=2)
    assert (first.ok, first.complete, first.reached.rows) == (True, False, 3)
    rest = await chain.verify(consent.engine, start=first.reached)
    assert (rest.ok, rest.complete, rest.reached.rows) == (True, True, 8)
    forged = first.reached._replace(hash=bytes(32))
    assert (await chain.verify(consent.engine, start=forged)).first_broken == 4


async def test_a_checkpoint_is_written_when_it_is_due_and_not_before(
    consent: Consent, records: AppendOnlyFile, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rows() -> list[int]:
        await checkpoints.keep(consent.engine, records, signer)
        return [each.rows for each in records.read(Checkpoint)]

    assert await rows() == []
    await consent.grant("person0@example.com")
    assert await rows() == [1]  # the first one at once
    await consent.grant("person1@example.com")
    assert await rows() == [1]
    monkeypatch.setattr(checkpoints, "EVERY_ROWS", 3)
    for number in range(2, 9):
        await consent.grant(f"person{number}@example.com")
    assert await rows() == [1, 4, 7]
    assert await rows() == [1, 4, 7]
    monkeypatch.setattr(checkpoints, "EVERY", checkpoints.EVERY * 0)
    assert await rows() == [1, 4, 7, 9]
    assert all(signer.is_ours(each) for each in records.read(Checkpoint))


@pytest.mark.usefixtures("trail_of_eight")
async def test_a_trail_that_contradicts_its_last_checkpoint_gets_no_further_one(
    consent: Consent, records: AppendOnlyFile, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", checkpoints.EVERY * 0)
    await checkpoints.keep(consent.engine, records, signer)
    consent.tamper("DELETE FROM consent_audit_log WHERE id > 5")
    for number in range(6):  # grown past the checkpoint again
        await consent.grant(f"late{number}@example.com")
    await checkpoints.keep(consent.engine, records, signer)
    assert [each.rows for each in records.read(Checkpoint)] == [8]
    assert await decision(consent, signer, list(records.read(Checkpoint))) == (False, 1)


@pytest.mark.parametrize("line", ['{"rows": 5}', '{"rows": 5, "ha', "[]", '{"rows": -1, "at": 7}'])
async def test_a_broken_last_line_does_not_stop_the_signing(
    consent: Consent, records: AppendOnlyFile, signer: Signer, line: str
) -> None:
    await consent.grant("anna@example.com")
    await checkpoints.keep(consent.engine, records, signer)
    with records.path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    await checkpoints.keep(consent.engine, records, signer)
    assert [each.rows for each in records.read(Checkpoint)] == [1]


async def test_checkpoints_that_cannot_be_written_raise_the_gauge_and_resume_by_themselves(
    consent: Consent, records: AppendOnlyFile, signer: Signer
) -> None:
    await consent.grant("anna@example.com")
    records.path.mkdir(parents=True)  # as refused as a full disk or a wrong mode, also to root
    failing = periodic.FAILING.labels("checkpoints of a test")._value

    async def turned(value: int) -> bool:
        return bool(failing.get() == value)

    keep = partial(checkpoints.keep, consent.engine, records, signer)
    signing = periodic.every(consent.engine, "checkpoints of a test", 0.01, keep, on_each=True)
    task = asyncio.create_task(signing)
    try:
        await eventually(lambda: turned(1))
        records.path.rmdir()
        await eventually(lambda: turned(0))
    finally:
        task.cancel()
    assert [each.rows for each in records.read(Checkpoint)] == [1]


class Line(BaseModel):
    a: int


def test_a_line_cut_off_by_a_crash_does_not_damage_the_next(records: AppendOnlyFile) -> None:
    records.write([{"a": 1}])
    with records.path.open("a", encoding="utf-8") as file:
        file.write('{"a": 2, "b"')
    records.write([{"a": 3}])
    assert [each.a for each in records.read(Line)] == [1, 3]
    assert [each.a for each in records.newest(Line)] == [3, 1]
    assert records.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("trail_of_eight")
async def test_an_auditor_s_copy_of_the_checkpoints_replaces_our_file(
    consent: Consent, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", checkpoints.EVERY * 0)
    ours = consent.settings.checkpoint_file
    await checkpoints.keep(consent.engine, ours, signer)
    handed_out = await consent.get("/api/consent/audit/checkpoints", ADMIN)
    assert handed_out["public_keys"] == signer.public_keys
    (copy,) = handed_out["checkpoints"]
    text = f"ostoja consent trail\n{copy['rows']}\n{copy['hash']}\n{copy['at']}\n"
    public = Ed25519PublicKey.from_public_bytes(b64decode(handed_out["public_keys"][copy["key"]]))
    public.verify(b64decode(copy["signature"]), text.encode())
    found = await consent.get("/api/consent/audit/verify", ADMIN)
    assert found == {
        "ok": True, "rows": 8, "first_broken": None, "next_cursor": None,
        "last_checkpoint": 8, "forged_checkpoints": 0,
    }  # fmt: skip

    consent.tamper("DELETE FROM consent_audit_log WHERE id > 5")
    ours.path.unlink()
    assert (await consent.get("/api/consent/audit/verify", ADMIN))["ok"]
    status, body = await consent.post("/api/consent/audit/verify", {"checkpoints": [copy]}, **ADMIN)
    assert (status, body["ok"], body["first_broken"]) == (200, False, 6)
    forged = {**copy, "rows": 7}
    status, body = await consent.post(
        "/api/consent/audit/verify", {"checkpoints": [forged]}, **ADMIN
    )
    assert (status, body["errors"][0]["field"]) == (422, "checkpoints.0.signature")


@pytest.mark.usefixtures("trail_of_eight")
async def test_the_verify_command_checks_all_rows_and_sets_its_exit_code(
    consent: Consent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await commands.verify(consent.settings) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 8
    consent.tamper("UPDATE consent_audit_log SET reason = 'x' WHERE id = 3")
    assert await commands.verify(consent.settings) == 1
    assert json.loads(capsys.readouterr().out)["first_broken"] == 3


@pytest.mark.usefixtures("trail_of_eight")
@pytest.mark.parametrize("name", ["head", "rows_of", "last_row", "last_opt_ins", "positions"])
async def test_a_look_at_the_trail_costs_the_same_however_long_it_is(
    consent: Consent, name: str
) -> None:
    dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]  # its stub's fault
    query = str(run.statements[name]._clause.compile(dialect=dialect))
    given = ", ".join(["NULL"] * len(set(re.findall(r"\$\d", query))))
    with closing(psycopg2.connect(consent.database.owner_url)) as owner, owner.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE looked AS {query}")
        cursor.execute(f"EXPLAIN EXECUTE looked{f'({given})' if given else ''}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index" in plan
    assert "Seq Scan" not in plan, plan


ROWS = 8
REFUSED = (
    "UPDATE consent_audit_log SET action = 'erased'",
    "DELETE FROM consent_audit_log",
    "TRUNCATE consent_audit_log",
)


async def verified(consent: Consent) -> tuple[bool, int, int | None]:
    found = await chain.verify(consent.engine)
    return found.ok, found.reached.rows, found.first_broken


@pytest.mark.quick
async def test_concurrent_writers_keep_one_chain(consent: Consent) -> None:
    connections = asyncio.Semaphore(16)  # as many as the pool has: none waits for it in vain

    async def write(number: int) -> bool:
        async with connections:
            return await consent.grant(f"person{number % 7}@example.com")

    assert all(await asyncio.gather(*map(write, range(60))))
    assert await verified(consent) == (True, 60, None)


@pytest.mark.quick
async def test_a_rolled_back_entry_leaves_no_gap(consent: Consent) -> None:
    assert await consent.grant("anna@example.com")
    async with consent.engine.begin() as tx:
        await consent.withdraw(tx=tx)
        await tx.rollback()
    assert await consent.grant("anna@example.com")
    assert await verified(consent) == (True, 2, None)


@pytest.mark.quick
@pytest.mark.usefixtures("trail_of_eight")
@pytest.mark.parametrize("statement", REFUSED)
async def test_nobody_may_do_more_than_append_be_it_the_owner_past_ordinary_triggers(
    consent: Consent, statement: str
) -> None:
    for refused in (statement, "SELECT FROM trail_head FOR UPDATE"):
        with pytest.raises(DBAPIError, match="permission denied"):
            await consent.rows(refused)
    past = "SET search_path = consent; SET session_replication_role = replica;"
    for url, before in ((consent.database.owner_url, ""), (consent.database.superuser_url, past)):
        with (
            closing(psycopg2.connect(url)) as owner,
            owner.cursor() as cursor,
            pytest.raises(psycopg2.errors.InsufficientPrivilege, match="append-only"),
        ):
            cursor.execute(before + statement)
    assert await verified(consent) == (True, ROWS, None)


@pytest.mark.quick
async def test_a_writer_cannot_choose_id_time_or_hash(consent: Consent) -> None:
    assert await consent.grant("anna@example.com")
    await consent.rows(
        'INSERT INTO consent_audit_log (id, subject_id, action, "timestamp", email, hash)'
        " SELECT 77, id, 'opt-in', '2020-01-01', 'x', 'y' FROM data_subject"
    )
    rows = await consent.rows('SELECT id, "timestamp" FROM consent_audit_log')
    assert [row.id for row in rows] == [1, 2]
    assert all(row.timestamp.year > 2020 for row in rows)
    assert (await chain.verify(consent.engine)).ok


@pytest.mark.quick
async def test_a_stored_row_contains_no_personal_data_in_clear(consent: Consent) -> None:
    assert await consent.grant("anna.kowalska@example.com")
    with consent.elsewhere() as cursor:
        cursor.execute(
            "SELECT row_to_json(t)::text || encode(email, 'escape') || encode(evidence, 'escape')"
            " FROM consent.consent_audit_log t"
        )
        (row,) = cursor.fetchone()
    for secret in ("anna", "203.0.113.7", "pytest", "s-1", "Zgadzam"):
        assert secret not in row


@pytest.mark.quick
async def test_entries_are_read_as_given_and_in_order(consent: Consent) -> None:
    assert await consent.grant("Anna@Example.com")
    await consent.post("/api/unsubscribe", {"email": ANNA, "reason": "za często"})
    found = await consent.entries(ANNA)
    assert [entry["action"] for entry in found] == ["opt-in", "unsubscribe"]
    assert found[0]["email"] == "Anna@Example.com"
    assert found[0]["ip_address"] == "203.0.113.7"
    assert found[0]["user_agent"] == "pytest"
    assert found[0]["session_id"] == "s-1"
    assert found[0]["evidence"]["wording"].startswith("Zgadzam się")
    assert len(found[0]["evidence"]["wording_sha256"]) == 64
    assert found[0]["evidence"]["language"] == "pl"
    assert found[1]["reason"] == "za często"
