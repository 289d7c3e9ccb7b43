"""Passwords, second factors and tries, over a real console."""

import asyncio
import re
import sys
import time
from html import escape
from typing import Any

import pytest

from services.console.texts import TEXTS
from tests.integration.console.conftest import Console
from tests.integration.console.test_people import EVA, Browser, invite, joined
from tests.support.eventually import eventually
from tests.support.staff import PASSWORD, SECRET, code_of

EN = TEXTS["en"]
NEW = "bardzo stare kalosze babci"


def mails(console: Console) -> list[tuple[str, str]]:
    """Return whom and what the console has mails sent: nothing takes them here."""
    rows = console.query("SELECT body->'payload' AS mail FROM outbox ORDER BY id")
    return [(row.mail["to"], row.mail["text"]) for row in rows]


WEAK = (
    ("password1234", "too_weak"),
    ("ewa@example.com", "too_weak"),
    ("aaaaaaaaaaaa", "too_weak"),
    ("qwertyuiop123456", "too_weak"),
    ("x!Vp3 q", "too_short"),
    ("kot spi na dachu " * 20, "too_long"),
)


async def test_a_password_that_is_guessed_first_is_refused(console: Console) -> None:
    path = await invite(console)
    for password, fault in WEAK:
        refused = await Browser(console).post(path, password=password)
        assert (refused.status, TEXTS["pl"][fault] in refused.body) == (422, True), password
    assert console.query("SELECT 1 FROM staff_credential") == []


async def test_the_longest_password_is_judged_in_time_and_stops_nobody(console: Console) -> None:
    path, began = await invite(console), time.monotonic()
    hostile = Browser(console).post(path, password="4@8({[<369!1|0$5+7%2" * 12)
    judged = asyncio.create_task(hostile)
    waited = []
    while not judged.done():
        asked = time.monotonic()
        assert (await console.call("GET", "/health")).status == 200
        waited.append(time.monotonic() - asked)
    assert time.monotonic() - began < 5
    assert max(waited, default=0) < 1


async def test_an_admin_enters_only_with_a_second_factor(console: Console) -> None:
    eva = Browser(console)
    assert (await eva.post(await invite(console), password=PASSWORD)).status == 303
    for path in ("/console/", "/console/staff", "/console/me"):
        assert (await eva.get(path)).body == "/console/factor", path
    shown = (await eva.get("/console/factor")).body
    assert EN["factor_needed"] in shown
    found = SECRET.search(shown)
    assert found
    wrong = await eva.post("/console/factor", secret=found[1], code="000000")
    assert (wrong.status, found[1] in wrong.body) == (422, True)  # the same, as the app has it
    assert (await eva.post("/console/factor", secret="short", code="000000")).status == 400
    done = await eva.enrol()
    assert (await eva.get("/console/staff")).status == 200
    assert eva.secret not in str(console.query("SELECT * FROM staff"))

    recovery = [each.partition("<")[0] for each in done.body.split("<li><code>")[1:]]
    assert len(recovery) == 10
    assert recovery[0] not in str(console.query("SELECT * FROM staff"))
    other = Browser(console)
    assert (await other.log_in()).status == 403  # the password alone
    other.secret = eva.secret
    assert (await other.log_in()).status == 303
    assert (await other.log_in()).status == 403  # that code was used
    assert (await other.log_in(step=-1)).status == 403  # and the one before it
    assert (await other.log_in(code=recovery[0])).status == 303
    assert (await other.log_in(code=recovery[0])).status == 403
    assert (await other.log_in(code=recovery[1].replace("-", "").upper())).status == 303
    told = EN["told_recovery"].format(n=9)
    assert [told in text for to, text in mails(console) if "recovery" in text] == [True, False]


async def test_a_wrong_code_is_guessed_twenty_times_and_not_more(console: Console) -> None:
    eva = await joined(console)
    console.query("DELETE FROM login_failure")
    for number in range(20):
        eva.headers["X-Client-Address"] = f"198.51.100.{number}"
        assert (await eva.log_in(code="000000")).status == 403
    eva.headers["X-Client-Address"] = "203.0.113.9"
    assert (await eva.log_in()).status == 403
    console.query("DELETE FROM login_failure")  # as the purge does after an hour
    assert (await eva.log_in()).status == 303


