"""Cases over HTTP: who may do what, what is refused, their check, and what people see of them."""

from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.alerts.rules.case import FOLLOWUPS
from tests.integration.alerts.cases import Cases
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually
from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.promise("P9")


async def call(
    subject: Alerts,
    method: str,
    path: str,
    body: Any = None,
    *,
    caller: str = "service",
    key: str | None = None,
    operator: str = "tester",
) -> tuple[int, Any]:
    sent = {"Idempotency_Key": key or str(uuid4())} if method == "POST" else {}
    return await subject.http(method, path, body, caller, X_Operator=operator, **sent)


async def opened(subject: Alerts) -> UUID:
    case_id = await lead(subject)
    path = f"/api/cases/{case_id}"
    await eventually(lambda: call(subject, "GET", path), 20, so=lambda found: found[0] == 200)
    return case_id


async def test_a_case_is_taken_told_to_the_next_and_given_back(alerts: StartAlerts) -> None:
    subject = await alerts(**QUIET)
    case_id = await opened(subject)
    path = f"/api/cases/{case_id}/answer"
    taken = {"answer": "taken", "by": "anna"}
    status, result = await call(subject, "POST", path, taken, key="press 1")
    assert (status, result["state"], result["owner"]) == (200, "answered", "Anna Nowak")
    assert await call(subject, "POST", path, taken, key="press 1") == (200, result)
    status, problem = await call(subject, "POST", path, {"answer": "taken", "by": "ewa"})
    assert (status, problem["error"], problem["owner"]) == (409, "answered", "Anna Nowak")
    assert problem["since"] == result["since"]
    status, _ = await call(subject, "POST", path, {"answer": "release", "by": "anna"})
    assert status == 200
    status, case = await call(subject, "GET", f"/api/cases/{case_id}")
    assert (status, case["state"], case["generation"]) == (200, "open", 1)
    said = [(each["answer"], each["by"], each["via"]) for each in case["answers"]]
    assert said == [("taken", "anna", "api"), ("release", "anna", "api")]


