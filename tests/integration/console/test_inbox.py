"""The first page: what needs a person now, as far as the gateway lets them see it."""

import os
import signal

from services.console.http.pages import TEXTS
from tests.support.stack import Stack
from tests.support.staff import person
from tests.support.system import LEAD, fresh_address

EN = TEXTS["en"]


async def test_each_role_sees_what_needs_it_and_nothing_that_the_gateway_refuses(
    stack: Stack,
) -> None:
    said = {**LEAD, "message": f"{LEAD['message']} {fresh_address()}", "session_id": "inbox-1"}
    assert (await stack.http("POST", "/api/chatbot/chat", said)).status == 200
    seller, viewer, admin = [await person(stack, role) for role in ("sales", "viewer", "admin")]
    shown = await seller.get("/console/")
    assert shown.status == 200
    assert EN["inbox_leads"].format(n=1) in shown.text
    for other in (viewer, admin):
        text = (await other.get("/console/")).text
        assert EN["inbox_empty"] in text
        assert EN["part_away"] not in text


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
        assert f"{EN[f'part_{part}']}: {EN['part_away']}" in shown.text
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
