"""Data is deleted after its retention, and the trail still verifies."""

from typing import Any

import pytest

from services.consent.store import data_subjects
from services.consent.trail import chain
from tests.integration.consent.conftest import ANNA, Consent

pytestmark = pytest.mark.promise("P5")


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
