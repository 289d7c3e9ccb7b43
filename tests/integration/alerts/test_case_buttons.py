"""Answers by the buttons of an app's Slack messages, behind the gateway's check."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import sqlalchemy as sa
from aiohttp import web

from deploy.sandbox.slack import SIGNING_SECRET
from libs.common.http.application import Problem
from services.alerts.case import Verb
from services.gateway.slack import payload_of
from tests.integration.alerts.cases import Cases, answer
from tests.integration.alerts.conftest import KEY, Alerts, StartAlerts
from tests.integration.alerts.test_case_messages import lead, sections
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.sandbox import Sandbox

PATH = "/api/slack/actions"
OPEN = ["taken", "later", "not_a_lead"]
EWA = {"user": "U0EWA", "name": "ewa.lis"}


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
        async def so() -> bool:
            return pressable(await self.message()) == list(buttons)

        try:
            await eventually(so, 30)
        except TimeoutError:
            pytest.fail(f"{await self.message()}\n{self.subject.log()[-3000:]}")

    async def press(self, verb: str, **how: Any) -> int:
        message = {"channel": "C0123", "ts": self.ts}
        status, body = await self.subject.sandbox.press(self.door, message, verb, **how)
        assert (body == "") == (status == 200), body
        return status

    async def said(self) -> list[str]:
        """Return what whoever pressed was told."""
        got = await self.subject.sandbox.received("slack_response")
        assert all(each["body"]["response_type"] == "ephemeral" for each in got)
        return [each["body"]["text"] for each in got]


def pressable(message: dict[str, Any]) -> list[str]:
    actions = [each for each in message.get("blocks", []) if each["type"] == "actions"]
    return [button["action_id"] for each in actions for button in each["elements"]]


@pytest.fixture
async def slack(alerts: StartAlerts, sandbox: Sandbox) -> AsyncIterator[Slack]:
    target = {
        "channel": "slack",
        "token": {"env": "SLACK_BOT_TOKEN"},
        "post_to": "C0123",
        "team": "T0123",
        "api": f"{sandbox.url}/slack/api",
    }
    chain = [{"to": "sms", "call": "sales", "wait": "12h"}]
    more = {"routes": {"lead.qualified": ["app"], "escalation": ["email"]}}
    named: dict[str, Any] = sections(asks=["app"], chain=chain, within="12h") | more
    subject = await alerts(sections=named, app=target, SLACK_BOT_TOKEN="xoxb-1")
    case_id = await lead(subject)
    slack = Slack(subject, case_id, Cases(subject.engine))
    await slack.shows(*OPEN)

    async def receipt() -> Any:
        rows = await slack.cases.rows("SELECT receipt FROM case_place WHERE receipt IS NOT NULL")
        return rows[0].receipt if rows else None

    slack.ts = (await eventually(receipt, 30))["ts"]

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
    url = f"http://{HOST}:{subject.port}{PATH}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=payload, headers=headers) as got,
    ):
        return got.status, await got.text()


def interaction(action: str, value: str, **changes: Any) -> bytes:
    user = {"id": "U012ABC", "name": "anna.nowak", "team_id": "T0123"}
    payload: dict[str, Any] = {"type": "block_actions", "user": user, "team": {"id": "T0123"}}
    payload |= {"trigger_id": "t1", "actions": [{"action_id": action, "value": value}]}
    return json.dumps(payload | changes).encode()


async def test_a_lead_is_taken_and_won_by_buttons(slack: Slack) -> None:
    assert await slack.press("taken") == 200
    case = await slack.cases.case(slack.case_id)
    assert (case.state, case.owner, case.owner_name) == ("answered", "anna", "Anna Nowak")
    (row,) = await slack.cases.rows("SELECT person, via, verb FROM case_answer")
    assert tuple(row) == ("anna", "slack", "taken")
    await slack.shows("release", "won", "lost")
    assert await slack.press("won") == 200
    assert (await slack.cases.case(slack.case_id)).outcome == "won"
    await slack.shows()
    assert await slack.said() == []


async def test_who_comes_second_is_told_who_has_it(slack: Slack) -> None:
    value = f"{slack.case_id} 0"
    await slack.cases.take(slack.case_id)
    user = {"id": "U0EWA", "name": "ewa.lis", "team_id": "T0123"}
    where = f"{slack.subject.sandbox.url}/slack/response"
    late = interaction("taken", value, user=user, response_url=where)
    assert await to_alerts(slack.subject, late) == (200, "")
    assert await slack.said() == ["Anna Nowak has it."]
    assert (await slack.cases.case(slack.case_id)).owner == "anna"


async def test_a_member_of_the_team_whom_no_section_names_may_take(slack: Slack) -> None:
    assert await slack.press("taken", **EWA) == 200
    case = await slack.cases.case(slack.case_id)
    assert (case.owner, case.owner_name) == ("U0EWA", "ewa.lis")


async def test_a_replayed_press_has_its_first_result(slack: Slack) -> None:
    """Rule KEY: take, give back, the take comes again: no owner who does not know."""
    take = interaction("taken", f"{slack.case_id} 0")
    assert await to_alerts(slack.subject, take) == (200, "")
    await slack.cases.answer(slack.case_id, answer(Verb.RELEASE))
    assert await to_alerts(slack.subject, take) == (200, "")
    assert (await slack.cases.case(slack.case_id)).state == "open"
    rows = await slack.cases.rows("SELECT verb FROM case_answer ORDER BY id")
    assert [row.verb for row in rows] == ["taken", "release"]


async def test_a_button_of_before_takes_but_does_not_close(slack: Slack) -> None:
    await slack.cases.take(slack.case_id)
    await slack.cases.answer(slack.case_id, answer(Verb.RELEASE))
    where = f"{slack.subject.sandbox.url}/slack/response"
    old = interaction("not_a_lead", f"{slack.case_id} 0", response_url=where)
    assert await to_alerts(slack.subject, old) == (200, "")
    assert await slack.said() == ["Something has changed. Please look at it again."]
    assert (await slack.cases.case(slack.case_id)).state == "open"
    take = interaction("taken", f"{slack.case_id} 0", trigger_id="t2")
    assert await to_alerts(slack.subject, take) == (200, "")
    assert (await slack.cases.case(slack.case_id)).owner == "anna"


async def test_put_off_by_a_button_it_is_asked_again_in_an_hour(slack: Slack) -> None:
    assert await slack.press("later") == 200
    (row,) = await slack.cases.rows("SELECT next_at - now() AS left, state FROM alert_case")
    assert row.state == "open"
    assert 3500 < row.left.total_seconds() <= 3600

    async def says_so() -> bool:
        return "put off until" in json.dumps(await slack.message())

    await eventually(says_so, 30)
    await slack.shows(*OPEN)


@pytest.mark.parametrize(
    "how",
    [
        {"secret": "another"},
        {"age": 400},
        {"team": "T0999"},
        {"user_team": "T0999"},
    ],
)
async def test_forged_old_and_of_another_team_it_answers_nothing(
    slack: Slack, how: dict[str, Any]
) -> None:
    assert await slack.press("taken", **how) == 401
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
    refused = interaction("taken", f"{slack.case_id} 0", response_url=where)
    assert await to_alerts(slack.subject, refused) == (200, "")
    assert not called.is_set()
    assert "slack.foreign_response_url" in slack.subject.log()
    server.close()


async def test_while_the_case_is_locked_the_press_fails_in_time(slack: Slack) -> None:
    async with slack.subject.engine.begin() as tx:
        await tx.execute(sa.text("SELECT FROM alert_case FOR UPDATE"))
        assert await slack.press("taken") == 503
    assert (await slack.cases.case(slack.case_id)).state == "open"
    assert await slack.press("taken") == 200


@pytest.mark.parametrize(
    "payload",
    [
        interaction("reopen", f"{UUID(int=0)} 0"),
        interaction("taken", "no case"),
        interaction("taken", f"{UUID(int=0)}"),
        interaction("taken", f"{UUID(int=0)} 0", actions=[]),
        interaction("taken", f"{UUID(int=0)} 0", type="view_submission"),
        interaction("taken", f"{UUID(int=0)} 0"),
    ],
)
async def test_what_is_no_button_of_a_case_answers_nothing(slack: Slack, payload: bytes) -> None:
    assert await to_alerts(slack.subject, payload) == (200, "")
    assert await slack.cases.rows("SELECT FROM case_answer") == []
