"""Data is deleted after its retention, and the trail still verifies."""

from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError

from services.consent.store import data_subjects
from services.consent.trail import chain
from tests.integration.consent.conftest import ANNA, Consent

JAN, EWA = "jan@example.com", "ewa@example.com"


async def known(consent: Consent) -> set[str]:
    async with consent.engine.begin() as tx:
        found = {
            email: await data_subjects.find(tx, consent.vault, email) for email in (ANNA, JAN, EWA)
        }
    return {email for email, subject in found.items() if subject is not None}


@pytest.fixture
async def three(consent: Consent) -> None:
    """Anna agrees, Jan agreed and withdrew, Ewa only ever withdrew."""
    for email in (ANNA, JAN):
        await consent.grant(email)
    for email in (JAN, EWA):
        await consent.post("/api/unsubscribe", {"email": email})


@pytest.mark.promise("P5")
@pytest.mark.usefixtures("three")
async def test_subjects_are_kept_for_their_own_retention_and_while_they_agree(
    consent: Consent,
) -> None:
    await consent.purge()
    assert await known(consent) == {ANNA, JAN, EWA}
    await consent.purge(withdrawals=0)
    assert await known(consent) == {ANNA, JAN}
    await consent.purge(withdrawals=0, proofs=0)
    assert await known(consent) == {ANNA}
    assert await consent.entries(JAN) == []
    assert (await chain.verify(consent.engine)).ok
    for email in (JAN, EWA):  # and no one gets mail again
        assert (await consent.suppression(email)).suppressed


@pytest.mark.promise("P5")
async def test_client_address_and_browser_expire_and_the_trail_still_verifies(
    consent: Consent,
) -> None:
    await consent.grant(ANNA)
    await consent.post("/api/unsubscribe", {"email": ANNA})
    before = await consent.entries(ANNA)
    assert [each["ip_address"] for each in before] == ["203.0.113.7", "203.0.113.9"]
    assert all(each["user_agent"] for each in before)
    await consent.purge()
    assert await consent.entries(ANNA) == before

    consent.tamper("UPDATE trail_origin SET written_at = written_at - interval '366 days'")
    await consent.purge()
    gone: dict[str, Any] = {"ip_address": None, "user_agent": None}
    assert await consent.entries(ANNA) == [each | gone for each in before]
    assert (await chain.verify(consent.engine)).ok
    assert await consent.scalar("SELECT count(*) FROM trail_origin") == 0


@pytest.mark.promise("P5")
async def test_an_unconfirmed_erasure_is_deleted_and_can_be_requested_again(
    consent: Consent,
) -> None:
    await consent.post("/api/revoke-consent", {"email": EWA})
    await consent.purge()
    counted = "SELECT count(*) FROM erasure"
    assert await consent.scalar(counted) == 1
    await consent.rows("UPDATE erasure SET requested_at = now() - interval '31 days'")
    await consent.purge()
    assert await consent.scalar(counted) == 0
    await consent.post("/api/revoke-consent", {"email": EWA})
    assert await consent.scalar(counted) == 1


# The former record of calls with the admin key: it ages out, and nothing changes it.

CALL = """
INSERT INTO admin_action (id, phase, at, key_id, operator, method, route, details, client_address,
    request_id, status)
VALUES (gen_random_uuid(), 'done', now(), 'k1', 'ewa', 'POST', '/api/dlq/retry', '{}', '192.0.2.1',
    'r1', 200)
RETURNING id
"""
ALL = "SELECT * FROM admin_action ORDER BY phase DESC"


@pytest.fixture
async def kept(consent: Consent) -> UUID:
    """The id of a call of before."""
    return UUID(str(await consent.scalar(CALL)))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE admin_action SET operator = 'nobody'",
        "DELETE FROM admin_action",
        "TRUNCATE admin_action",
    ],
)
async def test_no_one_can_change_or_delete_the_record(
    consent: Consent, kept: UUID, statement: str
) -> None:
    with pytest.raises(DBAPIError):
        await consent.rows(statement)
    with (
        psycopg2.connect(consent.database.owner_url) as owner,
        owner.cursor() as cursor,
        pytest.raises(psycopg2.errors.InsufficientPrivilege),
    ):
        cursor.execute(statement)
    assert [(UUID(str(row.id)), row.operator) for row in await consent.rows(ALL)] == [(kept, "ewa")]


async def test_the_purge_deletes_old_actions_and_none_younger_than_a_year(
    consent: Consent, kept: UUID
) -> None:
    # The time of recording is the table's default; the role may give another.
    await consent.rows(
        "INSERT INTO admin_action SELECT :id, phase, at, now() - interval '5 years', "
        "key_id, operator, method, route, details, subject_hash, client_address, "
        "request_id, status FROM admin_action",
        id=str(uuid4()),
    )
    assert await consent.purge() == 1
    assert [UUID(str(row.id)) for row in await consent.rows(ALL)] == [kept]
    with pytest.raises(DBAPIError):
        await consent.purge(calls=0)
    assert len(await consent.rows(ALL)) == 1
