"""Answers by the buttons of an app's Slack messages, behind the gateway's check."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from aiohttp import web

from deploy.sandbox.slack import SIGNING_SECRET
from libs.common.http.application import Problem
from services.alerts.rules.case import Verb
from services.alerts.store.cases import privacy as case_privacy
from services.gateway.slack import payload_of
from tests.integration.alerts.cases import Cases, answer
from tests.integration.alerts.conftest import KEY, Alerts, StartAlerts
from tests.integration.alerts.test_case_http import lead, sections, with_app
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.promise("P9")

PATH = "/api/slack/actions"
OPEN = ["taken", "later", "not_a_lead"]
OWNED = ["release", "remind", "hand_over", "won", "lost"]
EWA = {"user": "U0EWA", "name": "ewa.lis"}
ZONE = ZoneInfo("Europe/Warsaw")
HOURS = {"zone": ZONE.key, "opens": "09:00", "closes": "17:00", "weekends": True}


@dataclass
class Slack:
    """A lead shown in Slack, and a gateway in front of alerts."""

    subject: Alerts
    case_id: UUID
    cases: Cases
    ts: str = ""
    door: str = ""

    async def message(self) -> dict[str, Any]:
        """Return the lead's own message, as its channel now shows it."""
        got = await self.subject.sandbox.received("slack")
        shown: dict[str, Any] = got[-1]["body"] if got else {}
        return shown

    async def shows(self, *buttons: str) -> None:
        try:
            await eventually(self.message, 30, so=lambda found: pressable(found) == list(buttons))
        except TimeoutError:
            pytest.fail(f"{await self.message()}\n{self.subject.log.read_text()[-3000:]}")

    async def press(self, verb: str, **how: Any) -> int:
        message = {"channel": "C0123", "ts": self.ts}
        status, body = await self.subject.sandbox.press(self.door, message, verb, **how)
        assert (body == "") == (status == 200), body
        return status

    async def said(self) -> list[str]:
        """Return what whoever pressed was told."""
        got = await self.responses()
        assert all(each["response_type"] == "ephemeral" for each in got)
        return [each["text"] for each in got]

    async def responses(self) -> list[dict[str, Any]]:
        return [each["body"] for each in await self.subject.sandbox.received("slack_response")]

    def crafted(self, action: str, **changes: Any) -> bytes:
        """Return a press of the message's first generation, whatever it shows by now."""
        where: dict[str, Any] = {"channel": {"id": "C0123"}, "message": {"ts": self.ts}}
        where["response_url"] = f"{self.subject.sandbox.url}/slack/response"
        return interaction(action, f"{self.case_id} 0 {self.case_id}", **(where | changes))


def pressable(message: dict[str, Any]) -> list[str]:
    actions = [each for each in message.get("blocks", []) if each["type"] == "actions"]
    return [button["action_id"] for each in actions for button in each["elements"]]


@pytest.fixture
async def slack(alerts: StartAlerts, sandbox: Sandbox) -> AsyncIterator[Slack]:
    async with shown(alerts, sandbox) as found:
        yield found


@asynccontextmanager
async def shown(alerts: StartAlerts, sandbox: Sandbox) -> AsyncIterator[Slack]:
    chain = [{"to": "sms", "call": "sales", "wait": "12h"}]
    policy = sections(asks=["app"], chain=chain, within="12h", hours="office")
    subject = await with_app(alerts, sandbox, policy | {"hours": {"office": HOURS}})
    case_id = await lead(subject)
    slack = Slack(subject, case_id, Cases(subject.engine))
    await slack.shows(*OPEN)

    receipt = "SELECT receipt FROM case_place WHERE receipt IS NOT NULL"
    slack.ts = (await eventually(lambda: slack.cases.rows(receipt)))[0].receipt["ts"]

    async def door(request: web.Request) -> web.Response:
        try:
            body = await request.read()
            payload = payload_of(SIGNING_SECRET, request.headers, body, time.time())
        except Problem as problem:
            return problem.response()
        status, text = await to_alerts(subject, payload)
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_post(PATH, door)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    slack.door = f"http://{HOST}:{runner.addresses[0][1]}{PATH}"
    yield slack
    await runner.cleanup()


async def to_alerts(subject: Alerts, payload: bytes) -> tuple[int, str]:
    headers = {"X-Internal-Key": KEY, "X-Caller": "public", "Content-Type": "application/json"}
    got = await subject.send("POST", PATH, headers, data=payload)
    return got.status, str(got.body)


