"""Reads a mailbox and is killed at a step: `killed_mailbox.py DATABASE MAILBOX STEP`."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from imapclient import IMAPClient

from libs.common.database import postgres
from services.followups.inbox.acting import Inbox
from services.followups.inbox.mailbox import Mailbox
from tests.integration.followups.conftest import CONFIG, link
from tests.support.mails import MARKS


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def after(call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*given: Any, **named: Any) -> Any:
        call(*given, **named)
        die()

    return called


async def main(database: str, url: str, step: str) -> None:
    async with postgres.connect(database, application_name="killed") as engine:
        mailbox = Mailbox(url, Inbox(engine, CONFIG, link, MARKS), is_shared=False)
        match step:
            case "fetched":
                Mailbox._fetch = after(Mailbox._fetch)  # type: ignore[method-assign]
            case "stored":
                Inbox._replied = die  # type: ignore[method-assign]
            case "committed":
                Mailbox._move = die  # type: ignore[method-assign]
            case "seen":
                IMAPClient.move = die
            case "moved":
                Mailbox._move = after(Mailbox._move)  # type: ignore[method-assign]
        await mailbox.look()


asyncio.run(main(*sys.argv[1:]))
