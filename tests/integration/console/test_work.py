"""The inbox, leads and persons' data: who sees them, what a press does, and what is recorded."""

import json
import os
import re
import signal
import uuid
from datetime import datetime, timedelta
from typing import Any

from services.console.texts import TEXTS, ZONE
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.forms import stored, submit, suspected
from tests.support.stack import Stack
from tests.support.staff import Person, person
from tests.support.system import LEAD, WORDING, fresh_address

EN = TEXTS["en"]

OLD_LINK = "/transcript?token=of-an-older-release"


async def new_lead(stack: Stack) -> tuple[str, str]:
    """Return the id of a lead whose case is open, and its address."""
    email = fresh_address()
    said = {**LEAD, "message": f"{LEAD['message']} {email}", "session_id": email}
    assert (await stack.http("POST", "/api/chatbot/chat", said)).status == 200
    answer = await stack.http("GET", f"/api/leads?email={email}", key="service")
    (lead,) = answer.body["items"]

    await eventually(lambda: case(stack, lead["id"]), 30, so=lambda found: found["state"] == "open")
    return lead["id"], email


async def case(stack: Stack, lead: str) -> dict[str, Any]:
    """Return the case of a lead; with no state if there is none yet."""
    answer = await stack.http("GET", f"/api/cases/{lead}", key="service")
    found: dict[str, Any] = answer.body if answer.status == 200 else {"state": None}
    return found


async def state(stack: Stack, lead: str) -> tuple[str, str | None, str | None]:
    found = (await stack.http("GET", f"/api/leads/{lead}", key="service")).body
    return found["state"], found["state_by"], found["state_reason"]


async def press(who: Person, lead: str, answer: str, *, of: str = "leads", **more: str) -> int:
    """Press a button, and see what a reload would not do again."""
    nonce = {"nonce": str(uuid.uuid4())}
    done = await who.post(f"/console/{of}/{lead}", answer=answer, **nonce | more)
    assert done.status != 303 or done.location == f"/console/{of}/{lead}?did={answer}"
    return done.status


async def test_a_seller_looks_takes_and_wins_and_nobody_else_is_asked(stack: Stack) -> None:
    lead, email = await new_lead(stack)
    seller = await person(stack, "sales", name="Zoë Żak")
    assert f"/console/leads/{lead}" in (await seller.get("/console/leads")).text
    shown = (await seller.get(f"/console/leads/{lead}")).text
    for text in (email, "remont kuchni", EN["do_taken"], EN["state_new"], "budżet"):
        assert text in shown
    assert await press(seller, lead, "taken") == 303
    assert (await state(stack, lead))[0] == "taken"
    answered = await case(stack, lead)
    assert (answered["state"], answered["owner_name"]) == ("answered", "Zoë Żak")
    mails = await stack.http("GET", f"/api/followups?email={email}", key="service")
    assert {each["status"] for each in mails.body["items"]} <= {"cancelled"}
    assert "Zoë Żak" in (await seller.get("/console/leads?state=taken")).text
    assert await press(seller, lead, "lost") == 422  # without a reason
    assert await press(seller, lead, "won") == 303
    assert (await case(stack, lead))["outcome"] == "won"
    assert (await state(stack, lead))[0] == "won"


async def test_a_seller_notes_plans_corrects_undoes_and_hands_over(stack: Stack) -> None:
    lead, _ = await new_lead(stack)
    seller = await person(stack, "sales", name="Zoë Żak")
    path = f"/console/leads/{lead}"
    assert await press(seller, lead, "taken") == 303

    async def worked(of: str, **form: str) -> int:
        found = (await stack.http("GET", f"/api/leads/{lead}", key="service")).body
        return (await seller.post(f"{path}/{of}", version=str(found["version"]), **form)).status

    assert await worked("notes", text="ma dwa koty") == 303
    assert await worked("calls", result="no_answer", at="2099-01-01T10:00") == 422  # too far
    soon = f"{datetime.now(ZONE) + timedelta(days=1):%Y-%m-%dT%H:%M}"
    assert await worked("calls", result="no_answer", at=soon, note="") == 303
    assert await worked("facts", budget="45 000", city="Gdynia") == 303
    late = await seller.post(f"{path}/facts", version="0", city="Sopot")
    assert (late.status, EN["changed_meanwhile"] in late.text) == (409, True)
    shown = (await seller.get(path)).text
    for text in ("ma dwa koty", EN["result_no_answer"], "45\xa0000", "Gdynia"):
        assert text in shown
    won = {"order_value": "52 000"}
    assert await press(seller, lead, "won", **won) == 303
    assert (await state(stack, lead))[0] == "won"
    assert await press(seller, lead, "undo") == 303
    assert (await state(stack, lead))[0] == "taken"
    assert await worked("owner", owner="Ola Kos") == 303
    shown = (await seller.get(path)).text
    assert EN["others_have_it"].format(name="Ola Kos") in shown


