import asyncio
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg2

from services.console.pages.door import next_page
from services.console.texts import TEXTS
from tests.integration.consent.conftest import until_one_waits
from tests.integration.console.conftest import REASON, Console
from tests.support.staff import NEED_FACTOR, PASSWORD, SAME, Person, code_of

EVA: dict[str, Any] = {
    "email": "Ewa@Example.com",
    "name": "Ewa",
    "roles": ["admin"],
    "language": "en",
}


class Browser(Person):
    def __init__(self, console: Console) -> None:
        headers = {"X-Internal-Key": console.key, "X-Client-Address": "203.0.113.7"}
        super().__init__(console.url, EVA["email"], **headers)


async def invite(console: Console, **changes: Any) -> str:
    """Return the path of an invitation."""
    made = await console.call("POST", "/api/staff", EVA | {"show_link": True} | changes)
    assert made.status == 201, made.body
    return str(urlsplit(made.body["link"]).path)


async def joined(console: Console, **changes: Any) -> Browser:
    browser = Browser(console)
    entered = await browser.post(await invite(console, **changes), password=PASSWORD)
    assert (entered.status, entered.body) == (303, "/console/")
    if NEED_FACTOR & {*changes.get("roles", EVA["roles"])}:
        await browser.enrol()
    return browser


async def test_an_invitation_sets_a_password_once_and_a_look_at_it_uses_nothing(
    console: Console,
) -> None:
    path = await invite(console)
    eva = Browser(console)
    for _ in range(2):
        shown = await eva.get(path)
        assert (shown.status, "ewa@example.com" in shown.body) == (200, True)
    assert (await eva.post(path, password="short")).status == 422
    assert (await eva.get("/console/")).status == 303
    assert (await eva.post(path, password=PASSWORD)).status == 303
    await eva.enrol()
    assert (await eva.get("/console/")).status == 200
    assert (await Browser(console).post(path, password=PASSWORD + "!")).status == 410
    acts = console.query("SELECT action FROM staff_action ORDER BY at, action")
    assert [act.action for act in acts] == [
        "staff.invite", "staff.link-shown", "staff.power", "staff.join", "staff.factor",
    ]  # fmt: skip


async def test_two_uses_of_an_invitation_at_once_make_one_session(console: Console) -> None:
    path = await invite(console)
    browsers = [Browser(console) for _ in range(4)]
    answers = await asyncio.gather(*(each.post(path, password=PASSWORD) for each in browsers))
    assert sorted(each.status for each in answers) == [303, 410, 410, 410]
    assert len(console.query("SELECT 1 FROM staff_session WHERE ended_at IS NULL")) == 1


async def test_a_login_needs_the_right_password_and_its_session_is_new(console: Console) -> None:
    eva = await joined(console)
    before = eva.cookie
    left = await eva.post("/console/logout")
    gone = '"cache", "storage"'
    assert (left.body, left.headers["Clear-Site-Data"]) == ("/console/login", gone)
    eva.cookie = before
    assert (await eva.get("/console/me")).body == "/console/login?next=/console/me"
    for email, password in (("ewa@example.com", "wrong " * 3), ("nobody@example.com", PASSWORD)):
        refused = await eva.post("/console/login", email=email, password=password)
        assert (refused.status, TEXTS["pl"]["refused"] in refused.body) == (403, True)
    entered = await eva.log_in("EWA@example.com", next="/console/me")
    assert (entered.status, entered.body) == (303, "/console/me")
    assert eva.cookie != before
    assert (await eva.get("/console/me")).status == 200
    for elsewhere in ("https://evil.example", "//evil.example", "/console/../api", "/console/\\e"):
        assert next_page(elsewhere) == "/console/", elsewhere


async def test_an_old_password_opens_nothing_once_an_invitation_has_replaced_it(
    console: Console,
) -> None:
    """Also if it was right when the login began."""
    await joined(console)
    with closing(psycopg2.connect(console.database.superuser_url)) as other:
        cursor = other.cursor()
        cursor.execute("UPDATE console.staff_credential SET hash = 'of another password'")
        login = Browser(console).post("/console/login", email="ewa@example.com", password=PASSWORD)
        begun = asyncio.create_task(login)
        await until_one_waits(cursor)
        other.commit()
        assert (await begun).status == 403


