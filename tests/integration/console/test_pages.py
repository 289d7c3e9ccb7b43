"""Pages of on-call and sales on a whole system: what they show and do, and to whom."""

import html
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from services.console.pages.alerts import LISTS
from services.console.texts import TEXTS
from tests.conftest import WholeSystem
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.staff import SILENCEABLE, Person, on_call_config, person
from tests.support.system import fresh_address

EN = TEXTS["en"]
MANY = 7
SECRET = "anna.nowak@example.pl"
PHONE = "+48600700800"
ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")
LOOKS = (
    "SELECT actor_name FROM console.staff_action "
    "WHERE action = %s AND object_ref = %s AND actor_kind = 'staff'"
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, whole_system: WholeSystem) -> Iterator[Stack]:
    config = on_call_config(tmp_path_factory.mktemp("config"))
    with whole_system({"ALERTS_CONFIG": str(config)}) as running:
        yield running


@pytest.fixture
async def failed(stack: Stack) -> AsyncIterator[str]:
    """Give an alert that its target has refused, for good."""
    await stack.sandbox.behave("slack", status=400)
    alert_id = await stack.alert(f"call {SECRET}, {PHONE}")
    await stack.until(alert_id, "failed")
    yield alert_id
    await stack.sandbox.heal()


async def test_a_viewer_finds_no_address_on_any_page_and_who_sees_some_is_recorded(
    stack: Stack, failed: str
) -> None:
    viewer, ops = await person(stack, "viewer"), await person(stack, "ops")
    names = ["", "me", "targets", "limits", "silences", "oncall"]
    names += [f"alerts?state={state}" for state in LISTS]
    for kind, sql in (
        ("alerts", "SELECT DISTINCT alert_id AS id FROM alerts.delivery"),
        ("bulk", "SELECT id FROM console.bulk_action"),
    ):
        names += [f"{kind}/{row.id}" for row in stack.query(sql)]
    assert f"alerts/{failed}" in names
    for name in names:
        shown = await viewer.get(f"/console/{name}")
        assert shown.status == 200, name
        assert {*ADDRESS.findall(shown.text)} <= {viewer.email}, name
        assert PHONE not in shown.text, name
        assert name != f"alerts/{failed}" or EN["masked"] in shown.text
    assert stack.query(LOOKS, "alert.look", failed) == []
    text = (await ops.get(f"/console/alerts/{failed}")).text
    assert (SECRET in text, PHONE in text) == (True, True)
    assert len(stack.query(LOOKS, "alert.look", failed)) == 1


async def test_on_call_retries_discards_and_nothing_without_a_reason(
    stack: Stack, failed: str
) -> None:
    ops = await person(stack, "ops")
    path = f"/console/alerts/{failed}"
    listed = await ops.get("/console/alerts?state=failed&target=slack&hours=1")
    assert f'href="{path}"' in listed.text
    for reason in ("", "no", "x" * 501):
        refused = await ops.post(f"{path}/discard", target="slack", reason=reason)
        assert (refused.status, EN["bad_reason"] in refused.text) == (422, True)
    await stack.sandbox.heal()
    done = await ops.post(f"{path}/retry", target="slack")
    assert (done.status, done.location) == (303, path)
    await stack.until(failed, "delivered")
    late = await ops.post(f"{path}/discard", target="slack", reason="was wrong")
    assert (late.status, EN["nothing_to_do"] in late.text) == (409, True)
    assert (await ops.post(f"{path}/retry")).status == 400  # not: every target
    (row,) = stack.query("SELECT operator FROM alerts.delivery WHERE alert_id = %s", failed)
    assert re.fullmatch(r"staff:\S+ Ewa Lis", row.operator)


async def chosen(ops: Person, query: str) -> dict[str, str]:
    """Return the hidden fields of the form above a list, whose one button says the number."""
    text = (await ops.get(f"/console/alerts?{query}")).text
    form = text.partition('action="/console/alerts"')[2]
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    assert f'name="retry" value="{fields["expected"]}"' in form
    return fields


