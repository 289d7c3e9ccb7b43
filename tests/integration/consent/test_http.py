"""The routes against a real database; the gateway's part is played by the headers it would add."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest

from libs.common.database import schema
from services.consent.rules import PermitDecision
from services.consent.store import upkeep
from tests.integration.consent.conftest import (
    ADMIN,
    ANNA,
    KEPT,
    REFUSED,
    Consent,
)
from tests.integration.consent.test_retention import known
from tests.support.eventually import eventually

TABLES = Path(upkeep.__file__).with_name("schema.sql")


async def test_unsubscribe_is_recorded_published_and_shown(consent: Consent) -> None:
    await consent.post("/api/opt-in", {"email": ANNA, "text": "tak"})
    answer = await consent.post("/api/unsubscribe", {"email": ANNA, "reason": "za często"})
    assert answer == (200, {"success": True, "email": ANNA, "unsubscribed": True})
    assert [entry["action"] for entry in await consent.entries(ANNA)] == ["opt-in", "unsubscribe"]
    assert (await consent.get(f"/api/unsubscribe/status/{ANNA}"))["unsubscribed"] is True
    assert await consent.sent() == ["consent.granted", "consent.withdrawn"]


async def test_a_key_asks_for_several_people_at_once(consent: Consent) -> None:
    await consent.post("/api/opt-in", {"email": ANNA, "text": "tak"})
    path, asked = "/api/unsubscribe/status", {"subjects": [ANNA.upper(), "+48600700800"]}
    headers = {"X-Caller": "service"}
    _, answer = await consent.post(path, asked, **headers)
    anna, nobody = answer["items"]
    one = await consent.get(f"{path}/{ANNA}", headers=headers)
    assert anna == {"subject": ANNA, "purposes": one["purposes"]}
    assert nobody["subject"] == "+48600700800"
    for refused in (["x"], [ANNA] * 51):
        assert (await consent.post(path, {"subjects": refused}, **headers))[0] == 422
    assert (await consent.post(path, asked))[0] == 401


async def test_the_public_status_shows_only_unsubscribed_and_a_key_or_the_link_all(
    consent: Consent,
) -> None:
    await consent.post("/api/opt-in", {"email": ANNA, "text": "tak"})
    path = f"/api/unsubscribe/status/{ANNA}"
    names = ("email", "consents", "purposes", "restricted_since", "last_action", "last_action_at")
    bare = dict.fromkeys(names) | {"unsubscribed": False}
    for token in ("", consent.link("jan@example.com"), consent.link(ANNA, "erase"), "forged"):
        assert await consent.get(f"{path}?token={token}") == bare
    assert await consent.get("/api/unsubscribe/status/x@example.com") == bare
    for way, headers in (
        (path, ADMIN),
        (path, {"X-Caller": "service"}),
        (f"{path}?token={consent.link('ANNA@example.com')}", {}),
    ):
        status = await consent.get(way, headers)
        assert status["email"] == ANNA
        assert status["consents"] == {"marketing": True}
        stands = status["purposes"]["marketing"]["email"]
        assert (stands["state"], stands["wording"]) == ("granted", "test-0")
        assert status["last_action"] == "opt-in"
        assert status["last_action_at"].endswith("+00:00")


@pytest.mark.parametrize("path", ["unsubscribe", "revoke-consent", "consent/erase"])
async def test_a_withdrawal_or_erasure_with_an_open_permit_is_202_and_200_once_returned(
    consent: Consent, path: str
) -> None:
    """An erasure, too: the address could come back, and the next 200 would not see the permit."""
    assert await consent.grant(ANNA)
    message = uuid4()
    assert await consent.ask(message) is PermitDecision.GRANTED
    for _ in range(2):  # asking again is no shortcut
        status, body = await consent.post(f"/api/{path}", {"email": ANNA}, **ADMIN)
        assert (status, body["unsubscribed"], body["in_flight"]) == (202, True, 1)
    await consent.give_back(message)
    status, body = await consent.post(f"/api/{path}", {"email": ANNA}, **ADMIN)
    assert (status, "in_flight" in body) == (200, False)


async def test_a_newer_consent_during_the_wait_is_409(consent: Consent) -> None:
    assert await consent.grant(ANNA)
    await consent.permit()
    async with consent.with_settings(withdrawal_wait_seconds=20.0).serving() as client:
        waiting = asyncio.create_task(client.post("/api/unsubscribe", {"email": ANNA}))

        await eventually(
            lambda: client.get(f"/api/unsubscribe/status/{ANNA}"),
            so=lambda found: found["unsubscribed"],
        )
        assert await consent.grant(ANNA, confirmed=True)
        status, body = await waiting
    assert status == 409
    assert "newer consent" in body["detail"]


async def test_an_erased_subject_is_gone_and_the_chain_still_verifies(consent: Consent) -> None:
    await consent.post("/api/opt-in", {"email": ANNA, "text": "tak"})
    erased = await consent.post("/api/consent/erase", {"email": ANNA}, **ADMIN)
    assert erased == (200, {"success": True, "email": ANNA, "erasure": {"status": "in_progress"}})
    assert await consent.entries(ANNA) == []
    verified = await consent.get("/api/consent/audit/verify", ADMIN)
    assert (verified["ok"], verified["rows"], verified["first_broken"]) == (True, 3, None)
    (row,) = await consent.rows("SELECT * FROM data_subject")
    assert row.lookup_hash is row.wrapped_key is None
    assert (await consent.sent())[-1] == "person.erased.followups"
    await consent.post("/api/opt-in", {"email": ANNA, "text": "tak"})  # suppressed all the same
    assert (await consent.entries(ANNA))[-1]["evidence"]["counts"] is False


async def test_an_export_shows_stored_data_and_is_recorded(consent: Consent) -> None:
    await consent.post("/api/opt-in", {"email": ANNA, "text": "tak"})
    export = await consent.get(f"/api/consent/export/{ANNA}", ADMIN)
    held = export["services"]["consent"]
    assert held["consents"] == {"marketing": "granted"}
    assert [entry["action"] for entry in held["entries"]] == ["opt-in"]
    assert export["incomplete"] == ["followups", "alerts"]  # which did not answer
    # Art. 15(1)(a) to (h) and 15(2): (e) and (f) are both `rights`.
    assert export["processing"].keys() == {
        "purposes", "categories", "recipients", "transfers", "periods", "rights", "source",
        "automated_decisions",
    }  # fmt: skip
    for language, said in (("pl", "art. 6 ust. 1 lit. b RODO"), ("en", "Art. 6(1)(b) GDPR")):
        assert said in export["processing"]["purposes"][language]
    recorded = (await consent.entries(ANNA))[-1]
    assert recorded["action"] == "export"
    assert recorded["evidence"]["incomplete"] == ["followups", "alerts"]
    await consent.give_back(uuid4())  # a tombstone, which names no subject
    unknown = await consent.get("/api/consent/export/x@example.com", ADMIN)
    assert not any(unknown["services"]["consent"].values())
    assert await consent.entries("x@example.com") == []


async def test_an_export_covers_every_table_with_personal_data(consent: Consent) -> None:
    kinds = {
        "consent_audit_log": "entries",
        "consent_state": "states",
        "permit": "permits",
        "preference": "preferences",
        "undeliverable": "undeliverable",
        "suppression": "suppressions",
        "link_mail": "link_mails",
        "opt_in": "waiting_opt_ins",
        "erasure": "erasures",
        "data_subject": "consents",
        "restriction": "restrictions",
    }
    personal = {
        name
        for name, table in schema.read(TABLES).tables.items()
        if {"subject_id", "lookup_hash", "suppression_hash"} & set(table.c.keys())
    }
    assert personal == kinds.keys()
    await consent.grant(ANNA)
    await consent.permit()
    await consent.rows(
        "INSERT INTO preference (subject_id, purpose) SELECT id, 'x' FROM data_subject"
    )
    await consent.rows("INSERT INTO undeliverable SELECT id, now(), false FROM data_subject")
    await consent.post("/api/revoke-consent", {"email": ANNA})
    await consent.post("/api/opt-in", {"email": ANNA, "text": "Jednak tak."})
    await consent.post("/api/consent/restrict", {"email": ANNA}, **ADMIN)
    held = (await consent.get(f"/api/consent/export/{ANNA}", ADMIN))["services"]["consent"]
    assert [kind for kind in kinds.values() if not held[kind]] == []
    assert "Jednak tak." in held["waiting_opt_ins"][0]["agreement"]


async def test_a_bad_field_is_named_and_changes_nothing(consent: Consent) -> None:
    before = await consent.everything()
    for path, body, field in REFUSED["fields"]:
        status, problem = await consent.post(f"/api/{path}", body)
        assert (status, [each["field"] for each in problem["errors"]]) == (422, [field]), body
    assert await consent.everything() == before


def _multipart() -> aiohttp.MultipartWriter:
    form = aiohttp.MultipartWriter("form-data")
    part = form.append("One-Click")
    part.set_content_disposition("form-data", name="List-Unsubscribe")
    return form


@pytest.mark.parametrize(
    ("form", "source"),
    [("urlencoded", "one-click"), ("multipart", "one-click"), ("button", "page")],
)
async def test_a_post_by_button_or_one_click_withdraws_without_cookies_or_redirect(
    consent: Consent, form: str, source: str
) -> None:
    await consent.post("/api/opt-in", {"email": ANNA, "text": "tak"})
    one_click = {"List-Unsubscribe": "One-Click"} if form == "urlencoded" else {}
    data: Any = _multipart() if form == "multipart" else one_click
    url = f"/unsubscribe?token={consent.link(ANNA)}&lang=pl"
    async with consent.client.post(url, data=data, allow_redirects=False) as answer:
        assert (answer.status, "Gotowe" in await answer.text()) == (200, True)
        assert "Set-Cookie" not in answer.headers
    assert (await consent.get(f"/api/unsubscribe/status/{ANNA}"))["unsubscribed"] is True
    assert (await consent.entries(ANNA))[-1]["evidence"]["source"] == source


async def test_a_forged_link_or_one_of_another_action_does_nothing(consent: Consent) -> None:
    assert await consent.grant(ANNA)
    before = await consent.everything()
    good = consent.link(ANNA)
    for token in (
        consent.link(ANNA, "erase"),
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        "",
        "zażółć",
    ):
        status, page = await consent.seen("POST", f"/unsubscribe?token={quote(token)}", data={})
        assert (status, ANNA in page) == (400, False)  # it asks which address is meant
    assert await consent.everything() == before


async def test_a_body_other_than_a_form_is_415_and_does_nothing(consent: Consent) -> None:
    before = await consent.everything()
    url, headers = (
        f"/unsubscribe?token={consent.link(ANNA)}",
        {"Content-Type": "multipart/form-data"},
    )
    for sent, status in (({"json": {"a": 1}}, 415), ({"data": b"--x", "headers": headers}, 400)):
        assert (await consent.seen("POST", url, **sent))[0] == status
    assert await consent.everything() == before


async def test_health_names_what_is_unavailable(consent: Consent) -> None:
    assert await consent.get("/health/deep") == {
        "status": "degraded",
        "components": {"postgres": {"status": "healthy"}, "rabbitmq": {"status": "degraded"}},
        "outbox": 0,
    }


# Restriction (Art. 18), objection (Art. 21), and requests that nobody confirmed (Art. 12(3)).


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
