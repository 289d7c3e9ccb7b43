"""Data is deleted after its retention, and the trail still verifies."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.consent.store import data_subjects, upkeep
from services.consent.store.vault import Vault
from services.consent.trail import chain
from tests.integration.consent.conftest import KEPT, grant, restrictions, scalar
from tests.integration.consent.test_http import ANNA, Client, client, entries, post
from tests.integration.consent.test_trail import tamper
from tests.support.databases import DatabaseUrl

pytestmark = pytest.mark.promise("P5")

__all__ = ["client"]  # a fixture

JAN, EWA = "jan@example.com", "ewa@example.com"


async def purge(engine: AsyncEngine, kept: dict[str, int]) -> None:
    async with engine.begin() as tx:
        await upkeep.purge(tx, kept)


async def known(engine: AsyncEngine, vault: Vault) -> set[str]:
    async with engine.begin() as tx:
        found = {email: await data_subjects.find(tx, vault, email) for email in (ANNA, JAN, EWA)}
    return {email for email, subject in found.items() if subject is not None}


@pytest.fixture
async def three(client: Client, engine: AsyncEngine, vault: Vault) -> None:
    """Anna agrees, Jan agreed and withdrew, Ewa only ever withdrew."""
    for email in (ANNA, JAN):
        await grant(engine, vault, email)
    for email in (JAN, EWA):
        await post(client, "/api/unsubscribe", {"email": email})


@pytest.mark.usefixtures("three")
async def test_subjects_are_kept_for_their_own_retention_and_while_they_agree(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
    await purge(engine, KEPT)
    assert await known(engine, vault) == {ANNA, JAN, EWA}
    await purge(engine, KEPT | {"withdrawals": 0})
    assert await known(engine, vault) == {ANNA, JAN}
    await purge(engine, KEPT | {"withdrawals": 0, "proofs": 0})
    assert await known(engine, vault) == {ANNA}
    assert await entries(client, JAN) == []
    assert (await chain.verify(engine)).ok
    async with engine.begin() as tx:  # and no one gets mail again
        for email in (JAN, EWA):
            subject = await data_subjects.get_or_create(tx, vault, email, data_subjects.Lock.CHANGE)
            hashed = vault.suppression_hash(email)
            assert (await restrictions(tx, hashed, subject=subject.id)).suppressed


async def test_client_address_and_browser_expire_and_the_trail_still_verifies(
    client: Client, engine: AsyncEngine, vault: Vault, consent_database: DatabaseUrl
) -> None:
    await grant(engine, vault, ANNA)
    await post(client, "/api/unsubscribe", {"email": ANNA})
    before = await entries(client, ANNA)
    assert [each["ip_address"] for each in before] == ["203.0.113.7", "203.0.113.9"]
    assert all(each["user_agent"] for each in before)
    await purge(engine, KEPT)
    assert await entries(client, ANNA) == before

    tamper(
        consent_database, "UPDATE trail_origin SET written_at = written_at - interval '366 days'"
    )
    await purge(engine, KEPT)
    gone: dict[str, Any] = {"ip_address": None, "user_agent": None}
    assert await entries(client, ANNA) == [each | gone for each in before]
    assert (await chain.verify(engine)).ok
    assert await scalar(engine, "SELECT count(*) FROM trail_origin") == 0


async def test_an_unconfirmed_erasure_is_deleted_and_can_be_requested_again(
    client: Client, engine: AsyncEngine
) -> None:
    await post(client, "/api/revoke-consent", {"email": EWA})
    await purge(engine, KEPT)
    counted = text("SELECT count(*) FROM erasure")
    async with engine.begin() as tx:
        assert await tx.scalar(counted) == 1
        await tx.execute(text("UPDATE erasure SET requested_at = now() - interval '31 days'"))
    await purge(engine, KEPT)
    async with engine.begin() as tx:
        assert await tx.scalar(counted) == 0
    await post(client, "/api/revoke-consent", {"email": EWA})
    async with engine.begin() as tx:
        assert await tx.scalar(counted) == 1