async def test_a_person_of_the_console_answers_and_is_the_one_of_that_name_in_slack(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(**QUIET)
    path = f"/api/cases/{await opened(subject)}/answer"
    zoe = "staff:7f0c Zoë Żak"
    status, result = await call(subject, "POST", path, {"answer": "taken"}, operator=zoe)
    assert (status, result["owner"]) == (200, "Zoë Żak")
    anna = "staff:11aa Anna Nowak"
    assert (await call(subject, "POST", path, {"answer": "won"}, operator=anna))[0] == 409
    assert (await call(subject, "POST", path, {"answer": "release"}, operator=zoe))[0] == 200
    await call(subject, "POST", path, {"answer": "taken", "by": "anna"})
    status, result = await call(subject, "POST", path, {"answer": "won"}, operator=anna)
    assert (status, result["owner"]) == (200, "Anna Nowak")


async def test_people_of_the_console_see_what_failed_and_no_key_and_no_lead(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(**QUIET)
    failed = {"host": "db-2", "error": "disk full"}
    kind = "lead.qualified"
    of_a_program = await subject.accept(kind, payload=failed)
    of_a_lead = await subject.accept(kind, payload=failed, source=FOLLOWUPS)
    for case_id, operator, shown in (
        (of_a_program, "staff:7f0c Zoë Żak", failed),
        (of_a_program, "tester", None),
        (of_a_lead, "staff:7f0c Zoë Żak", None),
    ):
        path = f"/api/cases/{case_id}"
        ask = partial(call, subject, "GET", path, operator=operator)
        _, found = await eventually(ask, 20, so=lambda found: found[0] == 200)
        assert found["payload"] == shown
        _, listed = await call(subject, "GET", "/api/cases", operator=operator)
        briefs = {each["id"]: each["brief"] for each in listed["items"]}
        assert briefs[str(case_id)] == (shown and "host: db-2, error: disk full")


async def test_an_unknown_case_and_an_id_that_is_none_are_404(alerts: StartAlerts) -> None:
    subject = await alerts(**QUIET)
    body = {"answer": "taken", "by": "anna"}
    for case_id in (uuid4(), "x"):
        for method, tail, sent in (
            ("GET", "", None),
            ("POST", "/answer", body),
            ("POST", "/cancel", {"reason": "x"}),
        ):
            path = f"/api/cases/{case_id}{tail}"
            status, _ = await call(subject, method, path, sent, caller="admin")
            assert status == 404


async def test_an_admin_cancels_and_it_is_over(alerts: StartAlerts) -> None:
    subject = await alerts(**QUIET)
    case_id = await opened(subject)
    path = f"/api/cases/{case_id}"
    assert (await call(subject, "POST", f"{path}/cancel", {"reason": "x"}))[0] == 401
    status, result = await call(
        subject, "POST", f"{path}/cancel", {"reason": "a test"}, caller="admin"
    )
    assert (status, result["state"]) == (200, "cancelled")
    taken = {"answer": "taken", "by": "anna"}
    status, problem = await call(subject, "POST", f"{path}/answer", taken)
    assert (status, problem["error"]) == (409, "ended")
    assert "manual" in problem["detail"]
    _, case = await call(subject, "GET", path)
    (said,) = case["answers"]
    assert (said["answer"], said["name"], said["reason"]) == ("cancel", "tester", "a test")


async def test_cases_are_listed_by_state_and_owner(alerts: StartAlerts) -> None:
    subject = await alerts(**QUIET)
    first, second = await opened(subject), await opened(subject)
    await call(subject, "POST", f"/api/cases/{second}/answer", {"answer": "taken", "by": "ewa"})

    async def listed(query: str) -> list[str]:
        status, page = await call(subject, "GET", f"/api/cases{query}")
        assert status == 200
        assert (page["next_cursor"], page["next"]) == (None, None)
        return [item["id"] for item in page["items"]]

    assert await listed("") == [str(first), str(second)]
    assert await listed("?state=open") == [str(first)]
    assert await listed("?owner=ewa") == [str(second)]
    assert await listed(f"?after={first}") == [str(second)]
    await Cases(subject.engine).execute(
        f"UPDATE alert_case SET source = 'followups' WHERE alert_id = '{first}'"
    )
    assert await listed("?leads=true") == [str(first)]
    assert await listed("?leads=false&closed=false") == [str(second)]
    await call(subject, "POST", f"/api/cases/{second}/answer", {"answer": "done", "by": "ewa"})
    assert await listed("?closed=true&state=answered") == [str(second)]
    assert await listed("?closed=false") == [str(first)]


async def test_the_check_counts_each_state_and_finds_each_fault(alerts: StartAlerts) -> None:
    subject = await alerts(**QUIET)
    ids = [await opened(subject) for _ in range(3)]
    cases = Cases(subject.engine)
    await cases.take(ids[0])
    ok = {"ok": True, "opened": 3, "open": 2, "answered": 1, "unanswered": 0, "cancelled": 0}

    async def check() -> dict[str, Any]:
        status, found = await call(subject, "GET", "/api/cases/check", caller="admin")
        assert status == 200
        return dict(found)

    found = await check()
    assert found | ok == found
    assert (await subject.check())["cases"] == found
    ended = "state = 'unanswered', next_at = NULL, ended_at = now()"
    for statement, fault in (
        ("UPDATE case_total SET count = 4 WHERE term = 'opened'", None),
        ("UPDATE alert_case SET owner = 'ewa' WHERE state = 'answered'", "ownerless"),
        (f"UPDATE alert_case SET {ended} WHERE alert_id = '{ids[1]}'", "missing"),
    ):
        await cases.execute(statement)
        found = await check()
        assert not found["ok"]
        if fault is not None:
            assert found[fault] == 1, found
    assert found["unlisted"] == 1


PEOPLE = {
    "anna": {"name": "Anna Nowak", "slack": "U012ABC", "email": "anna@example.pl"}
    | {"phone": "+48600100200"},
    "ewa": {"name": "Ewa Lis", "email": "ewa@example.pl", "phone": "+48600100300"},
}
SECTIONS: dict[str, Any] = {
    "answers": {
        "lead.qualified": {
            "asks": ["slack"],
            "within": "1s",
            "chain": [
                {"to": "slack", "mention": "sales", "wait": "1s"},
                {"to": "sms", "call": "sales", "wait": "1s"},
                {"to": "email", "person": "ewa", "wait": "1h"},
            ],
        }
    },
    "schedules": {"sales": {"file": "rota.ics", "otherwise": "anna"}},
    "people": PEOPLE,
}


def sections(**changes: Any) -> dict[str, Any]:
    """Return the sections with other settings of the policy."""
    policy = SECTIONS["answers"]["lead.qualified"] | changes
    return {**SECTIONS, "answers": {"lead.qualified": policy}}


async def with_app(
    alerts: StartAlerts, sandbox: Sandbox, named: dict[str, Any], **options: Any
) -> Alerts:
    """Start the service with an app of Slack's, which gets the leads."""
    app = {"channel": "slack", "token": {"env": "SLACK_BOT_TOKEN"}, "post_to": "C0123"}
    app |= {"team": "T0123", "api": f"{sandbox.url}/slack/api"} | options
    routes = {"lead.qualified": ["app"], "escalation": ["email"]}
    return await alerts(sections=named | {"routes": routes}, app=app, SLACK_BOT_TOKEN="xoxb-1")


QUIET: dict[str, Any] = {"sections": sections(within="1h")}


async def lead(subject: Alerts, **payload: Any) -> UUID:
    given = {"text": "Jan, jan@example.com", "score": 100, **payload}
    return UUID(await subject.accept("lead.qualified", payload=given))


async def texts(subject: Alerts, target: str) -> list[str]:
    got = await subject.sandbox.received(target)
    return [str(each["body"]) for each in got]


async def test_a_lead_that_no_one_takes_travels_its_chain(alerts: StartAlerts) -> None:
    subject = await alerts(sections=SECTIONS)
    case_id = await lead(subject, staff_language="pl")
    mails = await eventually(lambda: subject.sandbox.mails("ewa@example.pl"), 30)
    assert "ostoja take" not in mails[0]["Text"]
    assert "/a/" in mails[0]["Text"]
    said = await texts(subject, "slack")
    assert any("<@U012ABC>" in text and str(case_id) in text for text in said), said
    (sms,) = await texts(subject, "sms")
    assert "+48600100200" in sms
    assert "jan@example.com" not in sms
    assert (await subject.check())["failed"] == 0
