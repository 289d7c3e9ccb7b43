"""Restriction (Art. 18), objection (Art. 21), and requests that nobody confirmed (Art. 12(3))."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.consent.rules import PermitDecision
from services.consent.settings import ConsentSettings
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import KEPT, give_back, grant, rows
from tests.integration.consent.test_http import (
    ADMIN,
    ANNA,
    Client,
    client,
    entries,
    get,
    permit,
    post,
    serving,
)
from tests.integration.consent.test_permits import Consent
from tests.integration.consent.test_retention import known, purge
from tests.support.eventually import eventually

__all__ = ["client"]  # a fixture


async def restrict(client: Client, **more: bool) -> None:
    status, body = await post(client, "/api/consent/restrict", {"email": ANNA, **more}, **ADMIN)
    assert (status, body["restricted"]) == (200, not more)


async def test_nothing_is_sent_or_erased_while_the_processing_is_restricted(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
    consent = Consent(engine, vault)
    assert await grant(engine, vault, ANNA)
    await restrict(client)
    assert await consent.ask(uuid4()) is PermitDecision.CLOSED
    assert (await get(client, f"/api/consent/audit/{ANNA}", ADMIN))["restricted_since"]
    status, problem = await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
    assert (status, "restricted" in problem["detail"]) == (409, True)
    assert await entries(client, ANNA)  # nobody has forgotten them
    await restrict(client, lifted=True)
    assert (await get(client, f"/api/consent/audit/{ANNA}", ADMIN))["restricted_since"] is None
    assert (await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN))[0] == 200
    assert await entries(client, ANNA) == []


class Answering:
    """The other services, as far as they answer an export."""

    def __init__(self) -> None:
        self.said = ["remont kuchni"]

    async def ask(self, *_: Any, **__: Any) -> Any:
        return {"records": {"messages": [{"body": each} for each in self.said]}, "next": None}


async def test_a_purge_during_a_restriction_spares_the_person_and_what_was_kept(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> None:
    nothing_stays, others = dict.fromkeys(KEPT, 0), Answering()
    async with serving(engine, vault, settings, others) as client:
        assert (await post(client, "/api/unsubscribe", {"email": ANNA}))[0] == 200
        await restrict(client)
        others.said = []  # the other services have purged since
        await restrict(client)  # pressed again: what was kept first stays
        await purge(engine, nothing_stays)
        held = (await get(client, f"/api/consent/export/{ANNA}", ADMIN))["services"]
        assert held["followups"]["messages"] == []
        kept = held["consent"]["kept_while_restricted"]["services"]
        for service in ("followups", "alerts"):
            assert kept[service] == {"messages": [{"body": "remont kuchni"}]}
        assert [each["action"] for each in kept["consent"]["entries"]] == ["unsubscribe"]
        await restrict(client, lifted=True)
    await purge(engine, nothing_stays)
    assert await known(engine, vault) == set()
    assert await rows(engine, "SELECT 1 FROM restriction") == []


async def test_a_request_that_nobody_confirmed_is_listed_with_its_age(
    client: Client, engine: AsyncEngine
) -> None:
    await post(client, "/api/revoke-consent", {"email": ANNA})
    await rows(engine, "UPDATE erasure SET requested_at = now() - interval '40 days'")
    (item,) = (await get(client, "/api/consent/erasures/awaiting", ADMIN))["items"]
    assert item["email"] == ANNA
    assert item["requested_at"] < item["due_at"]
    assert (await get(client, "/api/consent/erasures", ADMIN))["awaiting"] == 1


async def test_a_request_is_dismissed_once_and_the_withdrawal_stays(client: Client) -> None:
    path = "/api/consent/erasures/dismiss"
    assert (await post(client, path, {"email": ANNA}, **ADMIN))[0] == 404  # nobody asked
    await post(client, "/api/revoke-consent", {"email": ANNA})
    assert (await post(client, path, {"email": ANNA}, **ADMIN))[0] == 200
    assert (await get(client, "/api/consent/erasures/awaiting", ADMIN))["items"] == []
    assert (await post(client, path, {"email": ANNA}, **ADMIN))[0] == 404
    assert (await get(client, f"/api/unsubscribe/status/{ANNA}", ADMIN))["unsubscribed"]


async def test_an_erasure_that_has_begun_is_done_though_its_request_is_dismissed(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> None:
    assert await grant(engine, vault, ANNA)
    message = await permit(engine, vault, ANNA)
    patient = settings.model_copy(update={"withdrawal_wait_seconds": 20.0})
    async with serving(engine, vault, patient) as client:
        erasing = asyncio.create_task(post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN))

        async def dismissed() -> bool:
            path = "/api/consent/erasures/dismiss"
            return (await post(client, path, {"email": ANNA}, **ADMIN))[0] == 200

        await eventually(dismissed)
        async with engine.begin() as tx:
            await give_back(tx, message)
        assert (await erasing)[0] == 200
        assert await entries(client, ANNA) == []


@pytest.mark.parametrize("objection", [True, False])
async def test_an_objection_withdraws_and_is_recorded_as_such(
    client: Client,
    objection: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    said = {"email": ANNA, "objection": objection}
    assert (await post(client, "/api/unsubscribe", said))[0] == 200
    (entry,) = await entries(client, ANNA)
    assert entry["evidence"]["source"] == ("objection" if objection else "api")
