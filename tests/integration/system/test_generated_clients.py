"""Calls by the clients that tests/clients/run has generated: alerts, a form, and what it sends."""

import json
import os

import pytest

from tests.integration.system.test_examples import run
from tests.support.forms import CONTACT, arrived, stored
from tests.support.stack import ROOT, Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.clients

MADE = ROOT / ".local" / "clients"


@pytest.mark.parametrize(
    "command",
    [
        (str(MADE / "venv" / "bin" / "python"), str(MADE / "python" / "use.py")),
        ("node", str(MADE / "use.mjs")),
    ],
    ids=["python", "typescript"],
)
async def test_a_generated_client_alerts_and_sends_a_form(
    stack: Stack, command: tuple[str, str]
) -> None:
    await stack.sandbox.reset()
    email = fresh_address()
    given = (stack.url, stack.values["SERVICE_API_KEY"], email)
    code, printed = await run(*command, *given, env={"PATH": os.environ["PATH"]})
    assert code == 0, printed
    said = json.loads(printed)
    assert said["form"] == [field.name for field in CONTACT.fields]
    await arrived(stack, email, times=2)  # the alert has it as its text
    (row,) = stored(stack, email)
    assert str(row.id) == said["lead"]
