"""The receivers of docs/clients.md and docs/events.md, as they stand: signed events, and forged."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import aiohttp
import pytest

from tests.integration.system.test_examples import EXAMPLES
from tests.support import checkers
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.stack import ROOT, Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.promise("P15")
CLIENTS = ROOT / ".local" / "clients"


def command(language: str, folder: Path, port: int) -> tuple[str, ...]:
    """Write the example down, and return how it is run."""
    checkers.require(*({"js": ["node"], "php": ["php"]}.get(language, [])))
    name, here = {"python": ("hook.py", folder), "js": ("hook.mjs", CLIENTS),
                  "php": ("hook.php", folder)}[language]  # fmt: skip
    path = here / name
    path.write_text(EXAMPLES[f"{language} events"], encoding="utf-8")
    return {
        "python": (sys.executable, str(path)),
        "js": ("node", str(path)),
        "php": ("php", "-S", f"{HOST}:{port}", str(path)),
    }[language]


@asynccontextmanager
async def running(words: tuple[str, ...], env: dict[str, str]) -> AsyncIterator[list[str]]:
    """Run a program; yields the lines that it prints."""
    env = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **env}
    process = await asyncio.create_subprocess_exec(
        *words, env=env, stdout=PIPE, stderr=STDOUT, cwd=ROOT
    )
    printed: list[str] = []

    async def collect() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            printed.append(line.decode())  # noqa: PERF401 - as they come

    reading = asyncio.create_task(collect())
    try:
        yield printed
    finally:
        process.terminate()
        await process.wait()
        await reading


@pytest.mark.parametrize(
    "language", ["python", "php", pytest.param("js", marks=pytest.mark.clients)]
)
async def test_a_receiver_takes_what_is_signed_and_refuses_the_rest(
    stack: Stack, ports: Ports, tmp_path: Path, language: str
) -> None:
    port = ports.take()
    url = f"http://{HOST}:{port}/hook"
    body = {"url": url, "events": ["*"], "owner_email": "dev@example.com"}
    made = (await stack.http("POST", "/api/subscriptions", body, key="admin")).body
    path = f"/api/subscriptions/{made['id']}"
    env = {"PORT": str(port), "OSTOJA_WEBHOOK_SECRET": made["secret"]}
    async with running(command(language, tmp_path, port), env) as printed:
        sent = (await stack.http("POST", f"{path}/test", key="admin")).body["id"]

        async def delivered() -> Any:
            found = (await stack.http("GET", f"{path}/deliveries", key="admin")).body["items"]
            return next((one for one in found if one["id"] == sent), None)

        await eventually(delivered, 60, so=lambda one: one and one["status"] == "delivered")
        await eventually(partial(_said, printed, sent), 10)
        headers = {
            "webhook-id": sent, "webhook-timestamp": "1795601730", "webhook-signature": "v1,eA==",
        }  # fmt: skip
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=json.dumps({"type": "lead.closed"}), headers=headers) as answer,
        ):
            assert answer.status == 400
    await stack.http("DELETE", path, key="admin")


async def test_five_minutes_on_a_laptop(stack: Stack, ports: Ports, tmp_path: Path) -> None:
    """docs/events.md, step by step: what it says to write and to type."""
    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    block = page.split("```python\n")[1].split("```")[0]
    port = ports.take()
    program = dedent(f"   {block.strip()}").replace("3000", str(port))
    (tmp_path / "receive.py").write_text(program, encoding="utf-8")
    key = {"OSTOJA_URL": stack.url, "OSTOJA_KEY": stack.values["ADMIN_API_KEY"]}
    words = (sys.executable, "-m", "ostoja", "listen", "--forward", f"http://{HOST}:{port}/hook")
    async with running(words, key) as said:
        (line,) = await eventually(partial(_lines, said), 20)
        secret = line.removeprefix("secret: ").strip()
        async with running((sys.executable, "-u", str(tmp_path / "receive.py"), secret), {}) as got:
            await asyncio.sleep(2)  # it listens, and so does the command
            address = fresh_address()
            await stack.opt_in(address)
            await eventually(partial(_said, got, "consent.granted"), 30)
            await eventually(partial(_said, said, "-> 204"), 10)
            assert await _said(got, address)


async def _lines(printed: list[str]) -> list[str]:
    return printed


async def _said(printed: list[str], event_id: str) -> bool:
    return any(event_id in line for line in printed)
