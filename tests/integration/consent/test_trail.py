import asyncio
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.consent.store import data_subjects
from services.consent.store.vault import Vault
from services.consent.trail import chain
from tests.integration.consent.conftest import grant, rows, unsubscribe, withdraw
from tests.support.databases import DatabaseUrl

pytestmark = [pytest.mark.quick, pytest.mark.promise("P5")]

ROWS = 8
REFUSED = (
    "UPDATE consent_audit_log SET action = 'erased'",
    "DELETE FROM consent_audit_log",
    "TRUNCATE consent_audit_log",
)


def tamper(url: DatabaseUrl, *statements: str) -> None:
    """Do what someone with the owner's password could."""
    with closing(psycopg2.connect(url.owner_url)) as owner, owner, owner.cursor() as cursor:
        cursor.execute("ALTER TABLE consent_audit_log DISABLE TRIGGER USER")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("ALTER TABLE consent_audit_log ENABLE ALWAYS TRIGGER trail_link")
        cursor.execute("ALTER TABLE consent_audit_log ENABLE ALWAYS TRIGGER trail_refuse")


async def verified(engine: AsyncEngine) -> tuple[bool, int, int | None]:
    found = await chain.verify(engine)
    return found.ok, found.reached.rows, found.first_broken


@pytest.fixture
async def trail_of_eight(engine: AsyncEngine, vault: Vault) -> None:
    for number in range(ROWS):
        assert await grant(engine, vault, f"person{number}@example.com")


async def test_concurrent_writers_keep_one_chain(engine: AsyncEngine, vault: Vault) -> None:
    connections = asyncio.Semaphore(16)  # as many as the pool has: none waits for it in vain

    async def write(number: int) -> bool:
        async with connections:
            return await grant(engine, vault, f"person{number % 7}@example.com")

    assert all(await asyncio.gather(*map(write, range(60))))
    assert await verified(engine) == (True, 60, None)


async def test_a_rolled_back_entry_leaves_no_gap(engine: AsyncEngine, vault: Vault) -> None:
    assert await grant(engine, vault, "anna@example.com")
    async with engine.begin() as tx:
        await withdraw(tx, vault, unsubscribe("anna@example.com"))
        await tx.rollback()
    assert await grant(engine, vault, "anna@example.com")
    assert await verified(engine) == (True, 2, None)


@pytest.mark.usefixtures("trail_of_eight")
@pytest.mark.parametrize("statement", REFUSED)
async def test_nobody_may_do_more_than_append_be_it_the_owner_past_ordinary_triggers(
    engine: AsyncEngine, consent_database: DatabaseUrl, statement: str
) -> None:
    for refused in (statement, "SELECT FROM trail_head FOR UPDATE"):
        with pytest.raises(DBAPIError, match="permission denied"):
            await rows(engine, refused)
    past = "SET search_path = consent; SET session_replication_role = replica;"
    for url, before in ((consent_database.owner_url, ""), (consent_database.superuser_url, past)):
        with (
            closing(psycopg2.connect(url)) as owner,
            owner.cursor() as cursor,
            pytest.raises(psycopg2.errors.InsufficientPrivilege, match="append-only"),
        ):
            cursor.execute(before + statement)
    assert await verified(engine) == (True, ROWS, None)


async def test_a_writer_cannot_choose_id_time_or_hash(engine: AsyncEngine, vault: Vault) -> None:
    assert await grant(engine, vault, "anna@example.com")
    async with engine.begin() as tx:
        await tx.execute(
            text("""
                INSERT INTO consent_audit_log (id, subject_id, action, "timestamp", email, hash)
                SELECT 77, id, 'opt-in', '2020-01-01', 'x', 'y' FROM data_subject
            """)
        )
        rows = (await tx.execute(text('SELECT id, "timestamp" FROM consent_audit_log'))).all()
    assert [row.id for row in rows] == [1, 2]
    assert all(row.timestamp.year > 2020 for row in rows)
    assert (await chain.verify(engine)).ok


async def test_a_stored_row_contains_no_personal_data_in_clear(
    engine: AsyncEngine, vault: Vault, consent_database: DatabaseUrl
) -> None:
    assert await grant(engine, vault, "anna.kowalska@example.com")
    with closing(psycopg2.connect(consent_database.superuser_url)) as superuser:
        cursor = superuser.cursor()
        cursor.execute(
            "SELECT row_to_json(t)::text || encode(email, 'escape') || encode(evidence, 'escape')"
            " FROM consent.consent_audit_log t"
        )
        (row,) = cursor.fetchone() or ("",)
    for secret in ("anna", "203.0.113.7", "pytest", "s-1", "Zgadzam"):
        assert secret not in row


async def test_entries_are_read_as_given_and_in_order(engine: AsyncEngine, vault: Vault) -> None:
    assert await grant(engine, vault, "Anna.Kowalska@Example.com")
    async with engine.begin() as tx:
        entry = unsubscribe("anna.kowalska@example.com", "za często")
        await withdraw(tx, vault, entry)
        subject = await data_subjects.find(tx, vault, "anna.kowalska@example.com")
        assert subject is not None
        found = await chain.entries(tx, subject.id, subject.key(vault))
    assert [entry["action"] for entry in found] == ["opt-in", "unsubscribe"]
    assert found[0]["email"] == "Anna.Kowalska@Example.com"
    assert found[0]["ip_address"] == "203.0.113.7"
    assert found[0]["user_agent"] == "pytest"
    assert found[0]["session_id"] == "s-1"
    assert found[0]["evidence"]["wording"].startswith("Zgadzam się")
    assert len(found[0]["evidence"]["wording_sha256"]) == 64
    assert found[0]["evidence"]["language"] == "pl"
    assert found[1]["reason"] == "za często"
