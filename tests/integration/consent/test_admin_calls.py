"""The former record of calls with the admin key: it ages out, and nothing changes it."""

from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.consent.store import upkeep
from tests.integration.consent.conftest import KEPT
from tests.support.databases import DatabaseUrl

CALL = """
INSERT INTO admin_action (id, phase, at, key_id, operator, method, route, details, client_address,
    request_id, status)
VALUES (gen_random_uuid(), 'done', now(), 'k1', 'ewa', 'POST', '/api/dlq/retry', '{}', '192.0.2.1',
    'r1', 200)
RETURNING id
"""


async def rows(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as tx:
        return list(await tx.execute(text("SELECT * FROM admin_action ORDER BY phase DESC")))


@pytest.fixture
async def kept(engine: AsyncEngine) -> UUID:
    """The id of a call of before."""
    async with engine.begin() as tx:
        return UUID(str((await tx.execute(text(CALL))).scalar_one()))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE admin_action SET operator = 'nobody'",
        "DELETE FROM admin_action",
        "TRUNCATE admin_action",
    ],
)
async def test_no_one_can_change_or_delete_the_record(
    engine: AsyncEngine, kept: UUID, consent_database: DatabaseUrl, statement: str
) -> None:
    with pytest.raises(DBAPIError):
        async with engine.begin() as tx:
            await tx.execute(text(statement))
    with (
        psycopg2.connect(consent_database.owner_url) as owner,
        owner.cursor() as cursor,
        pytest.raises(psycopg2.errors.InsufficientPrivilege),
    ):
        cursor.execute(statement)
    assert [(UUID(str(row.id)), row.operator) for row in await rows(engine)] == [(kept, "ewa")]


async def test_the_purge_deletes_old_actions_and_none_younger_than_a_year(
    engine: AsyncEngine, kept: UUID
) -> None:
    old = {"id": str(uuid4())}
    async with engine.begin() as tx:
        # The time of recording is the table's default; the role may give another.
        await tx.execute(
            text(
                "INSERT INTO admin_action SELECT :id, phase, at, now() - interval '5 years', "
                "key_id, operator, method, route, details, subject_hash, client_address, "
                "request_id, status FROM admin_action"
            ),
            old,
        )
    assert await purged(engine, 1825) == 1
    assert [UUID(str(row.id)) for row in await rows(engine)] == [kept]
    with pytest.raises(DBAPIError):
        await purged(engine, 0)
    assert len(await rows(engine)) == 1


async def purged(engine: AsyncEngine, calls: int) -> int:
    async with engine.begin() as tx:
        return await upkeep.purge(tx, KEPT | {"calls": calls})