def interaction(action: str, value: str, **changes: Any) -> bytes:
    user = {"id": "U012ABC", "name": "anna.nowak", "team_id": "T0123"}
    payload: dict[str, Any] = {"type": "block_actions", "user": user, "team": {"id": "T0123"}}
    payload |= {"trigger_id": "t1", "actions": [{"action_id": action, "value": value}]}
    return json.dumps(payload | changes).encode()


async def test_a_lead_is_taken_and_won_by_buttons(slack: Slack) -> None:
    assert await slack.press("taken") == 200
    await slack.cases.sees(slack.case_id, state="answered", owner="anna", owner_name="Anna Nowak")
    (row,) = await slack.cases.rows("SELECT person, via, verb FROM case_answer")
    assert tuple(row) == ("anna", "slack", "taken")
    await slack.shows(*OWNED)
    assert await slack.press("won") == 200
    assert (await slack.cases.case(slack.case_id)).outcome == "won"
    await slack.shows()
    assert await slack.said() == []


async def test_an_owner_hands_over_and_is_reminded_by_menus(slack: Slack) -> None:
    await slack.press("taken")
    await slack.shows(*OWNED)
    assert await slack.press("remind", item="In half an hour") == 200
    case = await slack.cases.case(slack.case_id)
    assert (case.wished, case.next_at > datetime.now(UTC) + timedelta(minutes=29)) == (True, True)
    assert await slack.press("hand_over", item="Ewa Lis") == 200
    await slack.cases.sees(slack.case_id, owner="ewa", owner_name="Ewa Lis", wished=False)
    bare = slack.crafted("hand_over")
    assert (await to_alerts(slack.subject, bare))[0] == 422


async def test_who_comes_second_is_told_who_has_it(slack: Slack) -> None:
    await slack.cases.take(slack.case_id)
    user = {"id": "U0EWA", "name": "ewa.lis", "team_id": "T0123"}
    assert await to_alerts(slack.subject, slack.crafted("taken", user=user)) == (200, "")
    assert await slack.said() == ["Anna Nowak has it."]
    assert (await slack.cases.case(slack.case_id)).owner == "anna"


async def test_a_member_of_the_team_whom_no_section_names_may_take(slack: Slack) -> None:
    assert await slack.press("taken", **EWA) == 200
    await slack.cases.sees(slack.case_id, owner="U0EWA", owner_name="ewa.lis")


async def test_a_replayed_press_has_its_first_result(slack: Slack) -> None:
    """Rule KEY: take, give back, the take comes again: no owner who does not know."""
    take = slack.crafted("taken")
    assert await to_alerts(slack.subject, take) == (200, "")
    await slack.cases.answer(slack.case_id, answer(Verb.RELEASE))
    assert await to_alerts(slack.subject, take) == (200, "")
    assert (await slack.cases.case(slack.case_id)).state == "open"
    rows = await slack.cases.rows("SELECT verb FROM case_answer ORDER BY id")
    assert [row.verb for row in rows] == ["taken", "release"]


async def test_a_button_of_before_takes_but_does_not_close(slack: Slack) -> None:
    await slack.cases.take(slack.case_id)
    await slack.cases.answer(slack.case_id, answer(Verb.RELEASE))
    value = f"{slack.case_id} 0 {slack.case_id} spam"
    item = [{"action_id": "not_a_lead", "selected_option": {"value": value}}]
    old = slack.crafted("not_a_lead", actions=item)
    assert await to_alerts(slack.subject, old) == (200, "")
    assert await slack.said() == ["Something has changed. Please look at it again."]
    assert (await slack.cases.case(slack.case_id)).state == "open"
    take = slack.crafted("taken", trigger_id="t2")
    assert await to_alerts(slack.subject, take) == (200, "")
    assert (await slack.cases.case(slack.case_id)).owner == "anna"


async def test_put_off_until_tomorrow_it_is_asked_when_the_hours_begin(slack: Slack) -> None:
    before = datetime.now(ZONE).date()
    assert await slack.press("later", item="Tomorrow 09:00") == 200
    (row,) = await slack.cases.rows("SELECT next_at FROM alert_case")
    asked = row.next_at.astimezone(ZONE)
    assert (asked.hour, asked.minute, (asked.date() - before).days) == (9, 0, 1)