async def test_the_page_of_a_lead_shows_the_other_requests_of_its_person(stack: Stack) -> None:
    lead, email = await new_lead(stack)
    seller = await person(stack, "sales", name="Zoë Żak")
    for verb in ("taken", "won"):
        assert await press(seller, lead, verb) == 303
    for said in ("remont łazienki 6 m2", "remont tarasu 20 m2"):  # the second is another wish
        body = {"message": f"{said}, {email}", "session_id": f"{said} {email}".replace(" ", "-")}
        assert (await stack.http("POST", "/api/chatbot/chat", body)).status == 200
    answer = await stack.http("GET", f"/api/leads?person={email}", key="service")
    new, old = answer.body["items"]
    assert (old["id"], old["next"], new["previous"]["owner"]) == (lead, new["id"], "Zoë Żak")
    before = (await seller.get(f"/console/leads/{lead}")).text
    after = (await seller.get(f"/console/leads/{new['id']}")).text
    for page, other, said in ((before, new["id"], "wrote_again"), (after, lead, "returns")):
        assert page.count(f'href="/console/leads/{other}"') == 2
        assert EN["other_requests"] in page
        assert EN[said] in page
    assert "remont tarasu" in after
    assert EN["returns"] in (await seller.get("/console/leads")).text


async def test_each_look_is_recorded_before_it_shows_and_without_an_address(stack: Stack) -> None:
    lead, email = await new_lead(stack)
    seller = await person(stack, "sales")
    await seller.get("/console/leads")
    await seller.get(f"/console/leads/{lead}")
    newer, _ = await new_lead(stack)
    seller.headers["X-Refresh"] = "1"  # a page that is open fetches itself, again and again
    for _ in range(2):
        assert newer in (await seller.get("/console/leads")).text

    def looks(of: str) -> list[Any]:
        looks = "SELECT object_ref FROM console.staff_action WHERE action = 'lead.look'"
        return stack.query(f"{looks} AND actor_kind = 'staff' AND object_ref LIKE %s", f"%{of}%")

    assert len(looks(lead)) == 2
    assert [look.object_ref for look in looks(newer)] == [newer]
    row = stack.query("SELECT count(*) AS n FROM console.staff_action a WHERE a::text LIKE %s",
                      f"%{email}%")[0]  # fmt: skip
    assert row.n == 0
    stack.query("REVOKE INSERT ON console.staff_action FROM console")
    try:
        unrecorded = await seller.get(f"/console/leads/{lead}")
    finally:
        stack.query("GRANT INSERT ON console.staff_action TO console")
    assert unrecorded.status >= 500
    assert email not in unrecorded.text


async def test_the_link_in_slack_shows_the_conversation_after_a_login_and_a_record_only(
    stack: Stack,
) -> None:
    lead, email = await new_lead(stack)
    page = f"/console/leads/{lead}"

    await stack.in_slack(f"{stack.values['PUBLIC_BASE_URL']}{page}|")
    for path, leads_to in ((page, f"/console/login?next={page}"), (OLD_LINK, "/console/leads")):
        answer = await stack.http("GET", path)
        assert (answer.status, email in str(answer.body)) == (303, False)
        assert answer.headers["Location"] == leads_to
    seller = await person(stack, "sales")
    assert email in (await seller.get(page)).text
    assert recorded(stack, lead) == [("lead.look", "done")]


