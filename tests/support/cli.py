"""`ostoja` as it is typed: a process of its own in a terminal of 80 columns."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.up.environment import ROOT
from tests.support.ports import HOST
from tests.support.system import System

WIDTH = 80
SECONDS = 60.0
_OURS = ("OSTOJA_", "ADMIN_API_KEY", "SERVICE_API_KEY", "GATEWAY_PORT")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


async def ostoja(
    *words: str,
    system: System | None = None,
    settings: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    typed: str = "",
) -> Done:
    """Run it; with a system, on that one.

    :param settings: more variables of the shell
    :param typed: on standard input
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    env |= {"COLUMNS": str(WIDTH), "PYTHONPATH": str(ROOT)}
    if system is not None:
        env |= {"OSTOJA_URL": system.url}
        env |= {name: system.values[name] for name in ("ADMIN_API_KEY", "SERVICE_API_KEY")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ostoja", *words,
        cwd=folder,
        env=env | dict(settings or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(typed.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


def fits(text: str) -> bool:
    return all(len(line) <= WIDTH for line in text.splitlines())


async def demo(system: System) -> tuple[int | None, str]:
    """Run `make demo` there; its exit status, and what it printed with single spaces."""
    inherited = {name: value for name, value in os.environ.items() if name not in system.values}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.demo",
        cwd=ROOT,
        env={
            **inherited,
            **system.values,
            "DEMO_SANDBOX_MAIL_URL": f"http://{HOST}:{system.sandbox.mail_port}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(240):
        output, _ = await process.communicate()
    return process.returncode, " ".join(output.decode().split())