async def test_many_are_retried_once_their_number_was_typed(stack: Stack) -> None:
    ops, viewer = await person(stack, "ops"), await person(stack, "viewer")
    await stack.sandbox.behave("sms", status=400)
    ids = [await stack.alert(f"x{n}", target="sms") for n in range(MANY)]

    async def failed() -> bool:
        counts = (await stack.http("GET", "/api/dlq/stats", key="admin")).body
        return bool(counts["targets"].get("sms", {}).get("failed") == MANY)

    await eventually(failed, 30)
    await stack.sandbox.heal()
    form = await chosen(ops, "state=failed&target=sms&hours=1")
    assert form["expected"] == str(MANY)
    act: dict[str, Any] = {**form, "verb": "retry", "reason": "the token is new"}
    for wrong in ({"number": "6"}, {"number": ""}, {"number": "7", "reason": ""}):
        refused = await ops.post("/console/alerts", **act | wrong)
        assert refused.status == 422, wrong
    assert (await viewer.post("/console/alerts", **act, number="7")).status == 403
    doubt = await ops.post("/console/alerts", **act | {"state": "in_doubt", "number": "7"})
    assert doubt.status == 400
    boundless = await ops.post("/console/alerts", **act | {"as_of": "", "number": "7"})
    assert boundless.status == 400
    pressed = {**act, "verb": "", "retry": "7"}
    for wrong in ({"retry": "6"}, {"number": "7"}):  # Enter in the field of the other button
        refused = await ops.post("/console/alerts", **pressed | wrong)
        assert refused.status == 422, wrong
    assert stack.query("SELECT 1 FROM console.bulk_action") == []
    begun = await ops.post("/console/alerts", **pressed)
    assert (begun.status, begun.location is not None) == (303, True)

    await eventually(
        lambda: ops.get(str(begun.location)), 30, so=lambda found: EN["bulk_done"] in found.text
    )
    assert (
        EN["bulk_progress"].format(done=MANY, expected=MANY)
        in (await viewer.get(str(begun.location))).text
    )
    for alert_id in ids:
        assert (await stack.state(alert_id))["state"] in {"pending", "delivered"}
    acts = stack.query(
        "SELECT outcome, reason FROM console.staff_action WHERE action = 'bulk.retry' ORDER BY at"
    )
    assert [tuple(act) for act in acts] == [
        ("intended", "the token is new"),
        ("done", f"{MANY} of {MANY}"),
    ]


async def test_a_limit_is_changed_and_the_change_taken_back(stack: Stack) -> None:
    ops = await person(stack, "ops")
    for wrong in ("many", "0 per minute"):
        refused = await ops.post("/console/limits/chat", limit=wrong)
        assert (refused.status, EN["bad_limit"] in refused.text) == (422, True)
    assert (await ops.post("/console/limits/login", limit="9 per hour")).status == 404
    assert (await ops.post("/console/limits/chat", limit="7 per minute")).status == 303
    shown = (await ops.get("/console/limits")).text
    assert "<b>7</b> <span>per minute</span>" in shown
    assert EN["source_override"] in shown
    assert (await ops.post("/console/limits/chat")).status == 303
    assert EN["source_override"] not in (await ops.get("/console/limits")).text


async def test_a_silence_begins_and_ends(stack: Stack) -> None:
    ops = await person(stack, "ops")
    form: dict[str, Any] = {"hours": "336", "reason": "the shop is closed"}
    refused = await ops.post("/console/silences", **form, matchers="event_type=~(a+)+")
    assert (refused.status, "matchers.0: column 13" in refused.text) == (422, True)
    asked = await ops.get(f"/console/silences?matchers=event_type%3D{SILENCEABLE}")
    assert (asked.status, "open alerts match" in asked.text) == (200, True)
    assert (await ops.post("/console/silences", **form | {"reason": ""})).status == 422
    weekly = await ops.post("/console/silences", **form | {"hours": "weekly"}, matchers="a=b")
    assert (weekly.status, EN["bad_hours"] in weekly.text) == (422, True)
    unsaid = await ops.post("/console/silences", **form, field="event_type", op="=", value=" ")
    assert (unsaid.status, EN["no_matchers"] in unsaid.text) == (422, True)
    row = {"field": "severity", "op": "=", "value": "critical"}
    unticked = await ops.post("/console/silences", **form, **row)
    assert (unticked.status, html.escape(EN["not_critical"]) in unticked.text) == (422, True)
    row = {"field": "event_type", "op": "=", "value": SILENCEABLE}
    assert (await ops.post("/console/silences", **form, **row)).status == 303
    shown = (await ops.get("/console/silences")).text
    assert '<h2 class="t">the shop is closed</h2>' in shown
    assert f"is <b>{SILENCEABLE}</b>" in shown
    assert "Ewa Lis</span>" in shown
    (number,) = re.findall(r"/console/silences/(\d+)/end", shown)
    assert (await ops.post(f"/console/silences/{number}/end")).status == 303
    assert EN["none_silences"].partition(". ")[0] in (await ops.get("/console/silences")).text