async def test_who_comes_second_is_told_who_has_it_and_changes_nothing(stack: Stack) -> None:
    lead, _ = await new_lead(stack)
    first, second = [await person(stack, "sales", name=name) for name in ("Ola Kos", "Jan Nowak")]
    form = (await second.get(f"/console/leads/{lead}")).text
    assert await press(first, lead, "taken") == 303
    nonce = re.search(r'name="nonce" value="([0-9a-f-]+)"', form)
    assert nonce is not None
    assert await press(second, lead, "taken", nonce=nonce[1]) == 409
    assert (await case(stack, lead))["owner_name"] == "Ola Kos"
    assert (await state(stack, lead))[1].endswith("Ola Kos")  # type: ignore[union-attr]
    shown = (await second.get(f"/console/leads/{lead}")).text
    assert EN["others_have_it"].format(name="Ola Kos") in shown
    assert EN["do_won"] not in shown
    assert await press(first, lead, "release") == 303
    assert ((await case(stack, lead))["state"], (await state(stack, lead))[0]) == ("open", "new")
    assert [await press(second, lead, "hour") for _ in range(3)] == [303] * 3
    late = await second.post(f"/console/leads/{lead}", answer="hour", nonce=str(uuid.uuid4()))
    assert (late.status, EN["cannot_wait"] in late.text) == (422, True)
    assert (await case(stack, lead))["state"] == "open"
    assert await press(second, lead, "not_a_lead", reason="spam") == 303
    assert await state(stack, lead) == ("not_a_lead", (await state(stack, lead))[1], "spam")
    assert await press(second, lead, "reopen") == 303
    assert (await state(stack, lead))[0] == "new"
    assert EN["do_taken"] in (await first.get(f"/console/leads/{lead}")).text
    assert await press(first, lead, "taken") == 303  # its case stays closed, by the other
    assert await press(second, lead, "taken") == 409
    shown = (await second.get(f"/console/leads/{lead}")).text
    assert EN["others_have_it"].format(name="Ola Kos") in shown
    assert await press(second, lead, "won") == 409
    assert await press(first, lead, "won") == 303
    assert (await state(stack, lead))[0] == "won"


async def test_whoever_takes_it_in_slack_has_it_in_the_console_until_they_give_it_back(
    stack: Stack,
) -> None:
    lead, _ = await new_lead(stack)
    eva = await person(stack, "sales", name="Ewa Lis")
    for said, becomes, button in (("taken", "taken", "do_won"), ("release", "new", "do_taken")):
        answer = await stack.http(
            "POST",
            f"/api/cases/{lead}/answer",
            {"answer": said, "by": "manager"},
            key="service",
            headers={"Idempotency-Key": f"{lead} {said}"},
        )
        assert answer.status == 200

        async def follows(becomes: str = becomes) -> bool:
            return (await state(stack, lead))[:2] == (becomes, "Ewa Lis")

        await eventually(follows, 30)
        assert EN[button] in (await eva.get(f"/console/leads/{lead}")).text
    assert await press(eva, lead, "taken") == 303
    assert await press(eva, lead, "won") == 303


async def test_a_press_while_alerts_is_away_changes_nothing_and_the_next_one_does_it(
    stack: Stack,
) -> None:
    lead, _ = await new_lead(stack)
    seller = await person(stack, "sales")
    await stack.kill9("alerts")
    try:
        assert EN["cases_away"] in (await seller.get(f"/console/leads/{lead}")).text
        assert await press(seller, lead, "taken") == 503
        assert (await state(stack, lead))[0] == "new"
    finally:
        await stack.start("alerts")
    assert await press(seller, lead, "taken") == 303
    assert (await state(stack, lead))[0] == "taken"


async def test_a_suspected_form_is_accepted_or_deleted(stack: Stack) -> None:
    for answer, left in (("release", 1), ("discard", 0)):
        email = fresh_address()
        assert (await submit(stack, {"email": email}, trap="x")).status == 202
        seller = await person(stack, "sales")
        id_ = (await suspected(stack, email))["id"]
        assert email.partition("@")[0] in (await seller.get("/console/leads/suspected")).text
        done = await seller.post(f"/console/leads/suspected/{id_}", answer=answer)
        assert (done.status, done.location) == (303, "/console/leads/suspected")
        again = await seller.post(f"/console/leads/suspected/{id_}", answer=answer)
        assert (again.status, EN["not_there"] in again.text) == (404, True)
        found = await stack.http("GET", f"/api/leads?email={email}", key="service")
        assert len(found.body["items"]) == left
    assert stored(stack, email) == []  # nothing of whoever was deleted
    (row,) = stack.query("SELECT * FROM followups.lead_submission WHERE id = %s", id_)
    assert (row.state, row.fields, row.held) == ("discarded", {}, None)


