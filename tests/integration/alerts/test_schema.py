"""The dead-letter relation: only its owner creates it, and asking twice does no harm."""

from collections.abc import AsyncIterator

import pytest

from libs.common.database import postgres
from services.alerts.store.schema import NotOwner, Schema
from tests.conftest import NewDatabase
from tests.integration.alerts.conftest import Alerts
from tests.support.databases import DatabaseUrl

INDEXES = ["dead_letter_queue_created", "dead_letter_queue_status_created"]


@pytest.fixture
async def empty(database: NewDatabase) -> DatabaseUrl:
    return await database("alerts", migrated=False)


@pytest.fixture
async def schema(empty: DatabaseUrl) -> AsyncIterator[Schema]:
    async with postgres.connect(empty, application_name="test") as engine:
        yield Schema(engine, empty, empty.owner_url)


async def test_a_missing_schema_is_created_once(schema: Schema) -> None:
    before = await schema.status()
    assert (before.current, before.tables, before.indexes) == (False, [], [])
    found, made = await schema.create()
    assert made
    assert found.current
    assert {"dead_letter_queue", "delivery"} <= set(found.tables)
    assert found.indexes == INDEXES
    assert await schema.create() == (found, False)


async def test_nothing_is_created_without_the_owners_access(empty: DatabaseUrl) -> None:
    async with postgres.connect(empty, application_name="test") as engine:
        schema = Schema(engine, empty, None)
        with pytest.raises(NotOwner):
            await schema.create()
        assert (await schema.status()).tables == []


async def test_the_service_shows_the_schema(subject: Alerts) -> None:
    status, body = await subject.http("POST", "/api/migration/create-dead-letter-queue")
    assert (status, body["success"], body["indexes"]) == (200, True, INDEXES)
    assert "dead_letter_queue" in body["tables"]
    status, state = await subject.http("GET", "/api/migration/dlq-status")
    assert (status, state["exists"], state["up_to_date"]) == (200, True, True)
