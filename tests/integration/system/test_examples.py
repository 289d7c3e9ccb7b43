"""Every example of docs/clients.md that a server runs, as it stands; tests/pages has the page."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support import checkers
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.runbooks import CLIENTS, examples
from tests.support.stack import Stack
from tests.support.system import WORDING, fresh_address

EXAMPLES = examples(CLIENTS)
STACK_SETTINGS = {"DOUBLE_OPT_IN": "on"}


def environment(stack: Stack) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "OSTOJA_URL": stack.url,
        "OSTOJA_KEY": stack.values["SERVICE_API_KEY"],
    }


async def run(*command: str, env: Mapping[str, str]) -> tuple[int | None, str]:
    """Return the exit code, and what was printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, printed.decode()


async def arrived(stack: Stack, text: str) -> None:
    """Wait until Slack has it, and see that it came once and as nothing else."""

    async def found() -> list[Any]:
        bodies = [one["body"] for one in await stack.sandbox.received("slack")]
        return [body for body in bodies if text in body["text"]]

    assert await eventually(found, 40) == [{"text": text}]


def test_each_example_is_run_by_a_test() -> None:
    by_others = {"sh generate", "html", "jsx"}  # tests/clients, tests/pages
    by_others |= {f"{each} events" for each in ("python", "js", "php")}  # test_event_examples.py
    jobs = {"cron", "cron ping", "ini ping"}
    assert EXAMPLES.keys() == {"sh curl", "python", "sh or-alert", "php"} | jobs | by_others


async def test_the_curl_example_alerts_once_however_often_it_is_run(stack: Stack) -> None:
    checkers.require("curl")
    ids = set()
    for _ in range(2):
        code, printed = await run("sh", "-c", EXAMPLES["sh curl"], env=environment(stack))
        assert code == 0, printed
        ids.add(json.loads(printed)["id"])
    assert len(ids) == 1
    await arrived(stack, "Order 1042: payment failed")


async def test_the_python_example_alerts_and_prints_the_id(stack: Stack) -> None:
    code, printed = await run(sys.executable, "-c", EXAMPLES["python"], env=environment(stack))
    assert code == 0, printed
    await arrived(stack, "The import of prices found 3 errors")
    assert (await stack.state(printed.strip()))["severity"] == "warning"


async def test_the_python_example_says_why_it_was_refused(stack: Stack) -> None:
    wrong = environment(stack) | {"OSTOJA_KEY": "wrong"}
    code, printed = await run(sys.executable, "-c", EXAMPLES["python"], env=wrong)
    assert code == 1
    assert '"status": 401' in printed