async def test_who_is_on_call_takes_puts_off_and_closes_a_case_that_is_no_lead(
    stack: Stack,
) -> None:
    id_ = await stack.alert("the backup failed", event_type="lead.test")
    lead, _ = await new_lead(stack)

    async def everybody_was_asked() -> bool:
        stack.query(
            "UPDATE alerts.alert_case SET next_at = now() WHERE alert_id = %s AND state = 'open'",
            id_,
        )
        return bool((await case(stack, id_))["state"] == "unanswered")

    first, second = [await person(stack, "ops", name=name) for name in ("Ewa Lis", "Jan Nowak")]
    await eventually(lambda: listed(first, "open", id_), 30)
    assert lead not in (await first.get("/console/cases")).text
    assert await press(first, id_, "hour", of="cases") == 303
    assert EN["next_ask"].partition("{")[0] in (await first.get(f"/console/cases/{id_}")).text
    await eventually(everybody_was_asked, 60)
    start = (await first.get("/console/")).text
    assert EN["inbox_cases_unanswered"].partition(":")[0] in start
    shown = (await second.get(f"/console/cases/{id_}")).text
    for text in ("lead.test", EN["state_unanswered"], "Ewa Lis (email)", EN["do_taken"]):
        assert text in shown
    assert await listed(second, "unanswered", id_)
    assert await press(first, id_, "taken", of="cases") == 303
    assert await press(second, id_, "done", of="cases") == 409
    shown = (await second.get(f"/console/cases/{id_}")).text
    assert (EN["others_have_it"].format(name="Ewa Lis") in shown, EN["do_done"] in shown) == (
        True, False,
    )  # fmt: skip
    assert await listed(second, "answered", id_)
    assert await press(first, id_, "release", of="cases") == 303
    assert await press(second, id_, "taken", of="cases") == 303
    assert await press(second, id_, "false_alarm", of="cases") == 422  # without a reason
    reason = {"reason": "the disk was being changed"}
    assert await press(second, id_, "false_alarm", of="cases", **reason) == 303
    assert (await case(stack, id_))["outcome"] == "false_alarm"
    assert not await listed(second, "answered", id_)
    for wrong in ("reopen", "won"):
        assert await press(first, id_, wrong, of="cases") == 404


async def listed(who: Person, state: str, id_: str) -> bool:
    return f"/console/cases/{id_}" in (await who.get(f"/console/cases?state={state}")).text


async def test_a_yes_that_nobody_confirmed_waits_on_every_page(
    stack: Stack,
) -> None:
    """The agreement is asked to be confirmed, for the address had withdrawn before."""
    lead, email = await new_lead(stack)
    seller, officer = await person(stack, "sales"), await person(stack, "privacy")

    async def pages() -> list[str]:
        return [
            (await seller.get(f"/console/leads/{lead}")).text,
            (await officer.post("/console/person", who=email)).text,
        ]

    def say(state: str) -> str:
        return EN[f"consent_{state}"].partition(",")[0]

    assert all(say("none") in page for page in await pages())
    assert (await stack.http("POST", "/api/unsubscribe", {"email": email})).status == 200
    assert all(say("withdrawn") in page for page in await pages())
    await stack.http("POST", "/api/opt-in", {"email": email, "text": WORDING.text})
    for page in await pages():
        assert say("waiting") in page
        assert WORDING.version in page
    await stack.confirm(email)
    for page in await pages():
        assert say("granted") in page
        assert say("waiting") not in page


async def known_person(stack: Stack) -> tuple[str, str]:
    """Return an address that agreed and wrote, and consent's id of it."""
    _, email = await new_lead(stack)
    await stack.opt_in(email)

    audit = await eventually(lambda: stack.audit(email), so=lambda found: found["entries"])
    return email, str(audit["subject"])


def recorded(stack: Stack, ref: str) -> list[tuple[str, str]]:
    rows = stack.query(
        "SELECT action, outcome FROM console.staff_action "
        "WHERE object_ref = %s AND actor_kind = 'staff' ORDER BY at",
        ref,
    )
    return [(row.action, row.outcome) for row in rows]


