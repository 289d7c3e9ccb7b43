"""`make demo` on the whole system: it checks each of its steps itself."""

import asyncio
import os
import re
import sys

from deploy.up.environment import ROOT
from tests.support.ports import HOST
from tests.support.stack import Stack

STACK_SETTINGS = {"DOUBLE_OPT_IN": "on"}


async def demo(stack: Stack) -> tuple[int | None, str]:
    """Run it; its exit status, and what it printed with single spaces."""
    inherited = {name: value for name, value in os.environ.items() if name not in stack.values}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.demo",
        cwd=ROOT,
        env={
            **inherited,
            **stack.values,
            "DEMO_SANDBOX_MAIL_URL": f"http://{HOST}:{stack.sandbox.mail_port}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(240):
        output, _ = await process.communicate()
    return process.returncode, " ".join(output.decode().split())


async def test_the_demo_shows_what_the_readme_says(stack: Stack) -> None:
    status, printed = await demo(stack)
    assert status == 0, printed
    taken = r"Lead, score 90: taken by Ewa Lis, \d\d:\d\d"
    for said in (
        r"an SMS to (Jan|Maria), who is on call: Lead, score 90: has waited \d min",
        "a mail to Ewa, the manager: Lead, score 90: has waited",
        f"Slack is told: {taken}",
        r"Slack is told: .*Kasia Wrona",
        "after this answer the key opens nothing: 401",
        f"(Jan|Maria) is told: {taken}",
        "only Slack's breaker is open",
        "they add up, and none is stranded",
    ):
        assert re.search(said, printed), (said, printed)
    assert "Done in" in printed