async def test_the_factor_is_removed_after_a_step_up_only_and_reset_by_an_admin(
    console: Console,
) -> None:
    eva = await joined(console)
    adam = await joined(console, email="adam@example.com", name="Adam", roles=["viewer"])
    await adam.enrol()
    console.query("UPDATE staff_session SET stepped_up_at = now() - interval '11 minutes'")
    for path in ("/console/factor", "/console/factor/remove"):
        asked = await adam.post(path)
        assert asked.body == "/console/confirm?next=/console/factor"
    confirmed = await adam.post("/console/confirm", password=PASSWORD, code=code_of(adam.secret))
    assert confirmed.status == 303
    assert (await adam.post("/console/factor/remove")).status == 303
    removed, adam.secret = adam.secret, ""
    assert (await adam.log_in("adam@example.com")).status == 303
    await adam.enrol()
    assert adam.secret != removed

    (row,) = console.query("SELECT id FROM staff WHERE name = 'Adam'")
    confirmed = await eva.post("/console/confirm", password=PASSWORD, code=code_of(eva.secret))
    console.query("DELETE FROM outbox")
    assert (await eva.post(f"/console/staff/{row.id}/factor")).status == 303
    told = EN["told_staff_factor_reset"].format(whom="Adam", who="Ewa")
    assert {to for to, text in mails(console) if told in text} == {
        "ewa@example.com", "adam@example.com",
    }  # fmt: skip
    adam.secret = ""
    assert (await adam.log_in("adam@example.com")).status == 303
    acts = console.query("SELECT object_ref FROM staff_action WHERE action = 'staff.factor-reset'")
    assert [act.object_ref for act in acts] == [str(row.id)]


async def test_ones_own_password_is_changed_with_the_old_one(console: Console) -> None:
    eva, thief = await joined(console), Browser(console)
    thief.cookies = dict(eva.cookies)
    form: dict[str, Any] = {"code": code_of(eva.secret), "new": NEW}
    wrong = await eva.post("/console/me/password", password="wrong " * 3, **form)
    assert (wrong.status, EN["refused_again"] in wrong.body) == (403, True)
    weak = await eva.post("/console/me/password", password=PASSWORD, **(form | {"new": "ewa " * 4}))
    assert (weak.status, EN["too_weak"] in weak.body) == (422, True)
    assert (await eva.get("/console/me")).status == 200
    changed = await eva.post("/console/me/password", password=PASSWORD, **form)
    assert (changed.status, changed.body) == (303, "/console/me")
    assert (await eva.get("/console/me")).status == 200
    assert (await thief.get("/console/me")).status == 303
    assert (await eva.log_in(step=1)).status == 403
    assert (await eva.log_in(step=1, password=NEW)).status == 303
    assert any(EN["told_password"] in text for _, text in mails(console))


async def test_a_used_link_replaces_the_password_and_not_the_factor(console: Console) -> None:
    eva = await joined(console)
    path = await invite(console, email="adam@example.com", name="Adam")
    adam = Browser(console)
    assert (await adam.post(path, password=PASSWORD)).status == 303
    await adam.enrol()
    (row,) = console.query("SELECT id FROM staff WHERE name = 'Adam'")
    again = {"show_link": True}
    made = await console.call("POST", f"/api/staff/{row.id}/invitation", again)
    assert (await adam.log_in("adam@example.com")).status == 303  # it was not used yet
    link = made.body["link"].partition("example.com")[2]
    thief = Browser(console)
    entered = await thief.post(link, password=NEW)
    assert (entered.status, entered.body, thief.cookie) == (303, "/console/login", "")
    assert (await adam.get("/console/me")).status == 303
    adam_is_told = [text for to, text in mails(console) if to == "adam@example.com"]
    assert any(EN["told_replaced"] in text for text in adam_is_told)
    console.query("UPDATE staff SET factor_step = 0")
    assert (await thief.log_in("adam@example.com", password=NEW)).status == 403
    assert (await adam.log_in("adam@example.com", password=NEW)).status == 303
    # He and every admin read that it was shown, when they come.
    for who in (adam, eva):
        page = (await who.get("/console/")).body
        whom = {"whom": "Adam", "who": "ADMIN_API_KEY"}
        assert EN["told_staff_link_shown"].format(**whom) in page