async def test_somebody_is_put_on_call_for_a_time(stack: Stack) -> None:
    ops = await person(stack, "ops")
    form: dict[str, Any] = {"who": "sales maria", "hours": "8", "reason": "Jan is ill"}
    assert (await ops.post("/console/oncall", **form | {"who": "sales nobody"})).status == 422
    assert (await ops.post("/console/oncall", **form)).status == 303
    again = await ops.post("/console/oncall", **form)
    assert (again.status, EN["stands_in_already"] in again.text) == (409, True)
    shown = (await ops.get("/console/oncall")).text
    assert '<strong class="big">Maria Sowa</strong>' in shown
    (number,) = re.findall(r"/console/oncall/(\d+)/remove", shown)
    assert (await ops.post(f"/console/oncall/{number}/remove")).status == 303
    assert "/remove" not in (await ops.get("/console/oncall")).text


async def test_sales_cancels_and_stops_follow_ups_and_each_look_is_recorded(stack: Stack) -> None:
    sales, address, other = await person(stack, "sales"), fresh_address(), fresh_address()
    for each in (address, other):
        body = {"email": each, "sequence": "default", "delay_seconds": 86_400}
        made = await stack.http("POST", "/api/followups", body, key="service")
        assert made.status == 202
    shown = (await sales.get("/console/followups")).text
    assert address in shown
    looks = stack.query(
        "SELECT object_ref FROM console.staff_action WHERE action = 'followups.look'"
        " ORDER BY at DESC LIMIT 1"
    )
    assert made.body["items"][0]["conversation_id"] in looks[0].object_ref.split()
    step = made.body["items"][0]
    assert (await sales.post(f"/console/followups/{step['id']}/cancel")).status == 303
    assert other not in (await sales.get("/console/followups")).text
    (row,) = stack.query(
        "SELECT DISTINCT conversation_id FROM followups.followup_event WHERE email = %s", address
    )
    path = f"/console/followups/{row.conversation_id}/stop"
    assert (await sales.post(path, reason="boredom")).status == 400
    assert (await sales.post(path, reason="staff")).status == 303
    assert address not in (await sales.get("/console/followups")).text
    acts = (
        "SELECT action, object_ref FROM console.staff_action WHERE action <> 'followups.look'"
        " AND object_kind IN ('followup', 'conversation')"
        " AND actor_id = (SELECT id::text FROM console.staff WHERE email = %s)"
    )
    wanted = {("followup.cancel", step["id"]), ("followup.stop", str(row.conversation_id))}
    await until(lambda: {tuple(each) for each in stack.query(acts, sales.email)} == wanted, 30)


async def test_a_page_whose_service_is_away_says_so(stack: Stack, failed: str) -> None:
    ops = await person(stack, "ops")
    await stack.kill9("alerts")
    try:
        for path in ("/console/alerts", f"/console/alerts/{failed}", "/console/targets"):
            shown = await ops.get(path)
            assert (shown.status, EN["away"] in shown.text) == (503, True), path
        tried = await ops.post(f"/console/alerts/{failed}/retry", target="slack")
        assert (tried.status, EN["away"] in tried.text) == (503, True)
    finally:
        await stack.start("alerts")
