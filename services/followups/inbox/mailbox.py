"""Reads the company's mailbox: IDLE, and a look each minute. It deletes nothing (P13).

One process at a time reads it. A mail is marked and moved only after the transaction that acts on
it; killed before that, the next look finds it again, and its key says that it is known.
"""

import asyncio
import math
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from imapclient import SEEN, IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientError

from libs.common.database import postgres
from libs.common.process.logs import log
from services.followups import metrics
from services.followups.inbox.acting import Inbox
from services.followups.inbox.reader import MOST_BYTES
from services.followups.settings import parse_mailbox
from services.followups.store.sql import run

PERIOD = 1.0
IDLE_SECONDS = 60.0
CALL_SECONDS = 60.0
PAUSE_SECONDS = 60.0
"""At most, after failures: a server locks out who tries a wrong password too often."""
AT_ONCE = 200
YOUNG = timedelta(days=7)
"""Of a mailbox that people read, older mail is not looked at when it is new to us."""
DONE, FAILED = "done", "failed"

T = TypeVar("T")


class Mailbox:
    def __init__(self, url: str, inbox: Inbox, *, is_shared: bool) -> None:
        """:param is_shared: people read it, too"""
        found = parse_mailbox(url)
        self._tls, self._host, self._port, self._user, self._password, self._folder = found
        self._name = f"{self._user}@{self._host}/{self._folder}"
        self._inbox = inbox
        self._is_shared = is_shared
        self._client: IMAPClient | None = None
        self._folders: dict[str, str] = {}
        self._validity = 0
        self._can_idle = False
        self._failures = 0
        metrics.LOOKED.set(time.time())  # of a mailbox that never opens, the rule counts from here

    async def look(self) -> None:
        """Take what is there, and wait for more for a minute at most. Safe to repeat.

        :raises OSError, IMAPClientError: the server is away, or refuses; the next look tries again
        """
        try:
            await self._look()
            self._failures = 0
        except Exception as error:
            if isinstance(error, OSError | IMAPClientError):
                self._drop()
            self._failures += 1
            log.warning("mailbox.failed", error=type(error).__name__, failures=self._failures)
            await asyncio.sleep(min(PAUSE_SECONDS, math.exp2(self._failures)))
            raise
        except asyncio.CancelledError:
            self._drop()
            raise

    async def _look(self) -> None:
        if self._client is None:
            await self._call(self._open)
        taken = await (self._read_shared() if self._is_shared else self._read_own())
        metrics.LOOKED.set(time.time())
        if taken >= AT_ONCE:
            return
        if self._can_idle:
            await self._call(self._idle, seconds=IDLE_SECONDS + CALL_SECONDS)
        else:
            await asyncio.sleep(IDLE_SECONDS)

    async def _read_own(self) -> int:
        """Take each mail of the folder, unread ones first: one that cannot be moved comes last."""
        found: list[tuple[bool, int]] = await self._call(self._listed)
        fault: IMAPClientError | None = None
        for _, uid in sorted(found)[:AT_ONCE]:
            place = await self._take(uid)
            if place is None:
                continue
            try:
                await self._call(self._move, uid, place)
            except IMAPClientError as error:  # the mailbox is full, for example
                fault = error
        if fault is not None:
            raise fault
        return len(found)

    async def _read_shared(self) -> int:
        """Take the mails that are about a step; remember how far the others were looked at."""
        engine = self._inbox.engine
        rows = [*(await run.alone(engine, "place", name=self._name))]
        known = rows[0].uid if rows and rows[0].validity == self._validity else None
        found = (await self._call(self._after, known))[:AT_ONCE]
        for uid in found:
            place = await self._take(uid)
            if place == DONE:
                await self._call(self._move, uid, place)
            await run.alone(
                engine, "move_place", name=self._name, validity=self._validity, uid=uid,
                more=int(place != DONE),
            )  # fmt: skip
        return len(found)

    async def _take(self, uid: int) -> str | None:
        """Act on a mail.

        :returns: the folder to which it goes; None: it is gone, or is left to people
        """
        raw: bytes | None = await self._call(self._fetch, uid)
        if raw is None:
            return None
        try:
            outcome = await self._inbox.take(raw, leaves=self._is_shared)
        except Exception as error:
            if postgres.is_transient(error):
                raise
            log.warning("mailbox.broken_mail", uid=uid, error=type(error).__name__)
            if self._is_shared:  # spam, perhaps: it must not ring
                return None
            await self._inbox.unreadable(f"UIDVALIDITY {self._validity}, UID {uid}")
            return FAILED
        return None if outcome == "left" else DONE

    async def _call(self, call: Callable[..., T], *args: Any, seconds: float = CALL_SECONDS) -> T:
        """Run a blocking call in a thread; one that takes too long loses its connection."""
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.to_thread(call, *args)
        except (TimeoutError, asyncio.CancelledError):
            self._drop()
            raise

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(OSError):
                client.shutdown()

    # The calls below block. They run in a thread, one at a time.

    def _open(self) -> None:
        context = ssl.create_default_context() if self._tls else None
        timeout = SocketTimeout(connect=15, read=CALL_SECONDS)
        client = IMAPClient(
            self._host, self._port, ssl=self._tls, ssl_context=context, timeout=timeout
        )
        self._client = client
        client.login(self._user, self._password)
        if not client.has_capability("MOVE"):
            raise IMAPClientError("the server has no MOVE (RFC 6851)")
        self._can_idle = client.has_capability("IDLE")
        prefix, separator = "", "/"
        if client.has_capability("NAMESPACE") and (personal := client.namespace().personal):
            prefix, separator = personal[0]
        for name in (DONE, FAILED):
            folder = f"{prefix}Ostoja{separator}{name}"
            if not client.folder_exists(folder):
                client.create_folder(folder)
                client.subscribe_folder(folder)
            self._folders[name] = folder
        self._validity = int(client.select_folder(self._folder)[b"UIDVALIDITY"])

    def _opened(self) -> IMAPClient:
        if self._client is None:
            raise OSError("the connection was lost")
        return self._client

    def _listed(self) -> list[tuple[bool, int]]:
        client = self._opened()
        client.noop()  # what has arrived since the last command is found by now
        uids = sorted(client.search(["UNSEEN"]))[:AT_ONCE]
        rest = sorted(client.search(["SEEN"]))[: AT_ONCE - len(uids)]
        return [(False, uid) for uid in uids] + [(True, uid) for uid in rest]

    def _after(self, uid: int | None) -> list[int]:
        client = self._opened()
        client.noop()
        if uid is None:
            return sorted(client.search(["SINCE", (datetime.now(UTC) - YOUNG).date()]))
        # `n:*` also names the last mail if it is older.
        return sorted(each for each in client.search(["UID", f"{uid + 1}:*"]) if each > uid)

    def _fetch(self, uid: int) -> bytes | None:
        # The server may say any length: no more is asked for. A long mail's words come first.
        fetched = self._opened().fetch([uid], [f"BODY.PEEK[]<0.{MOST_BYTES}>"])
        values = (value for name, value in fetched.get(uid, {}).items() if name[:5] == b"BODY[")
        raw = next(values, None)
        return bytes(raw) if raw else None

    def _move(self, uid: int, place: str) -> None:
        client = self._opened()
        client.add_flags([uid], [SEEN], silent=True)
        client.move([uid], self._folders[place])

    def _idle(self) -> None:
        client = self._opened()
        client.idle()
        client.idle_check(timeout=IDLE_SECONDS)
        client.idle_done()
