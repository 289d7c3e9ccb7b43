"""A visitor whom a spent budget would shut out reaches staff all the same, over real servers."""

import re
import uuid
from pathlib import Path

from tests.conftest import NewStack
from tests.support.forms import CONTACT, arrived, stored, suspected
from tests.support.stack import Stack, quick_forms_config
from tests.support.system import Answer, fresh_address


async def test_a_spent_budget_leads_to_a_form_that_reaches_staff(
    new_stack: NewStack, tmp_path: Path
) -> None:
    path = quick_forms_config(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"form" = "1000000 per hour"', '"form" = "20 per day"'), "utf-8")
    stack = new_stack(CHAT_BUDGET="20 per day", FORMS_CONFIG=str(path))

    refused = [await chat(stack) for _ in range(2)][1]
    assert refused.status == 429
    page = refused.body["contact"]
    assert page == f"{stack.url}/forms/contact?language=pl"

    first, other = fresh_address(), fresh_address()
    assert (await send(stack, page, first)).status == 303
    await arrived(stack, first)  # the form's own budget has room: staff are told at once

    answer = await send(stack, page, other)
    assert (answer.status, answer.headers["Location"]) == (303, CONTACT.success["pl"])
    item = await suspected(stack, other)
    assert item["suspicion"] == "busy"
    (row,) = stored(stack, other)
    assert row.state == "suspected"
    await stack.http("POST", f"/api/leads/suspected/{item['id']}/release", key="service")
    await arrived(stack, other)


async def chat(stack: Stack) -> Answer:
    body = {"message": "Dzień dobry", "session_id": uuid.uuid4().hex, "language": "pl"}
    return await stack.http("POST", "/api/chatbot/chat", body, headers={"Accept-Language": "pl-PL"})


async def send(stack: Stack, page: str, email: str) -> Answer:
    shown = (await stack.http("GET", page.removeprefix(stack.url))).body
    given = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', shown))
    return await stack.http(
        "POST", "/api/leads", form=given | {"email": email}, headers={"Origin": stack.url}
    )