async def test_a_link_is_mailed_to_the_person_and_the_admin_never_sees_it(console: Console) -> None:
    eva = await joined(console)
    form: dict[str, Any] = {
        "email": "adam@example.com",
        "name": "Adam",
        "role": "privacy",
        "language": "pl",
    }
    console.query("DELETE FROM outbox")
    made = await eva.post("/console/staff", **form)
    assert (made.status, "/console/invitation/" in made.body) == (200, False)
    (row,) = console.query("SELECT id FROM staff WHERE name = 'Adam'")
    again = await eva.post(f"/console/staff/{row.id}/invitation")
    assert (again.status, "/console/invitation/" in again.body) == (200, False)
    api = await console.call("POST", f"/api/staff/{row.id}/invitation")
    assert (api.status, api.body) == (201, {"link": None})
    ewa = {"X-Operator": "staff:7 Ewa", "X-Operator-Roles": "admin"}
    path, show = f"/api/staff/{row.id}/invitation", {"show_link": True}
    assert (await console.call("POST", path, show, **ewa)).status == 403

    sent = mails(console)
    with_link = [to for to, text in sent if "/console/invitation/" in text]
    assert with_link == ["adam@example.com"] * 3
    told = [text for to, text in sent if to == "ewa@example.com"]
    assert len(told) == 3  # of the role, and of two links
    assert EN["told_staff_power"].format(whom="Adam", who="Ewa", detail="Privacy") in told[0]
    assert EN["told_staff_link"].format(whom="Adam", who="Ewa") in told[1]
    first, *_, last = re.findall(r"/console/invitation/[\w-]+", str(sent))
    assert (await Browser(console).get(first)).status == 410  # a later one ends it
    assert (await Browser(console).post(last, password=PASSWORD)).status == 303


async def test_the_first_person_has_every_role_and_reads_how_to_give_some_away(
    console: Console,
) -> None:
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.console", "invitation",
        env=console.environment | {"ESCALATION_EMAIL": EVA["email"]},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    link = (await made.communicate())[0].decode().strip().partition("example.com")[2]
    eva = Browser(console)
    assert (await eva.post(link, password=PASSWORD)).status == 303
    await eva.enrol()
    await eva.post("/console/me/language", language="en")
    shown = (await eva.get("/console/")).body  # she is told that it was shown
    assert EN["told_staff_link_shown"].format(whom="Admin", who="make up") in shown
    for path in ("leads", "cases", "alerts", "person", "keys", "staff", "actions"):
        assert (await eva.get(f"/console/{path}")).status in {200, 503}, path  # no gateway is here
    assert EN["all_roles"] in (await eva.get("/console/staff")).body
    (row,) = console.query("SELECT id FROM staff")
    await console.call("POST", f"/api/staff/{row.id}/roles", {"roles": ["admin", "sales"]})
    assert EN["all_roles"] not in (await eva.get("/console/staff")).body


