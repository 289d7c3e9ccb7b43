"""`ostoja mcp` as an assistant starts it: the real client on stdio, the whole system behind it."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp_types import ElicitResult, TextContent

from deploy.up.environment import ROOT
from libs.domain.email_address import normalise
from tests.integration.ostoja.test_commands import failed_alert, state
from tests.support.eventually import becomes
from tests.support.stack import Stack
from tests.support.system import LEAD, fresh_address

TOOLS = [
    "alert", "alerts", "backlog", "breakers", "consent_status", "leads", "ledger_check", "on_call",
    "retry", "take_lead",
]  # fmt: skip


class Person:
    """Who is asked before something changes."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    async def answer(self, context: Any, params: Any) -> ElicitResult:  # noqa: ARG002 - as it is called
        self.asked.append(params.message)
        return ElicitResult(**self._answers.pop(0))


YES = {"action": "accept", "content": {"agreed": True}}
NO: list[dict[str, Any]] = [
    {"action": "accept", "content": {"agreed": False}},
    {"action": "decline"},
    {"action": "cancel"},
]


@asynccontextmanager
async def assistant(
    stack: Stack, person: Person | None, key: str | None = None, mode: str = "auto"
) -> AsyncIterator[Client]:
    env = {name: stack.values[name] for name in ("ADMIN_API_KEY", "SERVICE_API_KEY")}
    env |= {"OSTOJA_URL": stack.url, "OSTOJA_OPERATOR": "ola"} | (
        {"OSTOJA_KEY": key} if key else {}
    )
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "ostoja", "mcp"], env=env, cwd=ROOT
    )
    asks = person.answer if person else None
    async with Client(server, mode=mode, elicitation_callback=asks) as client:
        yield client


async def call(client: Client, tool: str, **given: Any) -> list[Any]:
    done = await said(client, tool, **given)
    assert not done.is_error, done
    return [json.loads(line) for line in text(done).splitlines() if line != "none"]


async def refused(client: Client, tool: str, **given: Any) -> str:
    done = await said(client, tool, **given)
    assert done.is_error, done
    return text(done)


async def said(client: Client, tool: str, **given: Any) -> Any:
    return await client.call_tool(tool, given)


def text(done: Any) -> str:
    (content,) = done.content
    assert isinstance(content, TextContent)
    return content.text


async def new_lead(stack: Stack) -> tuple[str, str]:
    """Return the address and the id of a lead that nobody has taken."""
    address = fresh_address()
    chat = LEAD | {"session_id": address, "email": normalise(address)}
    await stack.http("POST", "/api/chatbot/chat", chat)
    (lead,) = (await stack.http("GET", f"/api/leads?email={address}", key="service")).body["items"]
    return address, lead["id"]


@pytest.fixture
async def refusing(stack: Stack) -> AsyncIterator[None]:
    await stack.sandbox.behave("slack", status=400)
    yield
    await stack.sandbox.behave("slack", status=200)


@pytest.mark.parametrize("mode", ["auto", "legacy"])  # the protocol of 2026 and what was before
async def test_an_operator_looks_around_and_retries_what_has_failed(
    stack: Stack, refusing: None, mode: str
) -> None:
    id_ = await failed_alert(stack)
    person = Person(YES)
    async with assistant(stack, person, mode=mode) as client:
        tools = (await client.list_tools()).tools
        assert sorted(each.name for each in tools) == TOOLS
        acts = [
            each.name for each in tools if each.annotations and each.annotations.destructive_hint
        ]
        assert acts == ["retry", "take_lead"]
        assert [each.name for each in tools if not each.annotations.read_only_hint] == acts  # type: ignore[union-attr]

        assert (await call(client, "backlog"))[0]["targets"]["slack"]["failed"] >= 1
        assert id_ in [each["id"] for each in await call(client, "alerts", target="slack")]
        assert len(await call(client, "alerts", since="1h", limit=1)) == 1
        assert (await call(client, "alert", id=id_))[0]["state"] == "failed"
        assert "slack" in (await call(client, "breakers"))[0]
        assert "schedules" in (await call(client, "on_call"))[0]
        assert (await call(client, "ledger_check"))[0]["ok"] is True

        await stack.sandbox.behave("slack", status=200)
        assert (await call(client, "retry", ids=[id_]))[0]["requeued"] == 1
    await becomes(lambda: state(stack, id_), "delivered", 30)
    assert person.asked == [f'Send these alerts again? ids ["{id_}"]']
    found = stack.query("SELECT operator FROM alerts.delivery WHERE alert_id = %s", id_)
    assert found[0].operator == "ola"


