"""The record of what was done with the admin key: complete, unchangeable, no address in it."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Broker, Message
from libs.common.messaging.consumer import consume
from services.consent import topology
from services.consent.admin_record import AdminRecord
from services.consent.store import actions
from services.consent.trail.vault import Vault
from tests.integration.consent.test_http import Client, client
from tests.support.brokers import Vhost
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually

CONTRACTS = Path(__file__).parents[2] / "contracts"
DONE: dict[str, Any] = json.loads((CONTRACTS / "call.record.json").read_text(encoding="utf-8"))
INTENDED = {**DONE, "phase": "intended", "status": None}
__all__ = ["client"]  # a fixture


async def post(client: Client, body: Any, caller: str = "admin") -> int:
    headers = {"X-Caller": caller}
    async with client.post("/internal/actions", json=body, headers=headers) as answer:
        return answer.status


async def rows(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as tx:
        return list(await tx.execute(text("SELECT * FROM admin_action ORDER BY phase DESC")))


async def test_an_admin_call_is_two_rows_however_often_it_is_delivered(
    client: Client, engine: AsyncEngine, vault: Vault, vhost: Vhost
) -> None:
    for body in (INTENDED, INTENDED, DONE | {"added": "later"}):
        assert await post(client, body) == 201
    record = AdminRecord(engine, vault)
    async with (
        Broker.connect(vhost.url("consent"), "consent") as consent,
        Broker.connect(vhost.url("gateway"), "gateway") as gateway,
    ):
        await eventually_connected(consent)
        await eventually_connected(gateway)
        await consent.declare(*topology.EXCHANGES, *topology.QUEUES)
        async with consume(consent, topology.ACTIONS_QUEUE, record.consume, prefetch=10):
            other = DONE | {"id": str(uuid4()), "operator": "ola", "phase": "intended"}
            for body in (DONE, other | {"status": None}):
                message = Message(str(uuid4()), "call.record", body)
                await gateway.publish("consent.actions", "consent.actions", message)

            async def three() -> bool:
                return len(await rows(engine)) == 3

            await eventually(three)
    found = {(row.operator, row.phase, row.status) for row in await rows(engine)}
    assert found == {("ewa", "intended", None), ("ewa", "done", 200), ("ola", "intended", None)}


async def eventually_connected(broker: Broker) -> None:
    async def so() -> bool:
        return broker.connected

    await eventually(so)


async def test_the_record_holds_no_address_and_is_found_by_its_hash_after_an_erasure(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
    await post(client, DONE | {"subject": "Ala@Example.com"})
    (row,) = await rows(engine)
    assert "ala@" not in str(row).lower()
    # No data subject is known here, as after an erasure; the hash needs none.
    assert bytes(row.subject_hash) == vault.suppression_hash("ala@example.com")
    assert row.operator == "ewa"


async def test_a_call_about_a_malformed_address_is_recorded(
    client: Client, engine: AsyncEngine
) -> None:
    assert await post(client, DONE | {"subject": "not an address"}) == 201
    (row,) = await rows(engine)
    assert row.subject_hash is None


async def test_only_the_gateway_may_add_to_the_record_for_an_admin(client: Client) -> None:
    assert await post(client, DONE, "service") == 401
    assert await post(client, DONE | {"phase": "undone"}) == 422


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE admin_action SET operator = 'nobody'",
        "DELETE FROM admin_action",
        "TRUNCATE admin_action",
    ],
)
async def test_no_one_can_change_or_delete_the_record(
    client: Client, engine: AsyncEngine, consent_database: DatabaseUrl, statement: str
) -> None:
    await post(client, DONE)
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
    client: Client, engine: AsyncEngine
) -> None:
    old = {"id": str(uuid4())}
    await post(client, DONE)
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
        await actions.purge(tx, 1825)
    assert [str(row.id) for row in await rows(engine)] == [DONE["id"]]
    with pytest.raises(DBAPIError):
        async with engine.begin() as tx:
            await actions.purge(tx, 0)
    assert len(await rows(engine)) == 1