async def test_tries_wait_after_five_failures_and_the_right_password_ends_that(
    console: Console,
) -> None:
    eva = await joined(console)
    for _ in range(5):
        await eva.log_in(password="wrong " * 3)
    counted = console.query("SELECT failures FROM login_failure")  # from there, and from anywhere
    assert [each.failures for each in counted] == [5, 5]
    entered = await eva.log_in()
    assert entered.status == 303
    assert console.query("SELECT 1 FROM login_failure") == []


ORIGINS: tuple[tuple[dict[str, str], int], ...] = (
    (SAME, 303),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "https://console.example.com"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Origin": "https://console.example.com"}, 303),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({}, 403),
)


async def test_a_form_of_another_site_does_nothing(console: Console) -> None:
    eva = await joined(console)
    for headers, status in ORIGINS:
        console.query("UPDATE staff SET language = 'en'")
        changed = await eva.post("/console/me/language", headers, language="pl")
        assert changed.status == status, headers
        (person,) = console.query("SELECT language FROM staff")
        assert person.language == ("pl" if status == 303 else "en"), headers


async def test_roles_count_from_the_next_request(console: Console) -> None:
    await joined(console)
    adam = await joined(console, email="adam@example.com", name="Adam", roles=["viewer"])
    assert (await adam.get("/console/staff")).status == 403
    (row,) = console.query("SELECT id FROM staff WHERE name = 'Adam'")
    changed = await console.call("POST", f"/api/staff/{row.id}/roles", {"roles": ["admin"]})
    assert changed.status == 200
    assert (await adam.get("/console/staff")).body == "/console/factor"
    await adam.enrol()
    assert (await adam.get("/console/staff")).status == 200  # in the session that he had
    await console.call("POST", f"/api/staff/{row.id}/roles", {"roles": ["viewer"]})
    assert [(await adam.get(f"/console/{page}")).status for page in ("me", "staff")] == [200, 403]
    await console.call("POST", f"/api/staff/{row.id}/disable", {"reason": "left the company"})
    assert (await adam.get("/console/me")).status == 303
    assert (await adam.log_in("adam@example.com")).status == 403


async def test_the_last_admin_stays_whoever_tries_at_once(console: Console) -> None:
    await joined(console)
    await joined(console, email="adam@example.com", name="Adam")
    both = console.query("SELECT id FROM staff")
    answers = await asyncio.gather(
        *(console.call("POST", f"/api/staff/{row.id}/roles", {"roles": ["viewer"]}) for row in both)
    )
    assert sorted(each.status for each in answers) == [200, 409]
    (left,) = console.query("SELECT id FROM staff WHERE 'admin' = ANY (roles)")
    refused = await console.call("POST", f"/api/staff/{left.id}/disable", {"reason": "why not"})
    assert (refused.status, "last admin" in refused.body["detail"]) == (409, True)


async def test_what_matters_asks_for_the_password_again(console: Console) -> None:
    eva = await joined(console)
    assert (await eva.get("/console/staff")).status == 200
    console.query("UPDATE staff_session SET stepped_up_at = now() - interval '11 minutes'")
    form = {"email": "adam@example.com", "name": "Adam", "role": "viewer", "language": "pl"}
    for asked in (await eva.get("/console/staff"), await eva.post("/console/staff", **form)):
        assert asked.body == "/console/confirm?next=/console/staff"
    assert len(console.query("SELECT 1 FROM staff")) == 1
    before, code = eva.cookie, code_of(eva.secret)
    for password, given in (("wrong " * 3, code), (PASSWORD, ""), (PASSWORD, "000 000")):
        wrong = await eva.post("/console/confirm", password=password, code=given)
        assert wrong.status == 403
    right = await eva.post("/console/confirm", password=PASSWORD, code=code, next="/console/staff")
    assert (right.status, right.body) == (303, "/console/staff")
    copied = Browser(console)
    copied.cookie = before
    assert (await copied.get("/console/me")).status == 303  # its token is another one since
    invited = await eva.post("/console/staff", **form)
    assert (invited.status, "adam@example.com" in invited.body) == (200, True)
    assert (await eva.post("/console/staff", **form)).status == 409  # there already


async def test_a_session_ends_by_itself_and_another_one_from_ones_own_page(
    console: Console,
) -> None:
    eva, other = await joined(console), Browser(console)
    other.secret = eva.secret
    assert (await other.log_in()).status == 303
    shown = (await eva.get("/console/me")).body
    (session,) = [part[:64] for part in shown.split('name="session" value="')[1:]]
    assert (await eva.post("/console/me/end", session=session)).status == 303
    assert (await other.get("/console/me")).status == 303
    for age in ("seen_at", "created_at"):
        assert (await eva.get("/console/me")).status == 200
        console.query(f"UPDATE staff_session SET {age} = now() - interval '13 hours'")
        assert (await eva.get("/console/me")).status == 303
        console.query(f"UPDATE staff_session SET {age} = now()")


