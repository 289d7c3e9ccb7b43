"""What `ostoja forms snippet` prints for pages, in a browser: what is read is what is recorded."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from ostoja import snippets
from tests.conftest import WholeSystem
from tests.pages.conftest import COMPANY, DESK, photograph, serving, thanked
from tests.support.eventually import eventually
from tests.support.forms import CONTACT, arrived, stored
from tests.support.ports import HOST, Ports
from tests.support.runbooks import CLIENTS, examples
from tests.support.stack import Stack, quick_forms_config
from tests.support.system import fresh_address

pytestmark = [pytest.mark.pages, pytest.mark.promise("P11")]

MODULES = Path(__file__).parents[1] / "browsers" / "node_modules"
MOUNT = """
import {createElement} from "react"
import {createRoot} from "react-dom/client"
import {NAME} from "./form.jsx"
createRoot(document.querySelector("#here")).render(createElement(NAME))
"""


def compiled(code: str, folder: Path, name: str = "LeadForm") -> str:
    """Return a page that shows a React component, as a developer's build makes it."""
    (folder / "form.jsx").write_text(code, encoding="utf-8")
    (folder / "main.js").write_text(MOUNT.replace("NAME", name), encoding="utf-8")
    options = ("--bundle", "--jsx=automatic", "--charset=utf8", "--log-level=error")
    production = '--define:process.env.NODE_ENV="production"'
    made = subprocess.run(
        [str(MODULES / ".bin" / "esbuild"), str(folder / "main.js"), *options, production],
        env={"NODE_PATH": str(MODULES), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    return f'<div id="here"></div><script type="module">{made.stdout.decode()}</script>'


@pytest.fixture(scope="module")
def page_port(ports: Ports) -> int:
    return ports.take()


@pytest.fixture(scope="module")
def stack(whole_system: WholeSystem, private_folder: Path, page_port: int) -> Iterator[Stack]:
    """Run a system whose form belongs to a page of ours, where the sandbox's site would be."""
    path = quick_forms_config(private_folder)
    text = path.read_text(encoding="utf-8")
    assert '"sandbox"' in text
    path.write_text(text.replace('"sandbox"', f'"http://{HOST}:{page_port}"'), encoding="utf-8")
    with whole_system({"FORMS_CONFIG": str(path)}) as running:
        yield running


@pytest.mark.parametrize("language", ["pl", "en"])
@pytest.mark.parametrize("kind", ["html", "wordpress", "fetch", "react"])
async def test_what_a_pasted_form_shows_is_what_is_recorded(
    browser: Browser, stack: Stack, page_port: int, kind: str, language: str, tmp_path: Path
) -> None:
    if kind == "react" and not (MODULES / ".bin" / "esbuild").exists():
        pytest.skip("make test-pages installs React if npm is here")
    await stack.sandbox.reset()
    email = fresh_address()
    form = (await stack.http("GET", f"/api/forms/contact?language={language}")).body
    code = snippets.AS[kind](form, stack.url)
    html = compiled(code, tmp_path) if kind == "react" else code
    page = await browser.new_page(viewport=DESK)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    await page.route(COMPANY, thanked)
    async with serving(f"<!doctype html><link rel=icon href=data:>{html}", page_port):
        await page.goto(f"http://{HOST}:{page_port}/")
        await page.get_by_label("E-mail", exact=True).fill(email)
        options = {option.value: option.label[language] for option in CONTACT.fields[5].options}
        start = page.get_by_label(str((CONTACT.fields[5].label or {})[language]))
        await start.select_option("jak najszybciej")
        assert await start.locator("option").all_inner_texts() == [
            snippets.TEXTS["choose"][language],
            *options.values(),
        ]
        consent = page.get_by_role("checkbox")
        await expect(consent).not_to_be_checked()
        await consent.check()
        shown = await page.locator("label:has([type=checkbox]) span").inner_text()
        await photograph(page, f"snippet-{kind}-{language}")
        await page.get_by_role("button", name=snippets.TEXTS["send"][language]).click()
        if kind in {"html", "wordpress"}:
            await page.wait_for_url(CONTACT.success[language])
        else:
            await expect(page.locator("output")).to_have_text(
                snippets.TEXTS["sent"][language], timeout=30_000
            )
        assert complaints == []
    await page.close()
    await arrived(stack, email)
    (row,) = stored(stack, email)
    assert (row.state, row.fields["start"]) == ("accepted", "jak najszybciej")

    (entry,) = (await eventually(lambda: stack.audit(email), so=lambda it: it["entries"]))[
        "entries"
    ]
    assert entry["evidence"]["wording_sha256"] == hashlib.sha256(shown.encode()).hexdigest()


def test_every_kind_for_a_page_is_here() -> None:
    programs = {"php", "python", "curl"}  # test_form_snippets runs these
    assert set(snippets.AS) == {"html", "wordpress", "fetch", "react"} | programs


@pytest.mark.skipif(
    not (MODULES / ".bin" / "esbuild").exists(), reason="make test-pages installs React"
)
async def test_the_chat_of_the_page_about_clients_is_tapped_in_react(
    browser: Browser, stack: Stack, page_port: int, tmp_path: Path
) -> None:
    code = examples(CLIENTS)["jsx"].replace("https://ostoja.example.com", stack.url)
    async with serving(compiled(code, tmp_path, "Chat"), page_port):
        page = await browser.new_page()
        await page.goto(f"http://{HOST}:{page_port}/")
        for name in ("Wycena", "Kuchnia", "10-15 m²", "Skip", "jak najszybciej", "Wolę e-mail"):
            await page.get_by_role("button", name=name, exact=True).click()
        await page.get_by_role("textbox", name="Na jaki adres e-mail").fill(fresh_address())
        await page.get_by_role("button", name="OK").click()
        await page.get_by_role("button", name="Tak", exact=True).click()
        await expect(page.get_by_role("log")).to_contain_text("Zapisuję zgodę")
        await page.get_by_role("button", name="10-15 m² (change)").click()
        await expect(page.get_by_role("button", name="15-20 m²")).to_be_visible()
        await page.close()
