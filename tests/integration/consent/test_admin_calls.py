"""The former record of calls with the admin key: it ages out, and nothing changes it."""

from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError

from tests.integration.consent.conftest import Consent

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