async def test_a_name_is_shown_as_text_in_both_languages(console: Console) -> None:
    eva = await joined(console, name="<script>alert(1)</script>")
    for language in ("en", "pl"):
        await eva.post("/console/me/language", language=language)
        for path in ("/console/", "/console/staff", "/console/actions", "/console/me"):
            shown = (await eva.get(path)).body
            assert f'<html lang="{language}">' in shown
            assert "<script>" not in shown


async def test_without_https_nobody_logs_in_but_on_this_machine(console: Console) -> None:
    path = await invite(console)
    console.kill9()
    console.environment["PUBLIC_BASE_URL"] = "http://console.example.com"
    await console.start()
    shown = await Browser(console).get("/console/login")
    assert "<form" not in shown.body
    assert (
        await Browser(console).post("/console/login", email="a@b.pl", password="x")
    ).status == 403
    assert (await Browser(console).post(path, password=PASSWORD)).status == 200
    assert console.query("SELECT 1 FROM staff_session") == []


async def test_who_may_not_grant_a_scope_gets_no_secret_of_a_key_that_has_it(
    console: Console,
) -> None:
    made = await console.create(scopes=["alerts:write", "consent:read"])
    path = f"/console/keys/{made.body['id']}"
    eva = await joined(console)
    form = {"name": "shop", "purpose": "orders", "owner": "Ewa", "days": "90", "limit": ""}
    for scope, status in (("consent:read", 403), ("none", 422)):
        assert (await eva.post("/console/keys", **form, scope=scope)).status == status
    assert len(console.query("SELECT 1 FROM api_key")) == 1
    shown = (await eva.get("/console/keys")).body
    assert (f"{path}/rotate" in shown, "osk_" in shown) == (False, False)
    refused = await eva.post(f"{path}/rotate", overlap="0")
    assert (refused.status, "Only somebody with the role Privacy" in refused.body) == (403, True)
    assert "osk_" not in refused.body
    adam = await joined(console, email="adam@example.com", roles=["admin", "privacy"])
    assert "osk_" in (await adam.post(f"{path}/rotate", overlap="0")).body
    assert (await eva.post(f"{path}/revoke", reason="it was in a screenshot")).status == 200


async def test_a_person_who_calls_the_api_is_recorded_as_they_are(console: Console) -> None:
    ewa = {"X-Operator": "staff:7 Ewa Żak", "X-Operator-Roles": "admin,ops"}
    adam = EVA | {"email": "adam@example.com", "roles": ["viewer"]}
    assert (await console.call("POST", "/api/staff", adam, **ewa)).status == 201
    assert (await console.call("GET", "/api/staff", caller="service", **ewa)).status == 401
    refused = await console.create(scopes=["consent:read"], operator=ewa)
    assert (refused.status, "privacy" in refused.body["detail"]) == (403, True)
    # Nor do they get at one by a new secret; in an emergency they may still revoke it.
    made = await console.create(scopes=["consent:read"])
    path = f"/api/keys/{made.body['id']}"
    refused = await console.call("POST", f"{path}/rotate", {"overlap_hours": 0}, **ewa)
    assert (refused.status, "privacy" in refused.body["detail"]) == (403, True)
    assert len(console.query("SELECT 1 FROM api_key_digest WHERE until IS NULL")) == 1
    assert (await console.call("POST", f"{path}/revoke", REASON, **ewa)).status == 200
    items = (await console.call("GET", "/api/actions")).body["items"]
    acts = [(each["action"], each["actor_kind"]) for each in items]
    assert sorted(acts[:-1]) == [
        ("key.create", "env"),
        ("key.power", "env"),
        ("key.revoke", "staff"),
    ]
    assert acts[-1] == ("staff.invite", "staff")
    act = items[-1]
    said = {name: act[name] for name in ("actor_kind", "actor_id", "actor_name", "roles")}
    assert said == {
        "actor_kind": "staff",
        "actor_id": "7",
        "actor_name": "Ewa Żak",
        "roles": ["admin", "ops"],
    }
    last = f"{act['at']}_{act['id']}"
    assert (await console.call("GET", f"/api/actions?cursor={last}")).body["items"] == []


def test_every_text_is_in_both_languages() -> None:
    assert TEXTS["pl"].keys() == TEXTS["en"].keys()