async def test_the_cron_example_alerts_when_its_job_fails_and_only_then(
    stack: Stack, tmp_path: Path
) -> None:
    checkers.require("curl")
    (tmp_path / "ostoja.header").write_text(f"X-API-KEY: {stack.values['SERVICE_API_KEY']}\n")
    url, line = EXAMPLES["cron"].splitlines()
    assert url == "OSTOJA_URL=https://ostoja.example.com"
    command = line.split(maxsplit=5)[5].replace("/usr/local/bin", str(tmp_path))
    script = EXAMPLES["sh or-alert"].replace("/etc/ostoja.header", str(tmp_path / "ostoja.header"))
    # As cron has it, and no more.
    env = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "OSTOJA_URL": stack.url}
    for name, text in (("or-alert", script), ("backup", '#!/bin/sh\n[ "$1" = --all ]\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    accepted = (await stack.ledger())["accepted"]
    assert await run("sh", "-c", command, env=env) == (0, "")
    assert (await stack.ledger())["accepted"] == accepted

    (tmp_path / "backup").write_text("#!/bin/sh\nexit 3\n")
    code, printed = await run("sh", "-c", command, env=env)
    assert (code, "status_url" in printed) == (3, True), printed
    await arrived(stack, f"backup failed on {os.uname().nodename} with exit code 3")


async def test_the_jobs_ping_when_they_succeed_and_when_they_fail(
    stack: Stack, tmp_path: Path
) -> None:
    checkers.require("curl")
    job = {"name": "backup of a test", "every": "1h", "grace": "10m"}
    made = (await stack.http("POST", "/api/heartbeats", job, key="admin")).body
    url, line = EXAMPLES["cron ping"].splitlines()
    assert url.startswith("PING=https://ostoja.example.com/ping/")
    command = line.split(maxsplit=5)[5].replace("/usr/local/bin", str(tmp_path))
    command = command.replace("/var/tmp", str(tmp_path))  # noqa: S108
    stop = EXAMPLES["ini ping"].split("ExecStopPost=-/bin/sh -c '")[1].rstrip().rstrip("'")
    env = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "PING": made["url"]}
    shown = f"/api/heartbeats/{made['id']}"

    async def pinged(count: int, state: str) -> Any:
        def so(found: Any) -> bool:
            return (len(found.body["pings"]), found.body["state"]) == (count, state)

        return (await eventually(lambda: stack.http("GET", shown, key="admin"), so=so)).body

    backup = tmp_path / "backup"
    backup.write_text("#!/bin/sh\necho disk full; exit 3\n")
    backup.chmod(0o755)
    assert await run("sh", "-c", command, env=env) == (0, "")
    found = await pinged(1, "down")
    last = {name: found["pings"][0][name] for name in ("kind", "code", "log")}
    assert last == {"kind": "fail", "code": 3, "log": "disk full\n"}
    for result, state in (("success", "up"), ("timeout", "down")):
        code, _ = await run("sh", "-c", stop, env=env | {"SERVICE_RESULT": result})
        assert code == 0
        found = await pinged(2 if state == "up" else 3, state)
    await stack.http("DELETE", shown, key="admin")


@asynccontextmanager
async def php_site(folder: Path, port: int, env: Mapping[str, str]) -> AsyncIterator[str]:
    """Serve the example by PHP's own server."""
    (folder / "contact.php").write_text(EXAMPLES["php"])
    server = await asyncio.create_subprocess_exec(
        "php", "-S", f"{HOST}:{port}", "-t", str(folder), env=env, stderr=asyncio.subprocess.DEVNULL
    )
    try:

        async def listens() -> bool:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually(listens, 20)
        yield f"http://{HOST}:{port}/contact.php"
    finally:
        server.terminate()
        await server.wait()


async def test_the_php_page_alerts_staff_and_requests_the_opt_in(
    stack: Stack, ports: Ports, tmp_path: Path
) -> None:
    checkers.require("php")
    address = fresh_address()
    form = {"email": address, "message": "Łazienka <8 m²> & kuchnia\r\nX-Evil: 1"}
    async with (
        php_site(tmp_path, ports.take(), environment(stack)) as page,
        aiohttp.ClientSession() as visitor,
    ):
        for _ in range(2):  # the button, pressed twice
            async with visitor.post(page, data=form | {"agreed": "cokolwiek"}) as answer:
                assert (answer.status, await answer.text()) == (
                    200,
                    "Thank you, we will be in touch.",
                )
        await stack.stop("consent")
        try:
            async with visitor.post(page, data=form | {"agreed": "cokolwiek"}) as answer:
                assert answer.status == 502
                assert (await answer.text()).endswith("Please send it again.")
        finally:
            await stack.start("consent")
    shown = form["message"].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    await arrived(stack, f"Contact form: {shown} ({address})")
    await stack.confirm(address)
    assert (await stack.consents(address))["consents"] == {"marketing": True}
    entries = (await stack.audit(address))["entries"]
    assert {each["evidence"]["wording"] for each in entries} == {WORDING.text}


async def test_slack_accepts_the_blocks_of_any_lead(stack: Stack) -> None:
    """The sandbox refuses what Slack's Block Kit documents as too long, or as unknown."""
    payload = {"session_id": "s-1", "name": "<&>" * 60, "said": ["&" * 4000], "hot": True}
    payload |= {"email": "a" * 3500 + "@example.com", "score": 100, "reasons": ["<" * 4000]}
    body = {"event_type": "lead.qualified", "target": "slack", "payload": payload}
    answer = await stack.http("POST", "/api/alerts", body, key="service")
    assert answer.status == 202, answer

    tried = await eventually(
        lambda: stack.state(answer.body["id"]), 40, so=lambda found: "'outcome'" in str(found)
    )
    assert "invalid_blocks" not in str(tried)
    got = (await stack.sandbox.received("slack"))[-1]
    assert got["body"].keys() == {"text", "blocks"}
