"""The API against its own description, by requests that schemathesis makes of it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from services.gateway.door.overrides import CHANGEABLE
from tests.support.stack import Stack

CONFIG = Path(__file__).with_name("schemathesis.toml")
LIMITS = "putRateLimits"


@pytest.mark.parametrize(
    "which",
    # Apart and last: the limits it sets would be in force for all the others.
    [f"--exclude-operation-id={LIMITS}", f"--include-operation-id={LIMITS}"],
    ids=["every call", "the limits"],
)
async def test_no_answer_violates_the_description(stack: Stack, which: str, tmp_path: Path) -> None:
    keys = {name: stack.values[name] for name in ("SERVICE_API_KEY", "ADMIN_API_KEY")}
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        f"--config-file={CONFIG}",
        "--no-color",
        "run",
        f"{stack.url}/openapi.json",
        which,
        cwd=tmp_path,  # it leaves notes
        env=os.environ | keys,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:  # they are kept in Redis, which other tests share
        nothing = dict.fromkeys(CHANGEABLE)
        await stack.http("PUT", "/api/ratelimits", nothing, key="admin")
    assert process.returncode == 0, output.decode()