async def test_a_lead_that_waits_is_taken_once_and_its_person_s_consents_are_shown(
    stack: Stack,
) -> None:
    address, id_ = await new_lead(stack)
    await stack.opt_in(address)
    person = Person(YES, YES)
    async with assistant(stack, person) as client:
        (lead,) = [each for each in await call(client, "leads", limit=50) if each["id"] == id_]
        take = {"lead": id_, "owner": "Ewa Lis", "version": lead["version"]}
        assert (await call(client, "take_lead", **take))[0]["state"] == "taken"
        assert "has changed" in await refused(client, "take_lead", **take | {"owner": "Ola"})
        assert id_ not in [each["id"] for each in await call(client, "leads", limit=50)]
        (consent,) = await call(client, "consent_status", email=address)
    assert consent["unsubscribed"] is False
    assert "granted" in json.dumps(consent["purposes"])
    assert "Ewa Lis" in person.asked[0]


async def test_nothing_changes_unless_a_person_agrees(stack: Stack, refusing: None) -> None:
    id_ = await failed_alert(stack)
    person = Person(*NO)
    async with assistant(stack, person) as client:
        for _ in NO:
            assert "did not agree" in await refused(client, "retry", ids=[id_])
    async with assistant(stack, None) as client:  # one that cannot ask
        why = await refused(client, "retry", ids=[id_])
    assert "`ostoja retry` in a terminal" in why
    assert len(person.asked) == len(NO)
    assert (await state(stack, id_)) == "failed"
    assert len((await stack.state(id_))["deliveries"][0]["history"]) == 1


async def test_a_key_has_its_own_scopes_and_a_refusal_is_plain(stack: Stack) -> None:
    (key,) = (await stack.own_key("dlq:read")).values()
    address, id_ = await new_lead(stack)
    await stack.opt_in(address)
    person = Person(YES, YES)
    take = {"lead": id_, "owner": "Ewa Lis", "version": 1}
    forbidden: dict[str, dict[str, Any]] = {
        "retry": {"status": "failed"},
        "take_lead": take,
        "leads": {},
        "ledger_check": {},
    }
    async with assistant(stack, person, key) as client:
        assert "targets" in (await call(client, "backlog"))[0]
        for tool, given in forbidden.items():
            why = await refused(client, tool, **given)
            assert "refused: " in why
            assert "scope" in why, why
            assert key not in why
        (consent,) = await call(client, "consent_status", email=address)
        assert (consent["email"], consent["purposes"]) == (None, None)


async def test_bad_input_is_refused_and_nobody_is_asked(stack: Stack) -> None:
    person = Person()
    async with assistant(stack, person) as client:
        wrong: list[tuple[str, dict[str, Any], str]] = [
            ("retry", {"targt": "slack", "status": "failed"}, "targt"),  # would retry them all
            ("retry", {"ids": ["x"]}, "UUID"),
            ("take_lead", {"lead": "x", "owner": "Ola"}, "version"),
            ("alerts", {"limit": 51}, "50"),
            ("alerts", {"since": "yesterday"}, "2h"),
            ("alert", {"id": "9b2e8a52-0f0d-5c3b-8a44-1f6d3a1f2b7c"}, "alert"),
            ("leads", {"q": "ab"}, "q"),
        ]
        for tool, given, why in wrong:
            assert why in (await refused(client, tool, **given)), (tool, given)
    assert person.asked == []
