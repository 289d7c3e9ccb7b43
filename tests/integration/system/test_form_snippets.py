"""The code of docs/forms.md is what `ostoja forms snippet` prints, and each of it makes a lead."""

import sys
from pathlib import Path

import aiohttp
import pytest

from ostoja import snippets
from tests.integration.system.test_examples import environment, php_site, run
from tests.support import checkers
from tests.support.forms import arrived, stored
from tests.support.ports import Ports
from tests.support.runbooks import CLIENTS, examples
from tests.support.stack import Stack
from tests.support.system import fresh_address

SHOWN, ISSUED = "https://ostoja.example.com", "k1.WyJjb250YWN0Il0.3q2-7w"
CODE = examples(CLIENTS.with_name("forms.md"))
FENCES = {
    "html": "html",
    "wordpress": "html wordpress",
    "fetch": "html fetch",
    "react": "jsx",
    "php": "php",
    "python": "python",
    "curl": "sh curl",
}


async def test_the_page_holds_what_the_command_prints(stack: Stack) -> None:
    described = await stack.http("GET", "/api/forms/contact?language=pl")
    form = described.body | {"issued": ISSUED}
    printed = {FENCES[kind]: make(form, SHOWN) for kind, make in snippets.AS.items()}
    found = {name: body.rstrip("\n") for name, body in CODE.items() if name in printed}
    assert found == printed


@pytest.mark.parametrize(
    ("kind", "command"),
    [("python", (sys.executable, "-c")), ("curl", ("sh", "-c"))],
)
async def test_a_program_makes_a_lead(stack: Stack, kind: str, command: tuple[str, ...]) -> None:
    await stack.sandbox.reset()
    email = fresh_address()
    code = CODE[FENCES[kind]].replace("anna@example.com", email)
    exit_code, printed = await run(*command, code, env=environment(stack))
    assert exit_code == 0, printed
    await arrived(stack, email)


async def test_a_php_page_makes_one_lead_of_a_button_pressed_twice(
    stack: Stack, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkers.require("php")
    await stack.sandbox.reset()
    email = fresh_address()
    monkeypatch.setitem(sys.modules[php_site.__module__].EXAMPLES, "php", CODE["php"])
    async with (
        php_site(tmp_path, ports.take(), environment(stack)) as page,
        aiohttp.ClientSession() as visitor,
    ):
        for _ in range(2):
            given = {"email": email, "message": "Łazienka", "unknown": "x"}
            async with visitor.post(page, data=given) as answer:
                assert answer.status == 202
    await arrived(stack, email)
    assert len(stored(stack, email)) == 1
