"""Two runs of the tests side by side, each with its own servers, beside this one's."""

import asyncio
import sys

import pytest

from tests.support.ending import assert_everything_arrived
from tests.support.stack import ROOT, Stack

pytestmark = pytest.mark.faults
ONE = (
    "tests/faults/test_killed_at_each_step.py"
    "::test_work_published_and_the_intake_not_acked_delivers_once"
)


async def run() -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ONE),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(240):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()  # it stops its servers
            await process.wait()
    return process.returncode, said.decode()


async def test_two_runs_beside_each_other_and_this_one_do_not_meet(stack: Stack) -> None:
    await stack.sandbox.reset()
    accepted = {await stack.alert("before"): "before"}
    for code, said in await asyncio.gather(run(), run()):
        assert code == 0, said
        assert "1 passed" in said
    accepted[await stack.alert("after")] = "after"
    await assert_everything_arrived(stack, accepted)
