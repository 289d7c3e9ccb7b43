"""Commands on the whole system; the runbooks' tests run the others."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from libs.domain.email_address import normalise
from tests.support.cli import Done, fits, ostoja
from tests.support.eventually import becomes, eventually
from tests.support.stack import Stack
from tests.support.system import LEAD, fresh_address


@pytest.fixture
async def unhealthy(stack: Stack) -> Any:
    """Slack refuses for good: what is sent to it fails at once."""
    await stack.sandbox.behave("slack", status=400)
    yield
    await stack.sandbox.behave("slack", status=200)


async def failed_alert(stack: Stack) -> str:
    id_ = await stack.alert(f"refused {uuid.uuid4()}")

    async def given_up() -> bool:
        return bool((await stack.state(id_)).get("state") == "failed")

    await eventually(given_up, 30)
    return id_


async def state(stack: Stack, id_: str) -> str:
    return str((await stack.state(id_))["state"])


async def run(stack: Stack, *words: str) -> Done:
    return await ostoja(*words, system=stack)


async def test_a_failed_alert_is_listed_retried_and_leaves_the_list(
    stack: Stack, unhealthy: None
) -> None:
    id_ = await failed_alert(stack)
    listed = await run(stack, "failed", "--target", "slack")
    as_json = await run(stack, "failed", "--json")
    shown = await run(stack, "show", id_)

    assert (listed.code, listed.err) == (0, "")
    assert id_ in listed.out
    assert fits(listed.out)
    assert id_ in [item["id"] for item in as_json.json]
    assert (shown.code, fits(shown.out)) == (0, True)
    assert "slack_alert, info: failed" in shown.out
    assert shown.out.count("refused 400") == 2  # how it stands, and its only try

    await stack.sandbox.behave("slack", status=200)
    retried = await run(stack, "--operator", "ola", "retry", id_)
    await becomes(lambda: state(stack, id_), "delivered", 30)
    assert retried.out == "requeued 1, skipped 0\n"
    found = stack.query("SELECT operator FROM alerts.delivery WHERE alert_id = %s", id_)
    assert found[0].operator == "ola"
    assert id_ not in (await run(stack, "failed")).out


async def test_a_data_subject_is_shown_exported_and_erased(stack: Stack, tmp_path: Path) -> None:
    address = fresh_address()
    await stack.opt_in(address)

    audit = await run(stack, "consent", "audit", address)
    path = tmp_path / "export.json"
    export = await run(stack, "consent", "export", address, "-o", str(path))
    erased = await run(stack, "consent", "erase", address, "--yes")

    async def over() -> Any:
        found = await run(stack, "consent", "audit", address, "--json")
        return found.json[-1]["erasure"]["status"] == "done" and found.json[:-1] == []

    assert (audit.code, "opt-in" in audit.out, fits(audit.out)) == (0, True, True)
    assert (export.code, json.loads(path.read_text())["email"]) == (0, address)
    assert (erased.code, erased.out) == (0, "erasure: in_progress\n")
    await eventually(over, 30)


async def test_follow_ups_are_stopped_with_the_service_key(stack: Stack) -> None:
    address = fresh_address()
    chat = LEAD | {"session_id": address, "email": normalise(address)}
    await stack.http("POST", "/api/chatbot/chat", chat)
    await stack.follow_up(address, delay_seconds=3600)

    done = await run(stack, "followups", "stop", address, "--reason", "staff")

    assert done.code == 0, done
    assert done.out.startswith("cancelled ")
    assert done.out != "cancelled 0\n"
