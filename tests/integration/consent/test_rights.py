"""Restriction (Art. 18), objection (Art. 21), and requests that nobody confirmed (Art. 12(3))."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from services.consent.rules import PermitDecision
from tests.integration.consent.conftest import ADMIN, ANNA, KEPT, Consent
from tests.integration.consent.test_retention import known
from tests.support.eventually import eventually


async def restrict(consent: Consent, **more: bool) -> None:
    status, body = await consent.post("/api/consent/restrict", {"email": ANNA, **more}, **ADMIN)
    assert (status, body["restricted"]) == (200, not more)


async def test_nothing_is_sent_or_erased_while_the_processing_is_restricted(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA)
    await restrict(consent)
    assert await consent.ask() is PermitDecision.CLOSED
    assert (await consent.get(f"/api/consent/audit/{ANNA}", ADMIN))["restricted_since"]
    status, problem = await consent.post("/api/consent/erase", {"email": ANNA}, **ADMIN)
    assert (status, "restricted" in problem["detail"]) == (409, True)
    assert await consent.entries(ANNA)  # nobody has forgotten them
    await restrict(consent, lifted=True)
    assert (await consent.get(f"/api/consent/audit/{ANNA}", ADMIN))["restricted_since"] is None
    assert (await consent.post("/api/consent/erase", {"email": ANNA}, **ADMIN))[0] == 200
    assert await consent.entries(ANNA) == []


class Answering:
    """The other services, as far as they answer an export."""

    def __init__(self) -> None:
        self.said = ["remont kuchni"]

    async def ask(self, *_: Any, **__: Any) -> Any:
        return {"records": {"messages": [{"body": each} for each in self.said]}, "next": None}


async def test_a_purge_during_a_restriction_spares_the_person_and_what_was_kept(
    consent: Consent,
) -> None:
    nothing_stays, others = dict.fromkeys(KEPT, 0), Answering()
    async with consent.serving(requester=others) as client:
        assert (await client.post("/api/unsubscribe", {"email": ANNA}))[0] == 200
        await restrict(client)
        others.said = []  # the other services have purged since
        await restrict(client)  # pressed again: what was kept first stays
        await consent.purge(**nothing_stays)
        held = (await client.get(f"/api/consent/export/{ANNA}", ADMIN))["services"]
        assert held["followups"]["messages"] == []
        kept = held["consent"]["kept_while_restricted"]["services"]
        for service in ("followups", "alerts"):
            assert kept[service] == {"messages": [{"body": "remont kuchni"}]}
        assert [each["action"] for each in kept["consent"]["entries"]] == ["unsubscribe"]
        await restrict(client, lifted=True)
    await consent.purge(**nothing_stays)
    assert await known(consent) == set()
    assert await consent.rows("SELECT 1 FROM restriction") == []


async def test_a_request_that_nobody_confirmed_is_listed_with_its_age(consent: Consent) -> None:
    await consent.post("/api/revoke-consent", {"email": ANNA})
    await consent.rows("UPDATE erasure SET requested_at = now() - interval '40 days'")
    (item,) = (await consent.get("/api/consent/erasures/awaiting", ADMIN))["items"]
    assert item["email"] == ANNA
    assert item["requested_at"] < item["due_at"]
    assert (await consent.get("/api/consent/erasures", ADMIN))["awaiting"] == 1


async def test_a_request_is_dismissed_once_and_the_withdrawal_stays(consent: Consent) -> None:
    path = "/api/consent/erasures/dismiss"
    assert (await consent.post(path, {"email": ANNA}, **ADMIN))[0] == 404  # nobody asked
    await consent.post("/api/revoke-consent", {"email": ANNA})
    assert (await consent.post(path, {"email": ANNA}, **ADMIN))[0] == 200
    assert (await consent.get("/api/consent/erasures/awaiting", ADMIN))["items"] == []
    assert (await consent.post(path, {"email": ANNA}, **ADMIN))[0] == 404
    assert (await consent.get(f"/api/unsubscribe/status/{ANNA}", ADMIN))["unsubscribed"]


async def test_an_erasure_that_has_begun_is_done_though_its_request_is_dismissed(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA)
    message = uuid4()
    await consent.permit(message=message)
    async with consent.with_settings(withdrawal_wait_seconds=20.0).serving() as client:
        erasing = asyncio.create_task(client.post("/api/consent/erase", {"email": ANNA}, **ADMIN))

        async def dismissed() -> bool:
            path = "/api/consent/erasures/dismiss"
            return (await client.post(path, {"email": ANNA}, **ADMIN))[0] == 200

        await eventually(dismissed)
        await consent.give_back(message)
        assert (await erasing)[0] == 200
        assert await client.entries(ANNA) == []


@pytest.mark.parametrize("objection", [True, False])
async def test_an_objection_withdraws_and_is_recorded_as_such(
    consent: Consent, *, objection: bool
) -> None:
    said = {"email": ANNA, "objection": objection}
    assert (await consent.post("/api/unsubscribe", said))[0] == 200
    (entry,) = await consent.entries(ANNA)
    assert entry["evidence"]["source"] == ("objection" if objection else "api")
