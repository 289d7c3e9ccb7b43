"""Whoever owns the database may do to the trail what they like, and a checkpoint tells."""

import asyncio
import json
import tracemalloc
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from services.consent import checkpoints, commands, trail
from services.consent.checkpoints import Checkpoint, Signer, Witnesses
from services.consent.records import Records
from services.consent.settings import ConsentSettings
from services.consent.vault import Vault
from tests.integration.consent.conftest import ENVIRONMENT, grant, key
from tests.integration.consent.test_http import ADMIN, Client, client, get, post
from tests.integration.consent.test_trail import tamper, trail_of_eight
from tests.support.databases import DatabaseUrl

__all__ = ["client", "trail_of_eight"]  # fixtures

COLUMNS = (
    "id", "person_id", "action", "timestamp", "email", "ip_address", "user_agent", "reason",
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
            id, person_id, action, "timestamp", email, ip_address, user_agent, reason, session_id,
            evidence))) WHERE id = number RETURNING hash INTO previous;
    END LOOP;
END $$
"""


@pytest.fixture
def signer() -> Signer:
    return Signer(ENVIRONMENT["CONSENT_CHECKPOINT_KEYS"])


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records" / checkpoints.FILE)


async def at(engine: AsyncEngine, signer: Signer, *rows: int) -> list[Checkpoint]:
    async with engine.connect() as tx:
        return [signer.sign(place, datetime.now(UTC)) for place in await trail.places(tx, rows)]


async def verdict(
    engine: AsyncEngine, signer: Signer, seen: list[Checkpoint]
) -> tuple[bool, int | None]:
    witnesses = Witnesses(seen, signer)
    found = checkpoints.report(await trail.verify(engine, witnesses=witnesses), witnesses)
    return found["ok"], found["first_broken"]


class Owner:
    """The owner of the tables, who can put back what a test did."""

    def __init__(self, url: DatabaseUrl) -> None:
        self._url = url
        tamper(url, "CREATE TABLE before AS SELECT * FROM consent_audit_log")

    def does(self, *statements: str) -> None:
        tamper(
            self._url,
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
    if column == "person_id":
        other = draw(row.filter(lambda each: each != number))
        value = f"(SELECT person_id FROM before WHERE id = {other})"
    elif column == "action":
        value = "'unsubscribe'"
    elif column == "timestamp":
        value = f"\"timestamp\" + interval '{draw(st.integers(1, 10**9))} microseconds'"
    elif column == "hash":
        value = f"sha256('{draw(st.integers())}')"
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
def owner(trail_of_eight: None, consent_database: DatabaseUrl) -> Owner:
    return Owner(consent_database)


@pytest.mark.parametrize("attacks", [edits(), swaps(), deletions(), insertions(), cuts()])
async def test_any_single_attack_is_caught_and_its_first_row_named(
    attacks: st.SearchStrategy[Attack], engine: AsyncEngine, owner: Owner, signer: Signer
) -> None:
    seen = await at(engine, signer, 3, WITNESSED)
    assert await verdict(engine, signer, seen) == (True, None)
    loop = asyncio.get_running_loop()

    @PROPERTY
    @given(attack=attacks)
    def attacked(attack: Attack) -> None:
        first, statements = attack
        owner.does(*statements)
        found = asyncio.run_coroutine_threadsafe(verdict(engine, signer, seen), loop).result(20)
        assert found == (False, first)

    await asyncio.to_thread(attacked)


@pytest.mark.parametrize("attacks", [edits(), swaps(), deletions(), insertions()])
async def test_a_chain_that_was_made_to_fit_again_contradicts_its_checkpoint(
    attacks: st.SearchStrategy[Attack], engine: AsyncEngine, owner: Owner, signer: Signer
) -> None:
    seen = await at(engine, signer, 3, WITNESSED)
    forger = Signer(f"c1:{key('f')}")
    loop = asyncio.get_running_loop()

    @PROPERTY
    @given(
        attack=attacks.filter(lambda each: each[0] <= WITNESSED and 'SET "hash"' not in each[1][0])
    )
    def attacked(attack: Attack) -> None:
        first, statements = attack
        owner.does(*statements, *renumber_without_gaps(), RECHAIN)
        found = asyncio.run_coroutine_threadsafe(verdict(engine, signer, seen), loop).result(20)
        # Which row after the last witness it was, nobody can say any more.
        assert found == (False, 1 if first <= 3 else 4)
        resigned = asyncio.run_coroutine_threadsafe(at(engine, forger, 3, WITNESSED), loop)
        forged = asyncio.run_coroutine_threadsafe(
            verdict(engine, signer, resigned.result(20)), loop
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


@pytest.mark.usefixtures("trail_of_eight")
async def test_a_cut_younger_than_the_last_checkpoint_is_not_seen(
    engine: AsyncEngine, consent_database: DatabaseUrl, signer: Signer
) -> None:
    seen = await at(engine, signer, WITNESSED)
    tamper(consent_database, "DELETE FROM consent_audit_log WHERE id > 6")
    assert await verdict(engine, signer, seen) == (True, None)


@pytest.mark.usefixtures("trail_of_eight")
async def test_of_a_million_checkpoints_some_are_kept_and_a_cut_is_seen_all_the_same(
    engine: AsyncEngine, consent_database: DatabaseUrl, signer: Signer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen = await at(engine, signer, *range(1, 9))
    ours = seen[-1]

    def peak(count: int) -> int:
        of_a_minute = ours.model_copy(update={"rows": 1, "signature": "looked at by nobody"})
        many = (of_a_minute.model_copy() for _ in range(count))
        tracemalloc.start()
        Witnesses(chain(many, [ours]), signer)
        measured = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return measured

    monkeypatch.setattr(checkpoints, "LAST_WITNESSES", 50)
    monkeypatch.setattr(checkpoints, "EARLIER_WITNESSES", 200)
    assert peak(8_000) < 1.5 * peak(800)

    monkeypatch.setattr(checkpoints, "LAST_WITNESSES", 2)
    monkeypatch.setattr(checkpoints, "EARLIER_WITNESSES", 2)
    tamper(consent_database, "DELETE FROM consent_audit_log WHERE id > 7")
    assert await verdict(engine, signer, seen) == (False, 8)
    tamper(consent_database, "DELETE FROM consent_audit_log WHERE id > 2")
    assert await verdict(engine, signer, seen) == (False, 3)


@pytest.mark.usefixtures("trail_of_eight")
async def test_verify_goes_on_where_it_stopped_for_want_of_time(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "BATCH", 3)
    ticks = iter(range(1_000))
    monkeypatch.setattr(trail, "monotonic", lambda: next(ticks))
    first = await trail.verify(engine, seconds=2)
    assert (first.ok, first.complete, first.reached.rows) == (True, False, 3)
    rest = await trail.verify(engine, start=first.reached)
    assert (rest.ok, rest.complete, rest.reached.rows) == (True, True, 8)
    forged = first.reached._replace(hash=bytes(32))
    assert (await trail.verify(engine, start=forged)).first_broken == 4


async def test_a_checkpoint_is_written_when_it_is_time_and_not_before(
    engine: AsyncEngine, vault: Vault, records: Records, signer: Signer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def rows() -> list[int]:
        await checkpoints.keep(engine, records, signer)
        return [each.rows for each in checkpoints.read(records)]

    assert await rows() == []
    await grant(engine, vault, "person0@example.com")
    assert await rows() == [1]  # the first one at once
    await grant(engine, vault, "person1@example.com")
    assert await rows() == [1]
    monkeypatch.setattr(checkpoints, "EVERY_ROWS", 3)
    for number in range(2, 9):
        await grant(engine, vault, f"person{number}@example.com")
    assert await rows() == [1, 4, 7]
    assert await rows() == [1, 4, 7]
    monkeypatch.setattr(checkpoints, "EVERY", checkpoints.EVERY * 0)
    assert await rows() == [1, 4, 7, 9]
    assert all(signer.is_ours(each) for each in checkpoints.read(records))


@pytest.mark.usefixtures("trail_of_eight")
async def test_a_trail_that_contradicts_its_last_checkpoint_gets_no_further_one(
    engine: AsyncEngine, vault: Vault, records: Records, signer: Signer,
    consent_database: DatabaseUrl, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(checkpoints, "EVERY", checkpoints.EVERY * 0)
    await checkpoints.keep(engine, records, signer)
    tamper(consent_database, "DELETE FROM consent_audit_log WHERE id > 5")
    for number in range(6):  # grown past the checkpoint again
        await grant(engine, vault, f"late{number}@example.com")
    await checkpoints.keep(engine, records, signer)
    assert [each.rows for each in checkpoints.read(records)] == [8]
    assert await verdict(engine, signer, list(checkpoints.read(records))) == (False, 1)


def test_a_line_that_a_crash_cut_off_swallows_no_other(records: Records) -> None:
    records.write([{"a": 1}])
    with records.path.open("a", encoding="utf-8") as file:
        file.write('{"a": 2, "b"')
    records.write([{"a": 3}])
    assert list(records.read()) == [{"a": 1}, {"a": 3}]
    assert records.last() == {"a": 3}
    assert records.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("trail_of_eight")
async def test_an_auditor_with_a_copy_of_the_checkpoints_needs_not_trust_our_file(
    client: Client, engine: AsyncEngine, settings: ConsentSettings, signer: Signer,
    consent_database: DatabaseUrl, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(checkpoints, "EVERY", checkpoints.EVERY * 0)
    ours = Records(settings.consent_records_dir / checkpoints.FILE)
    await checkpoints.keep(engine, ours, signer)
    handed_out = await get(client, "/api/consent/audit/checkpoints", ADMIN)
    assert handed_out["public_keys"] == signer.public_keys
    (copy,) = handed_out["checkpoints"]
    text = f"ostoja consent trail\n{copy['rows']}\n{copy['hash']}\n{copy['at']}\n"
    public = Ed25519PublicKey.from_public_bytes(b64decode(handed_out["public_keys"][copy["key"]]))
    public.verify(b64decode(copy["signature"]), text.encode())
    found = await get(client, "/api/consent/audit/verify", ADMIN)
    assert found == {
        "ok": True, "rows": 8, "first_broken": None, "next_cursor": None,
        "last_checkpoint": 8, "forged_checkpoints": 0,
    }  # fmt: skip

    tamper(consent_database, "DELETE FROM consent_audit_log WHERE id > 5")
    ours.path.unlink()
    assert (await get(client, "/api/consent/audit/verify", ADMIN))["ok"]
    status, body = await post(client, "/api/consent/audit/verify", {"checkpoints": [copy]}, **ADMIN)
    assert (status, body["ok"], body["first_broken"]) == (200, False, 6)
    forged = {**copy, "rows": 7}
    status, body = await post(
        client, "/api/consent/audit/verify", {"checkpoints": [forged]}, **ADMIN
    )
    assert (status, body["errors"][0]["field"]) == (422, "checkpoints.0.signature")


@pytest.mark.usefixtures("trail_of_eight")
async def test_the_command_verifies_all_and_says_so_by_its_exit_code(
    settings: ConsentSettings, consent_database: DatabaseUrl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await commands.verify(settings) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 8
    tamper(consent_database, "UPDATE consent_audit_log SET reason = 'x' WHERE id = 3")
    assert await commands.verify(settings) == 1
    assert json.loads(capsys.readouterr().out)["first_broken"] == 3


@pytest.mark.usefixtures("trail_of_eight")
async def test_a_writer_s_steps_cost_the_same_however_long_the_trail_is(
    consent_database: DatabaseUrl,
) -> None:
    """Each statement on the trail finds its rows by an index."""
    questions = (
        "SELECT id, hash FROM consent_audit_log ORDER BY id DESC LIMIT 1",
        (
            "SELECT * FROM consent_audit_log WHERE person_id = gen_random_uuid() AND id > 0"
            " ORDER BY id LIMIT 1000"
        ),
        (
            "SELECT action FROM consent_audit_log WHERE person_id = gen_random_uuid()"
            ' ORDER BY "timestamp" DESC, id DESC LIMIT 1'
        ),
        "SELECT hash FROM consent_audit_log WHERE id = 5",
    )
    with closing(psycopg2.connect(consent_database.owner_url)) as owner, owner.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        for question in questions:
            cursor.execute(f"EXPLAIN {question}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Seq Scan" not in plan, plan
