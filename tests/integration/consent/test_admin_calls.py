"""The former record of calls with the admin key: what is queued is taken, and nothing changes."""

from functools import partial
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Broker, Message
from libs.common.messaging.consumer import consume
from services.consent import admin_calls, topology
from services.consent.store.vault import Vault
from tests.support.brokers import Vhost
from tests.support.consumers import until
from tests.support.contracts import golden
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually

DONE: dict[str, Any] = golden("call.record")
INTENDED = {**DONE, "phase": "intended", "status": None}


async def rows(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as tx:
        return list(await tx.execute(text("SELECT * FROM admin_action ORDER BY phase DESC")))


async def taken(engine: AsyncEngine, vault: Vault, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        await admin_calls.take(engine, vault, Message("", "call.record", body))


async def test_what_an_older_gateway_has_queued_is_two_rows_however_often_it_is_delivered(
    engine: AsyncEngine, vault: Vault, vhost: Vhost
) -> None:
    async with (
        Broker.connect(vhost.url("consent"), "consent") as consent,
        Broker.connect(vhost.url("gateway"), "gateway") as gateway,
    ):
        await eventually_connected(consent)
        await eventually_connected(gateway)
        await consent.declare(*topology.EXCHANGES, *topology.QUEUES)
        for body in (INTENDED, INTENDED, DONE | {"added": "later"}):
            message = Message(str(uuid4()), "call.record", body)
            await gateway.publish("consent.actions", "consent.actions", message)
        take = partial(admin_calls.take, engine, vault)
        async with consume(consent, topology.ACTIONS_QUEUE, take, prefetch=10):

            async def two() -> bool:
                return len(await rows(engine)) == 2

            await eventually(two)
    found = {(row.operator, row.phase, row.status) for row in await rows(engine)}
    assert found == {("ewa", "intended", None), ("ewa", "done", 200)}


async def eventually_connected(broker: Broker) -> None:
    await until(lambda: broker.connected)


async def test_the_record_holds_no_address(engine: AsyncEngine, vault: Vault) -> None:
    await taken(engine, vault, DONE | {"subject": "Ala@Example.com"})
    await taken(engine, vault, INTENDED | {"subject": "not an address"})
    intended, done = await rows(engine)
    assert "ala@" not in str(done).lower()
    assert bytes(done.subject_hash) == vault.suppression_hash("ala@example.com")
    assert intended.subject_hash is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE admin_action SET operator = 'nobody'",
        "DELETE FROM admin_action",
        "TRUNCATE admin_action",
    ],
)
async def test_no_one_can_change_or_delete_the_record(
    engine: AsyncEngine, vault: Vault, consent_database: DatabaseUrl, statement: str
) -> None:
    await taken(engine, vault, DONE)
    with pytest.raises(DBAPIError):
        async with engine.begin() as tx:
            await tx.execute(text(statement))
    with (
        psycopg2.connect(consent_database.owner_url) as owner,
        owner.cursor() as cursor,
        pytest.raises(psycopg2.errors.InsufficientPrivilege),
    ):
        cursor.execute(statement)
    assert [row.operator for row in await rows(engine)] == ["ewa"]


async def test_the_purge_deletes_old_actions_and_none_younger_than_a_year(
    engine: AsyncEngine, vault: Vault
) -> None:
    old = {"id": str(uuid4())}
    await taken(engine, vault, DONE)
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
    await admin_calls.purge(engine, 1825)
    assert [str(row.id) for row in await rows(engine)] == [DONE["id"]]
    with pytest.raises(DBAPIError):
        await admin_calls.purge(engine, 0)
    assert len(await rows(engine)) == 1