async def test_a_person_is_looked_at_exported_and_erased_and_the_record_names_no_address(
    stack: Stack,
) -> None:
    email, subject = await known_person(stack)
    officer = await person(stack, "privacy")
    shown = await officer.post("/console/person", who=email)
    assert (shown.status, EN["trail_opt-in"] in shown.text) == (200, True)
    file = await officer.post("/console/person/export", who=email)
    assert file.status == 200
    held = json.loads(file.text)
    assert (held["email"], held["incomplete"]) == (email, [])
    assert held["services"]["followups"]["conversations"]
    wrong = await officer.post("/console/person/erase", who=email, again=fresh_address())
    assert (wrong.status, EN["not_same"] in wrong.text) == (422, True)
    assert recorded(stack, subject).count(("person.look", "done")) == 2
    withdrawn = await officer.post("/console/person/withdraw", who=email)
    assert (withdrawn.status, EN["person_withdrawn"] in withdrawn.text) == (200, True)
    own = await stack.http("POST", "/api/unsubscribe", {"email": email})
    assert own.status == 200
    erased = await officer.post("/console/person/erase", who=email, again=email.upper())
    assert (erased.status, EN["person_erasing"] in erased.text) == (200, True)

    wanted = {("person.export", "done"), ("person.withdraw", "done"), ("person.erase", "intended")}
    await until(lambda: wanted <= set(recorded(stack, subject)), 30)
    assert recorded(stack, subject).count(("person.withdraw", "done")) == 1  # not their own

    await eventually(
        lambda: officer.post("/console/person", who=email),
        60,
        so=lambda found: EN["erasure_done"] in found.text,
    )
    found = await stack.http("GET", f"/api/leads?email={email}", key="service")
    assert found.body["items"] == []
    written = stack.query("SELECT string_agg(a::text, ' ') AS all FROM console.staff_action a")
    assert email not in written[0].all


async def test_an_export_says_who_looked_at_the_person_and_names_nobody_else(stack: Stack) -> None:
    (lead, email), (other, _) = await new_lead(stack), await new_lead(stack)
    seller, officer = await person(stack, "sales"), await person(stack, "privacy")
    for path in (f"/console/leads/{lead}", f"/console/leads/{other}", "/console/leads"):
        assert (await seller.get(path)).status == 200
    await stack.opt_in(email)  # before, consent does not know them, and a look has no id
    await officer.post("/console/person", who=email)
    await stack.http("GET", f"/api/leads/{lead}", key="service")

    async def acts() -> Any:
        file = await officer.post("/console/person/export", who=email)
        found = json.loads(file.text)["services"]["console"]["acts"]
        assert "Ewa Lis" not in file.text
        assert str(other) not in file.text
        kinds = {each["actor_kind"] for each in found}
        return found if kinds == {"staff", "env"} else None

    found = await eventually(acts, 30)
    looks = [(each["action"], each["roles"]) for each in found if each["actor_kind"] == "staff"]
    assert looks.count(("lead.look", ["sales"])) == 2  # its page, and the list
    assert ("person.look", ["privacy"]) in looks
    assert found == sorted(found, key=lambda each: each["at"])


async def test_a_lead_whose_processing_is_restricted_says_so(stack: Stack) -> None:
    lead, email = await new_lead(stack)
    right = {"email": email, "new_phone": f"+48600{uuid.uuid4().int % 10**6:06}"}
    assert (await stack.http("POST", "/api/leads/correct", right, key="admin")).status == 200
    seller, said = await person(stack, "sales"), EN["restricted_since"].partition("{")[0]
    for who in ({"email": email}, {"phone": right["new_phone"]}):
        for lifted in (False, True):
            body = {**who, "lifted": lifted}
            done = await stack.http("POST", "/api/consent/restrict", body, key="admin")
            assert done.status == 200, done
            text = (await seller.get(f"/console/leads/{lead}")).text
            assert (said in text) is not lifted, who


