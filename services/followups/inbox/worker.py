"""Reads mails in a process of its own, which may break without harm."""

import asyncio
import json
import math
import sys
from pathlib import Path

from libs.common.process.logs import log
from services.followups.inbox import reader
from services.followups.inbox.reader import Read

SECONDS = 10.0
MEMORY = 1024 * 1024 * 1024
TRIES = 2
_ROOT = Path(__file__).parents[3]
_one_after_another = asyncio.Semaphore(2)


class Unreadable(Exception):  # noqa: N818 - reads as the answer it is
    """The mail has broken its reader twice: it has too many parts, or takes too much."""


async def read(raw: bytes) -> Read:
    """:raises Unreadable:"""
    fault = ""
    async with _one_after_another:
        for _ in range(TRIES):
            try:
                return await _read(raw)
            except (TimeoutError, ValueError, TypeError) as error:
                fault = type(error).__name__
    log.warning("mail.unreadable", bytes=len(raw), fault=fault)
    raise Unreadable


async def _read(raw: bytes) -> Read:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", reader.__name__, str(MEMORY), str(math.ceil(SECONDS)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, cwd=_ROOT, env={},
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            told, _ = await process.communicate(raw)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    fields = json.loads(told)
    fields["files"] = [(str(name), int(size)) for name, size in fields["files"]]
    return Read(**fields)
