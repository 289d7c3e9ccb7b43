"""The code of docs/forms.md is what `ostoja forms snippet` prints, and each of it makes a lead."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ostoja import form_page, snippets
from tests.integration.system.test_examples import environment, php_site, run
from tests.support import checkers
from tests.support.eventually import eventually
from tests.support.forms import SITE, arrived, new_key, stored
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
IN_NODE = """
globalThis.location = {{href: "https://www.ostoja-wnetrza.example/kontakt?x=1"}};
const real = fetch;
globalThis.fetch = (url, given) =>
  real(url, {{...given, headers: {{...given.headers, Origin: "{site}"}}}});
{send}
const said = await send({{email: "{email}"}}, {consents}, "{key}");
console.log(JSON.stringify(said));
"""


async def described(stack: Stack) -> Any:
    return (await stack.http("GET", "/api/forms/contact?language=pl")).body


async def test_the_page_holds_what_the_command_prints(stack: Stack) -> None:
    form = await described(stack) | {"issued": ISSUED}
    printed = {FENCES[kind]: make(form, SHOWN) for kind, make in snippets.AS.items()}
    found = {name: body.rstrip("\n") for name, body in CODE.items() if name in printed}
    assert found == printed


@pytest.mark.parametrize("kind", ["html", "wordpress"])
async def test_a_pasted_form_makes_a_lead(stack: Stack, kind: str) -> None:
    await stack.sandbox.reset()
    shown = await described(stack)
    page = CODE[FENCES[kind]].replace(SHOWN, stack.url).replace(ISSUED, shown["issued"])
    (form,) = form_page.forms_of(page)
    assert form_page.differences(form, shown, stack.url) == []
    email = fresh_address()
    given = {
        each["name"]: each["value"]
        for each in form.controls
        if each["type"] == "hidden" or each["name"].startswith("consent.")
    } | {"email": email, "second_name": ""}
    answer = await stack.http("POST", "/api/leads", form=given, headers={"Origin": SITE})
    assert answer.status == 303
    await arrived(stack, email)

    async def agreed() -> bool:
        found = await stack.http("GET", f"/api/consent/audit/{email}", key="admin")
        return bool(found.body["entries"])

    await eventually(agreed, 30)


@pytest.mark.parametrize("kind", ["fetch", "react"])
async def test_a_page_s_script_sends_and_repeats_with_its_key(
    stack: Stack, kind: str, tmp_path: Path
) -> None:
    checkers.require("node")
    await stack.sandbox.reset()
    email, form = fresh_address(), await described(stack)
    code = CODE[FENCES[kind]].replace(SHOWN, stack.url).replace(ISSUED, form["issued"])
    (send,) = re.findall(r"^async function send\(.*?^}$", code, re.MULTILINE | re.DOTALL)
    consents = {each["purpose"]: each["sha256"] for each in form["consents"]}
    script = tmp_path / "send.mjs"
    script.write_text(
        IN_NODE.format(
            site=SITE, send=send, email=email, consents=json.dumps(consents), key=new_key()
        )
    )
    said = []
    for _ in range(2):
        code_, printed = await run("node", str(script), env={"PATH": os.environ["PATH"]})
        assert code_ == 0, printed
        said.append(json.loads(printed))
    assert said[0] == said[1]
    assert said[0]["consents_not_recorded"] == []
    await arrived(stack, email)
    (row,) = stored(stack, email)
    assert row.page == "https://www.ostoja-wnetrza.example/kontakt"


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