async def test_the_forms_of_a_person_correct_restrict_lift_and_object(stack: Stack) -> None:
    email, subject = await known_person(stack)
    officer, phone = await person(stack, "privacy"), f"+48600{uuid.uuid4().int % 10**6:06}"

    async def pressed(order: str, said: str, **more: str) -> str:
        done = await officer.post(f"/console/person/{order}", who=email, **more)
        assert (done.status, EN[f"person_{said}"] in done.text) == (200, True), done
        return done.text

    await pressed("correct", "corrected", name="Zofia Right", new_phone=phone, new_email="")
    (lead,) = (await stack.http("GET", f"/api/leads?email={email}", key="service")).body["items"]
    assert (lead["name"], lead["phone"]) == ("Zofia Right", phone)
    since = EN["restricted_since"].partition("{")[0]
    shown = await pressed("restrict", "restricted")
    assert (since in shown, "/console/person/lift" in shown) == (True, True)
    assert (await stack.consents(email))["restricted_since"]
    shown = await pressed("lift", "lifted")
    assert (since in shown, "/console/person/restrict" in shown) == (False, True)
    assert (await stack.consents(email))["restricted_since"] is None
    assert not (await stack.consents(email))["unsubscribed"]
    await pressed("object", "objected")
    assert (await stack.consents(email))["unsubscribed"]
    assert (await stack.audit(email))["entries"][-1]["evidence"]["source"] == "objection"
    acts = {(f"person.{each}", "done") for each in ("restrict", "unrestrict", "object")}
    await until(lambda: acts <= set(recorded(stack, subject)), 30)
    correct = (
        "SELECT 1 FROM console.staff_action WHERE action = 'person.correct' AND actor_id = "
        "(SELECT id::text FROM console.staff WHERE email = %s)"
    )
    await until(lambda: stack.query(correct, officer.email), 30)


async def test_a_request_that_is_bogus_is_dismissed_and_its_link_is_void(stack: Stack) -> None:
    email, subject = await known_person(stack)
    await stack.http("POST", "/api/revoke-consent", {"email": email})
    officer = await person(stack, "privacy")
    assert email in (await officer.get("/console/person")).text
    done = await officer.post("/console/person/dismiss", who=email)
    assert (done.status, EN["person_dismissed"] in done.text) == (200, True)
    assert email not in (await officer.get("/console/person")).text
    again = await officer.post("/console/person/dismiss", who=email)
    assert (again.status, EN["person_dismissed"] in again.text) == (404, False)
    await until(lambda: ("person.dismiss", "done") in recorded(stack, subject), 30)
    link = await stack.link(email, "/erasure/confirm")
    assert (await stack.http("POST", link)).status == 410


async def test_a_look_that_cannot_be_recorded_shows_nothing(stack: Stack) -> None:
    email, _ = await known_person(stack)
    officer = await person(stack, "privacy")
    for bad in ("", "nobody", "<b>"):
        refused = await officer.post("/console/person", who=bad)
        assert (refused.status, EN["bad_subject"] in refused.text) == (422, True)
    stack.query("REVOKE INSERT ON console.staff_action FROM console")
    try:
        for path in ("", "/withdraw", "/erase"):
            answer = await officer.post(f"/console/person{path}", who=email, again=email)
            assert answer.status >= 500
            assert EN["trail_opt-in"] not in answer.text
    finally:
        stack.query("GRANT INSERT ON console.staff_action TO console")
    assert (await stack.audit(email))["erasure"] is None


async def test_a_part_whose_service_is_away_says_so_and_the_others_work(stack: Stack) -> None:
    both = await person(stack, "sales", "ops")
    os.kill(stack.pid("followups"), signal.SIGSTOP)  # it takes connections, and answers nothing
    await stack.kill9("alerts")
    try:
        shown = await both.get("/console/")
    finally:
        os.kill(stack.pid("followups"), signal.SIGCONT)
        await stack.start("alerts")
    assert shown.status == 200
    for part in ("leads", "alerts", "targets", "ledger"):
        assert f"{EN[part]}: {EN['part_away']}" in shown.text
    text = (await both.get("/console/")).text
    assert EN["part_away"] not in text


async def test_a_gateway_that_does_not_believe_the_console_is_not_taken_for_good_news(
    stack: Stack,
) -> None:
    seller = await person(stack, "sales")
    await stack.stop("gateway")
    stack.changes["gateway"] = {"OPERATOR_KEYS": "o2:" + "b" * 43 + "="}
    await stack.start("gateway")
    text = (await seller.get("/console/")).text
    assert EN["part_away"] in text
    assert EN["inbox_empty"] not in text