@pytest.mark.parametrize(
    ("role", "opened", "status"),
    # no gateway is here
    [("privacy", "person", 200), ("sales", "leads", 503), ("ops", "alerts", 503)],
)
async def test_an_admin_who_gives_themselves_a_role_that_reads_data_is_seen_by_every_admin(
    console: Console, role: str, opened: str, status: int
) -> None:
    eva = await joined(console)
    adam = await joined(console, email="adam@example.com", name="Adam")
    (row,) = console.query("SELECT id FROM staff WHERE name = 'Ewa'")
    console.query("DELETE FROM outbox")
    changed = await eva._ask(
        "POST", f"/console/staff/{row.id}/roles", [("role", "admin"), ("role", role)],
        {"Sec-Fetch-Site": "same-origin"},
    )  # fmt: skip
    assert changed.status == 303
    assert (await eva.get(f"/console/{opened}")).status == status  # at once, in the same session
    named = EN[f"role_{role}"].partition(":")[0]
    what = EN["told_staff_power"].format(whom="Ewa", who="Ewa", detail=named)
    assert {to for to, text in mails(console) if what in text} == {
        "ewa@example.com", "adam@example.com",
    }  # fmt: skip
    assert what in (await adam.get("/console/")).body
    viewer = await joined(console, email="zofia@example.com", name="Zofia", roles=["viewer"])
    assert what not in (await viewer.get("/console/")).body
    for days, shown in ((6, True), (2, False)):
        console.query(
            "ALTER TABLE staff_action DISABLE TRIGGER ALL; "
            f"UPDATE staff_action SET at = at - interval '{days} days'; "
            "ALTER TABLE staff_action ENABLE TRIGGER ALL"
        )
        assert (what in (await adam.get("/console/")).body) == shown, days


async def test_every_admin_hears_of_a_key_that_reads_persons_data(console: Console) -> None:
    eva = await joined(console)
    await console.create(scopes=["alerts:write"])
    made = await console.create(name="crm", scopes=["leads:read", "alerts:write"])
    await console.call("POST", f"/api/keys/{made.body['id']}/rotate", {})
    about = {"whom": "crm", "who": "ADMIN_API_KEY", "detail": "leads:read"}
    told = EN["told_key_power"].format(**about)
    assert [told in text for _, text in mails(console)][-2:] == [True, True]
    assert (await eva.get("/console/")).body.count(
        escape(told, quote=False).replace("'", "&#39;")
    ) == 2
    assert "alerts:write" not in str(mails(console))


async def test_tries_of_a_colleague_stop_neither_the_owner_elsewhere_nor_the_office(
    console: Console,
) -> None:
    await joined(console, roles=["sales"])
    await joined(console, email="adam@example.com", name="Adam", roles=["sales"])
    office, home = Browser(console), Browser(console)
    home.headers["X-Client-Address"] = "198.51.100.1"
    tries = [asyncio.create_task(office.log_in(password="wrong " * 3)) for _ in range(20)]

    async def some_wait() -> bool:
        (counted,) = console.query("SELECT max(failures) AS most FROM login_failure")
        return bool(counted.most is not None and counted.most >= 12)

    await eventually(some_wait, 30)
    began = time.monotonic()
    assert (await home.log_in()).status == 303
    assert (await Browser(console).log_in("adam@example.com")).status == 303  # in the office
    assert time.monotonic() - began < 5
    for each in tries:
        each.cancel()
    await asyncio.gather(*tries, return_exceptions=True)


async def test_failed_logins_leave_whose_account_and_whence(console: Console) -> None:
    await joined(console, roles=["sales"])
    (row,) = console.query("SELECT id FROM staff")
    mallory = Browser(console)
    for number in range(9):
        mallory.headers["X-Client-Address"] = f"198.51.100.{number}"
        await mallory.log_in(password="wrong " * 3)
        await mallory.log_in("nobody@example.com")
    acts = console.query("SELECT * FROM staff_action WHERE action = 'session.refuse' ORDER BY at")
    assert {act.object_ref for act in acts} == {str(row.id)}
    assert [act.reason for act in acts] == [f"failures: {n}" for n in (1, 2, 3, 4, 5, 8)]
    assert [act.client_address for act in acts][:2] == ["198.51.100.0", "198.51.100.1"]
    log = console.log.read_text()
    lines = [line for line in log.splitlines() if "login.refused" in line]
    assert len(lines) == 18
    assert (str(row.id) in lines[0], "198.51.100.0" in lines[0], '"unknown"' in lines[1]) == (
        True, True, True,
    )  # fmt: skip
    for secret in ("example.com", "wrong", PASSWORD):
        assert secret not in log
