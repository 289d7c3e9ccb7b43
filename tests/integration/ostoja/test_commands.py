"""Commands on the whole system; test_assistant.py and the runbooks' tests run the others."""

import json
import uuid
from pathlib import Path

from libs.domain.email_address import normalise
from tests.support.cli import Done, fits, ostoja
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import LEAD, fresh_address


async def failed_alert(stack: Stack) -> str:
    id_ = await stack.alert(f"refused {uuid.uuid4()}")

    await stack.until(id_, "failed")
    return id_


async def state(stack: Stack, id_: str) -> str:
    return str((await stack.state(id_))["state"])


async def run(stack: Stack, *words: str) -> Done:
    return await ostoja(*words, system=stack)


async def test_a_data_subject_is_shown_exported_and_erased(stack: Stack, tmp_path: Path) -> None:
    address = fresh_address()
    await stack.opt_in(address)

    audit = await run(stack, "consent", "audit", address)
    path = tmp_path / "export.json"
    export = await run(stack, "consent", "export", address, "-o", str(path))
    erased = await run(stack, "consent", "erase", address, "--yes")

    assert (audit.code, "opt-in" in audit.out, fits(audit.out)) == (0, True, True)
    assert (export.code, json.loads(path.read_text())["email"]) == (0, address)
    assert (erased.code, erased.out) == (0, "erasure: in_progress\n")
    await eventually(
        lambda: run(stack, "consent", "audit", address, "--json"),
        30,
        so=lambda found: found.json[-1]["erasure"]["status"] == "done" and found.json[:-1] == [],
    )


async def test_follow_ups_are_stopped_with_the_service_key(stack: Stack) -> None:
    address = fresh_address()
    chat = LEAD | {"session_id": address, "email": normalise(address)}
    await stack.http("POST", "/api/chatbot/chat", chat)
    await stack.follow_up(address, delay_seconds=3600)

    done = await run(stack, "followups", "stop", address, "--reason", "staff")

    assert done.code == 0, done
    assert done.out.startswith("cancelled ")
    assert done.out != "cancelled 0\n"
