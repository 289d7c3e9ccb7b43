"""Logging in at an identity provider: a console, and oidc-provider-mock as a server of its own."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from services.console.texts import TEXTS
from tests.integration.console.conftest import Console
from tests.integration.console.test_people import EVA, Browser, invite, joined
from tests.support.identity import IdentityProvider, running_provider
from tests.support.ports import HOST, Ports
from tests.support.proxy import Proxy
from tests.support.staff import PASSWORD, Page

PL = TEXTS["pl"]
VERIFIED = {"email": "ewa@example.com", "email_verified": True}
UNPROVED = VERIFIED | {"auth_time": None}
"""The provider for tests says `now`, unless it is told."""


@pytest.fixture(scope="module")
def identity(ports: Ports) -> Iterator[IdentityProvider]:
    with running_provider(ports.take()) as provider:
        yield provider


async def begin(console: Console, provider: IdentityProvider, **settings: str) -> None:
    console.environment |= provider.settings | settings
    await console.start()


async def leave(browser: Browser, path: str = "/console/login/oidc", **form: Any) -> str:
    """Return where the provider is asked."""
    left = await browser.post(path, **form)
    assert left.status == 303
    return str(left.body)


async def log_in(browser: Browser, provider: IdentityProvider, subject: str, **form: Any) -> Page:
    url = await leave(browser, **form)
    return await browser.get(await provider.authorize(url, subject))


def sessions(console: Console) -> int:
    return len(console.query("SELECT 1 FROM staff_session WHERE ended_at IS NULL"))


async def test_a_verified_address_joins_once_and_then_the_subject_counts(
    idle_console: Console, identity: IdentityProvider
) -> None:
    console, eva = idle_console, Browser(idle_console)
    await begin(console, identity)
    await identity.put("1", **UNPROVED)
    refused = await log_in(eva, identity, "1")  # nobody has invited her
    assert (refused.status, PL["oidc_stranger"] in refused.body) == (403, True)
    path = await invite(console)
    shown = await eva.get(path)
    assert PL["oidc_button"] in shown.body
    await identity.put("2", email="ewa@example.com", email_verified=False)
    assert (await log_in(eva, identity, "2")).status == 403
    assert sessions(console) == 0

    eva.cookie = planted = "p" * 43
    entered = await log_in(eva, identity, "1", next="/console/me")
    assert (entered.status, entered.body) == (303, "/console/me")
    assert eva.cookie not in {planted, ""}
    assert (await eva.get("/console/me")).status == 200
    assert (await eva.get("/console/staff")).body.startswith("/console/confirm")  # not proved now
    fixed = Browser(console)
    fixed.cookie = planted
    assert (await fixed.get("/console/me")).status == 303

    await identity.put("3", **VERIFIED)  # her address is somebody else's now
    assert (await log_in(Browser(console), identity, "3")).status == 403
    assert (await Browser(console).post(path, password=PASSWORD)).status == 410
    await identity.put("1", email="new@example.com")
    assert (await log_in(eva, identity, "1")).status == 303
    acts = console.query("SELECT action, reason FROM staff_action ORDER BY at, action")
    assert [(act.action, act.reason) for act in acts] == [
        ("staff.invite", "admin"), ("staff.link-shown", None), ("staff.power", "admin"),
        ("staff.join", "oidc"), ("session.begin", "oidc"),
    ]  # fmt: skip
    console.query("UPDATE staff SET disabled_at = now()")
    assert (await log_in(Browser(console), identity, "1")).status == 403


async def test_what_another_browser_began_or_somebody_changed_logs_nobody_in(
    idle_console: Console, identity: IdentityProvider
) -> None:
    console, eva, mallory = idle_console, Browser(idle_console), Browser(idle_console)
    await begin(console, identity)
    await invite(console)
    await identity.put("m", email="mallory@example.com", email_verified=True)
    await invite(console, email="mallory@example.com", name="Mallory")

    # Her browser is led to Mallory's answer, so that she would work as Mallory.
    his = await identity.authorize(await leave(mallory), "m")
    for each in (eva, Browser(console)):
        stray = await each.get(his)
        assert (stray.status, PL["oidc_stray"] in stray.body) == (403, True)
    await leave(eva)
    assert (await eva.get(his)).status == 403
    # He puts her stolen code into a login of his own: its nonce is of hers.
    await identity.put("1", **VERIFIED)
    hers = await identity.authorize(await leave(eva), "1")
    code = hers.partition("code=")[2].partition("&")[0]
    own = await identity.authorize(await leave(mallory), "m")
    own_code = own.partition("code=")[2].partition("&")[0]
    stolen = await mallory.get(own.replace(own_code, code))
    assert (stolen.status, PL["oidc_refused"] in stolen.body) == (403, True)
    assert sessions(console) == 0

    # The same answer once more, with all that her browser kept: the code was used.
    hers = await identity.authorize(await leave(eva), "1")
    kept = dict(eva.cookies)
    assert (await eva.get(hers)).status == 303
    eva.cookies = kept
    assert (await eva.get(hers)).status == 403
    assert sessions(console) == 1
    elsewhere = await log_in(Browser(console), identity, "1", next="https://evil.example")
    assert elsewhere.body == "/console/"


async def test_a_step_up_needs_the_same_person_who_has_just_proved_it(
    idle_console: Console, identity: IdentityProvider
) -> None:
    console, eva = idle_console, Browser(idle_console)
    await begin(console, identity)
    await invite(console)
    now = int(time.time())
    await identity.put("1", **VERIFIED, auth_time=now)
    assert (await log_in(eva, identity, "1")).status == 303
    assert (await eva.get("/console/staff")).status == 200
    console.query("UPDATE staff_session SET stepped_up_at = now() - interval '11 minutes'")
    assert (await eva.get("/console/staff")).body == "/console/confirm?next=/console/staff"
    shown = (await eva.get("/console/confirm?next=/console/staff")).body
    assert (TEXTS["en"]["confirm_oidc"] in shown, 'type="password"' in shown) == (True, False)

    async def confirm(subject: str, **claims: Any) -> Page:
        await identity.put(subject, **VERIFIED, **claims)
        url = await leave(eva, "/console/confirm/oidc", next="/console/staff")
        assert "max_age=0" in url
        return await eva.get(await identity.authorize(url, subject))

    for subject, claims, text in (
        ("1", {"auth_time": None}, "oidc_stale"),
        ("1", {"auth_time": now - 900}, "oidc_stale"),
        ("2", {"auth_time": now}, "oidc_stranger"),
    ):
        refused = await confirm(subject, **claims)
        assert (refused.status, TEXTS["en"][text] in refused.body) == (403, True)
    assert (await eva.get("/console/staff")).status == 303
    assert (await confirm("1", auth_time=int(time.time()))).body == "/console/staff"
    assert (await eva.get("/console/staff")).status == 200


async def test_oidc_only_refuses_passwords_and_counts_admins_who_can_enter(
    idle_console: Console, identity: IdentityProvider
) -> None:
    console = idle_console
    await console.start()
    adam = await joined(console, email="adam@example.com", name="Adam")
    console.kill9()
    await begin(console, identity, OIDC_ONLY="on")
    path = await invite(console)
    assert 'type="password"' not in (await Browser(console).get("/console/login")).body
    for refused in (
        await Browser(console).post("/console/login", email="adam@example.com", password=PASSWORD),
        await Browser(console).post(path, password=PASSWORD),
        await adam.post("/console/confirm", password=PASSWORD),
    ):
        assert (refused.status, PL["oidc_only"] in refused.body) == (403, True)

    eva = Browser(console)
    await identity.put("1", **VERIFIED)
    assert (await log_in(eva, identity, "1")).status == 303
    (row,) = console.query("SELECT id FROM staff WHERE name = %s", EVA["name"])
    last = await console.call("POST", f"/api/staff/{row.id}/disable", {"reason": "why not"})
    assert last.status == 409  # Adam's password lets nobody in
    people = (await console.call("GET", "/api/staff")).body["items"]
    assert {each["name"]: each["joined"] for each in people} == {"Adam": False, "Ewa": True}
    # An invitation replaces what he logged in with.
    (row,) = console.query("SELECT id FROM staff WHERE name = 'Adam'")
    await console.call("POST", f"/api/staff/{row.id}/invitation")
    await identity.put("a", email="adam@example.com", email_verified=True)
    assert (await log_in(Browser(console), identity, "a")).status == 303
    assert (await adam.get("/console/me")).status == 303
    kinds = console.query("SELECT kind FROM staff_credential")
    assert [each.kind for each in kinds] == ["oidc", "oidc"]


async def test_a_password_asks_for_the_second_factor_beside_the_company_account_too(
    idle_console: Console, identity: IdentityProvider
) -> None:
    console, eva = idle_console, Browser(idle_console)
    await begin(console, identity)
    for roles in (["admin"], ["privacy"]):
        email = f"{roles[0]}@example.com"
        path = await invite(console, email=email, roles=roles)
        assert (await eva.post(path, password=PASSWORD)).status == 303
        for page in ("/console/", "/console/me"):
            assert (await eva.get(page)).body == "/console/factor"
        assert TEXTS["en"]["factor_needed"] in (await eva.get("/console/factor")).body
        await eva.enrol()
        assert (await eva.get("/console/me")).status == 200

    await invite(console)  # by the company account she needs none here
    await identity.put("1", **VERIFIED)
    assert (await log_in(eva, identity, "1")).status == 303
    assert (await eva.get("/console/me")).status == 200


async def test_without_the_provider_passwords_go_on(
    idle_console: Console, identity: IdentityProvider
) -> None:
    console = idle_console
    async with Proxy(identity.port) as proxy:
        await begin(console, identity, OIDC_ISSUER=f"http://{HOST}:{proxy.port}")
        eva = await joined(console)
        adam = Browser(console)
        back = await identity.authorize(await leave(adam), "1")
    away = await adam.get(back)
    assert (away.status, PL["oidc_away"] in away.body) == (503, True)
    await eva.post("/console/logout")
    assert (await eva.log_in()).status == 303
