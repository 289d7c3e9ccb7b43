import asyncio
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError

from services.consent.trail import chain
from tests.integration.consent.conftest import ANNA, Consent

pytestmark = [pytest.mark.quick, pytest.mark.promise("P5")]

ROWS = 8
REFUSED = (
    "UPDATE consent_audit_log SET action = 'erased'",
    "DELETE FROM consent_audit_log",
    "TRUNCATE consent_audit_log",
)


async def verified(consent: Consent) -> tuple[bool, int, int | None]:
    found = await chain.verify(consent.engine)
    return found.ok, found.reached.rows, found.first_broken


async def test_concurrent_writers_keep_one_chain(consent: Consent) -> None:
    connections = asyncio.Semaphore(16)  # as many as the pool has: none waits for it in vain

    async def write(number: int) -> bool:
        async with connections:
            return await consent.grant(f"person{number % 7}@example.com")

    assert all(await asyncio.gather(*map(write, range(60))))
    assert await verified(consent) == (True, 60, None)


async def test_a_rolled_back_entry_leaves_no_gap(consent: Consent) -> None:
    assert await consent.grant("anna@example.com")
    async with consent.engine.begin() as tx:
        await consent.withdraw(tx=tx)
        await tx.rollback()
    assert await consent.grant("anna@example.com")
    assert await verified(consent) == (True, 2, None)


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
