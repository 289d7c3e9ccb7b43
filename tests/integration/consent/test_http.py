"""The routes against a real database; the gateway's part is played by the headers it would add."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web as aiohttp_web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import health
from libs.common.database import postgres, schema
from libs.common.health import HealthRoute
from libs.common.http import application
from libs.common.messaging.rpc import NoReply
from libs.common.process.settings import Settings
from libs.domain.signed_links import Tokens
from services.consent import changes, permits
from services.consent.http.admin import AdminRoutes
from services.consent.http.pages.routes import PageRoutes
from services.consent.http.public import PublicRoutes
from services.consent.mails import LinkMails
from services.consent.optin import OptIns
from services.consent.recovery.journal import Journal
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.settings import ConsentSettings
from services.consent.store import upkeep
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import (
    ENVIRONMENT,
    NO_DEAD_LETTERS,
    REFUSED,
    Link,
    agreement,
    asked_for,
    give_back,
    grant,
    opt_in,
)
from tests.support.eventually import eventually

ANNA = "anna@example.com"
TABLES = Path(upkeep.__file__).with_name("schema.sql")
ADMIN = {"X-Caller": "admin"}
Client = TestClient[aiohttp_web.Request, aiohttp_web.Application]


class NoBroker:
    connected = False


class NoAnswers:
    async def ask(self, *_: Any, **__: Any) -> Any:
        raise NoReply


@asynccontextmanager
async def serving(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings, requester: Any = None
) -> AsyncIterator[Client]:
    """One process of consent, as far as HTTP goes."""
    app = application.create_app(internal_key=ENVIRONMENT["INTERNAL_API_KEY"])
    tokens = Tokens(ENVIRONMENT["TOKEN_KEYS"])
    link_mails = LinkMails(tokens, settings)
    broker: Any = NoBroker()
    app.middlewares.append(application.unavailable_when(postgres.is_transient))
    withdrawals = Withdrawals(
        engine, vault, settings, asyncio.Event(), Journal(engine, vault, settings)
    )
    opt_ins = OptIns(vault, link_mails, settings)
    look = partial(health.with_outbox, engine, broker)
    HealthRoute(look, "consent", Settings(), broker, Path()).add_to(app)
    PublicRoutes(engine, vault, tokens, link_mails, withdrawals, opt_ins).add_to(app)
    PageRoutes(engine, vault, tokens, settings, withdrawals, opt_ins).add_to(app)
    asking: Any = requester or NoAnswers()
    AdminRoutes(engine, asking, vault, settings, withdrawals, NO_DEAD_LETTERS).add_to(app)
    headers = {
        "X-Internal-Key": ENVIRONMENT["INTERNAL_API_KEY"],
        "X-Caller": "public",
        "X-Client-Address": "203.0.113.9",
        "X-Client-Address-From": "x-forwarded-for",
        "User-Agent": "Firefox",
    }
    async with TestClient(TestServer(app), headers=headers) as opened:
        yield opened


@pytest.fixture
async def client(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> AsyncIterator[Client]:
    async with serving(engine, vault, settings) as opened:
        yield opened


async def post(client: Client, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with client.post(path, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def get(client: Client, path: str, headers: dict[str, str] | None = None) -> Any:
    async with client.get(path, headers=headers or {}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def seen(client: Client, method: str, url: str, **options: Any) -> tuple[int, str]:
    """Return the status and the text of a page."""
    async with client.request(method, url, **options) as answer:
        return answer.status, await answer.text()


async def entries(client: Client, email: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await get(client, f"/api/consent/audit/{email}", ADMIN))[
        "entries"
    ]
    return found


async def everything(engine: AsyncEngine) -> list[Any]:
    """Every row that a request could have changed."""
    tables = (
        "data_subject", "consent_state", "permit", "suppression", "erasure", "opt_in", "link_mail",
        "outbox", "consent_audit_log",
    )  # fmt: skip
    async with engine.begin() as tx:
        return [
            (await tx.execute(text(f"SELECT t::text FROM {table} t ORDER BY 1"))).all()
            for table in tables
        ]


async def permit(engine: AsyncEngine, vault: Vault, email: str) -> Any:
    message = uuid4()
    async with engine.begin() as tx:
        await permits.request(tx, vault, asked_for(message, email), 20)
    return message


async def test_unsubscribe_is_recorded_published_and_shown(
    client: Client, engine: AsyncEngine
) -> None:
    await post(client, "/api/opt-in", {"email": ANNA, "text": "tak"})
    answer = await post(client, "/api/unsubscribe", {"email": ANNA, "reason": "za często"})
    assert answer == (200, {"success": True, "email": ANNA, "unsubscribed": True})
    assert [entry["action"] for entry in await entries(client, ANNA)] == ["opt-in", "unsubscribe"]
    assert (await get(client, f"/api/unsubscribe/status/{ANNA}"))["unsubscribed"] is True
    async with engine.begin() as tx:
        sent = (await tx.execute(text("SELECT routing_key FROM outbox ORDER BY id"))).scalars()
        assert list(sent) == ["consent.granted", "consent.withdrawn", "action.record"]  # the look


async def test_a_key_asks_for_several_people_at_once(client: Client) -> None:
    await post(client, "/api/opt-in", {"email": ANNA, "text": "tak"})
    path, asked = "/api/unsubscribe/status", {"subjects": [ANNA.upper(), "+48600700800"]}
    headers = {"X-Caller": "service"}
    async with client.post(path, json=asked, headers=headers) as answer:
        anna, nobody = (await answer.json())["items"]
    one = await get(client, f"{path}/{ANNA}", headers=headers)
    assert anna == {"subject": ANNA, "purposes": one["purposes"]}
    assert nobody["subject"] == "+48600700800"
    for refused in (["x"], [ANNA] * 51):
        async with client.post(path, json={"subjects": refused}, headers=headers) as answer:
            assert answer.status == 422
    async with client.post(path, json=asked) as answer:
        assert answer.status == 401


async def test_the_public_status_shows_only_unsubscribed_and_a_key_or_the_link_all(
    client: Client, link: Link
) -> None:
    await post(client, "/api/opt-in", {"email": ANNA, "text": "tak"})
    path = f"/api/unsubscribe/status/{ANNA}"
    names = ("email", "consents", "purposes", "restricted_since", "last_action", "last_action_at")
    bare = dict.fromkeys(names) | {"unsubscribed": False}
    for token in ("", link("jan@example.com"), link(ANNA, "erase"), "forged"):
        assert await get(client, f"{path}?token={token}") == bare
    assert await get(client, "/api/unsubscribe/status/x@example.com") == bare
    for way, headers in (
        (path, ADMIN),
        (path, {"X-Caller": "service"}),
        (f"{path}?token={link('ANNA@example.com')}", {}),
    ):
        status = await get(client, way, headers)
        assert status["email"] == ANNA
        assert status["consents"] == {"marketing": True}
        stands = status["purposes"]["marketing"]["email"]
        assert (stands["state"], stands["wording"]) == ("granted", "test-0")
        assert status["last_action"] == "opt-in"
        assert status["last_action_at"].endswith("+00:00")


@pytest.mark.parametrize("path", ["unsubscribe", "revoke-consent", "consent/erase"])
async def test_a_withdrawal_or_erasure_with_an_open_permit_is_202_and_200_once_returned(
    client: Client, engine: AsyncEngine, vault: Vault, path: str
) -> None:
    """An erasure, too: the address could come back, and the next 200 would not see the permit."""
    assert await grant(engine, vault, ANNA)
    message = await permit(engine, vault, ANNA)
    for _ in range(2):  # asking again is no shortcut
        status, body = await post(client, f"/api/{path}", {"email": ANNA}, **ADMIN)
        assert (status, body["unsubscribed"], body["in_flight"]) == (202, True, 1)
    async with engine.begin() as tx:
        await give_back(tx, message)
    status, body = await post(client, f"/api/{path}", {"email": ANNA}, **ADMIN)
    assert (status, "in_flight" in body) == (200, False)


async def test_a_newer_consent_during_the_wait_is_409(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> None:
    assert await grant(engine, vault, ANNA)
    await permit(engine, vault, ANNA)
    patient = settings.model_copy(update={"withdrawal_wait_seconds": 20.0})
    async with serving(engine, vault, patient) as client:
        waiting = asyncio.create_task(post(client, "/api/unsubscribe", {"email": ANNA}))

        async def withdrawn() -> bool:
            return bool((await get(client, f"/api/unsubscribe/status/{ANNA}"))["unsubscribed"])

        await eventually(withdrawn)
        async with engine.begin() as tx:
            assert await changes.grant(tx, vault, opt_in(ANNA), agreement(), confirmed=True)
        status, body = await waiting
    assert status == 409
    assert "newer consent" in body["detail"]


async def test_an_erased_subject_is_gone_and_the_chain_still_verifies(
    client: Client, engine: AsyncEngine
) -> None:
    await post(client, "/api/opt-in", {"email": ANNA, "text": "tak"})
    erased = await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
    assert erased == (200, {"success": True, "email": ANNA, "erasure": {"status": "in_progress"}})
    assert await entries(client, ANNA) == []
    verified = await get(client, "/api/consent/audit/verify", ADMIN)
    assert (verified["ok"], verified["rows"], verified["first_broken"]) == (True, 3, None)
    async with engine.begin() as tx:
        (row,) = (await tx.execute(text("SELECT * FROM data_subject"))).mappings().all()
        assert row["lookup_hash"] is row["wrapped_key"] is None
        sent = (await tx.execute(text("SELECT routing_key FROM outbox ORDER BY id"))).scalars()
        assert list(sent)[-2:] == ["person.erased.followups", "action.record"]  # the look
    await post(client, "/api/opt-in", {"email": ANNA, "text": "tak"})  # suppressed all the same
    assert (await entries(client, ANNA))[-1]["evidence"]["counts"] is False


async def test_an_export_shows_stored_data_and_is_recorded(
    client: Client, engine: AsyncEngine
) -> None:
    await post(client, "/api/opt-in", {"email": ANNA, "text": "tak"})
    export = await get(client, f"/api/consent/export/{ANNA}", ADMIN)
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
    recorded = (await entries(client, ANNA))[-1]
    assert recorded["action"] == "export"
    assert recorded["evidence"]["incomplete"] == ["followups", "alerts"]
    async with engine.begin() as tx:
        await give_back(tx, uuid4())  # a tombstone, which names no subject
    unknown = await get(client, "/api/consent/export/x@example.com", ADMIN)
    assert not any(unknown["services"]["consent"].values())
    assert await entries(client, "x@example.com") == []


async def test_an_export_covers_every_table_with_personal_data(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
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
    await grant(engine, vault, ANNA)
    await permit(engine, vault, ANNA)
    async with engine.begin() as tx:
        await tx.execute(
            text("INSERT INTO preference (subject_id, purpose) SELECT id, 'x' FROM data_subject")
        )
        await tx.execute(
            text("INSERT INTO undeliverable SELECT id, now(), false FROM data_subject")
        )
    await post(client, "/api/revoke-consent", {"email": ANNA})
    await post(client, "/api/opt-in", {"email": ANNA, "text": "Jednak tak."})
    await post(client, "/api/consent/restrict", {"email": ANNA}, **ADMIN)
    held = (await get(client, f"/api/consent/export/{ANNA}", ADMIN))["services"]["consent"]
    assert [kind for kind in kinds.values() if not held[kind]] == []
    assert "Jednak tak." in held["waiting_opt_ins"][0]["agreement"]


async def test_a_bad_field_is_named_and_changes_nothing(
    client: Client, engine: AsyncEngine
) -> None:
    before = await everything(engine)
    for path, body, field in REFUSED["fields"]:
        status, problem = await post(client, f"/api/{path}", body)
        assert (status, [each["field"] for each in problem["errors"]]) == (422, [field]), body
    assert await everything(engine) == before


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
    client: Client, link: Link, form: str, source: str
) -> None:
    await post(client, "/api/opt-in", {"email": ANNA, "text": "tak"})
    one_click = {"List-Unsubscribe": "One-Click"} if form == "urlencoded" else {}
    data: Any = _multipart() if form == "multipart" else one_click
    url = f"/unsubscribe?token={link(ANNA)}&lang=pl"
    async with client.post(url, data=data, allow_redirects=False) as answer:
        assert (answer.status, "Gotowe" in await answer.text()) == (200, True)
        assert "Set-Cookie" not in answer.headers
    assert (await get(client, f"/api/unsubscribe/status/{ANNA}"))["unsubscribed"] is True
    assert (await entries(client, ANNA))[-1]["evidence"]["source"] == source


async def test_a_forged_link_or_one_of_another_action_does_nothing(
    client: Client, engine: AsyncEngine, vault: Vault, link: Link
) -> None:
    assert await grant(engine, vault, ANNA)
    before = await everything(engine)
    good = link(ANNA)
    for token in (link(ANNA, "erase"), good[:-1] + ("A" if good[-1] != "A" else "B"), "", "zażółć"):
        status, page = await seen(client, "POST", f"/unsubscribe?token={quote(token)}", data={})
        assert (status, ANNA in page) == (400, False)  # it asks which address is meant
    assert await everything(engine) == before


async def test_a_body_other_than_a_form_is_415_and_does_nothing(
    client: Client, engine: AsyncEngine, link: Link
) -> None:
    before = await everything(engine)
    assert (await seen(client, "POST", f"/unsubscribe?token={link(ANNA)}", json={"a": 1}))[0] == 415
    async with client.post(
        f"/unsubscribe?token={link(ANNA)}",
        data=b"--x\r\nbroken",
        headers={"Content-Type": "multipart/form-data"},
    ) as answer:
        assert answer.status == 400
    assert await everything(engine) == before


async def test_health_names_what_is_unavailable(client: Client) -> None:
    assert await get(client, "/health/deep") == {
        "status": "degraded",
        "components": {"postgres": {"status": "healthy"}, "rabbitmq": {"status": "degraded"}},
        "outbox": 0,
    }