async def test_a_copy_whose_time_is_unknown_is_replaced_by_its_press(
    alerts: StartAlerts, sandbox: Sandbox
) -> None:
    """The response to the first posting is lost, so the lead is posted twice."""
    await sandbox.behave("slack", close=True, accepted=True, fail_next=1)
    async with shown(alerts, sandbox) as slack:
        known = slack.ts
        slack.ts = f"{known[:-6]}{int(known[-6:]) - 1:06}"
        assert await slack.press("taken") == 200
        assert (await slack.cases.case(slack.case_id)).owner == "anna"
        (copy,) = await slack.responses()
        assert copy["replace_original"] is True
        assert pressable(copy) == OWNED
        await slack.shows(*OWNED)
        assert (await slack.message()) | {"replace_original": True} == copy | {
            "channel": "C0123",
            "ts": known,
        }
        assert await slack.press("won", **EWA) == 200  # refused, and shown how it stands
        private, again = sorted(
            (await slack.responses())[1:], key=lambda each: each["replace_original"]
        )
        assert (private["text"], again) == ("Anna Nowak has it.", copy)
        assert await slack.press("won") == 200
        assert pressable((await slack.responses())[-1]) == []
        await slack.shows()


async def test_a_copy_of_an_erased_case_names_nobody_any_more(
    alerts: StartAlerts, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", close=True, accepted=True, fail_next=1)
    async with shown(alerts, sandbox) as slack:
        assert "jan@example.com" in json.dumps(await slack.message())
        async with slack.subject.engine.begin() as tx:
            await case_privacy.erase(tx, slack.case_id)
        slack.ts = f"{slack.ts[:-6]}{int(slack.ts[-6:]) - 1:06}"
        assert await slack.press("taken") == 200
        (copy,) = [each for each in await slack.responses() if each["replace_original"]]
        assert copy["text"] == "A request was withdrawn, no answer is needed"
        assert "jan@example.com" not in json.dumps(copy)


async def test_forged_old_and_of_another_team_it_answers_nothing(slack: Slack) -> None:
    others = ({"secret": "another"}, {"age": 400}, {"team": "T0999"}, {"user_team": "T0999"})
    for how in others:
        assert await slack.press("taken", **how) == 401, how
    assert (await slack.cases.case(slack.case_id)).state == "open"
    assert await slack.said() == []


async def test_a_refusal_goes_to_no_address_of_the_caller_s_choice(slack: Slack) -> None:
    called = asyncio.Event()

    async def elsewhere(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        writer.close()

    server = await asyncio.start_server(elsewhere, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    await slack.cases.take(slack.case_id, "ewa")
    where = f"http://{HOST}:{port}/slack/response"
    # Neither the refusal nor, as no message has this time, the case as it stands.
    refused = slack.crafted("taken", response_url=where, message={"ts": "1.2"})
    assert await to_alerts(slack.subject, refused) == (200, "")
    assert not called.is_set()
    assert slack.subject.log.read_text().count("slack.foreign_response_url") == 2
    server.close()


async def test_while_the_case_is_locked_the_press_fails_in_time(slack: Slack) -> None:
    async with slack.subject.engine.begin() as tx:
        await tx.execute(sa.text("SELECT FROM alert_case FOR UPDATE"))
        assert await slack.press("taken") == 503
    assert (await slack.cases.case(slack.case_id)).state == "open"
    assert await slack.press("taken") == 200


CASE = str(UUID(int=0))
VALUE = f"{CASE} 0 {CASE}"


async def test_a_press_that_no_message_offers_answers_nothing(slack: Slack) -> None:
    for payload in (
        interaction("reopen", VALUE),
        interaction("open_the_page", "of a template"),
        interaction("taken", VALUE, actions=[]),
        interaction("taken", VALUE, type="view_submission"),
        interaction("taken", VALUE),
    ):
        assert await to_alerts(slack.subject, payload) == (200, "")
    for action, value in (
        ("taken", "no case"),
        ("taken", f"{CASE} 0"),
        ("taken", f"{CASE} x {CASE}"),
        ("taken", f"{VALUE} hour"),
        ("taken", f"{VALUE} hour hour"),
        ("later", VALUE),
        ("later", f"{VALUE} spam"),
        ("not_a_lead", f"{VALUE} morning"),
        ("not_a_lead", f"{VALUE} <!channel>"),
    ):
        named = value.replace(CASE, str(slack.case_id))
        for part in ({"value": named}, {"selected_option": {"value": named}}):
            forged = slack.crafted(action, actions=[{"action_id": action, **part}])
            status, text = await to_alerts(slack.subject, forged)
            assert (status, "this" in text) == (422, True), text
    assert await slack.cases.rows("SELECT FROM case_answer") == []
    assert await slack.responses() == []
