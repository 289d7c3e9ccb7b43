"""Keeps this process' keys equal to the console's, and a copy of them to start without it.

The console answers a revocation when every process that it knows has come back with the new
version. So a process must keep these rules (docs/models/revocation.pml has a control for each):
it asks before it serves; it confirms a version only when its memory and its store have it; it says
goodbye only after its last request; and it never goes back to an older version.
"""

import asyncio
import json
import os
import secrets
import socket
import time
from contextlib import suppress
from typing import Any, Self

from aiohttp import hdrs
from pydantic import ValidationError

from libs.common.http.application import Problem
from libs.common.process.logs import log
from services.gateway import metrics
from services.gateway.door.key_store import Kept, KeyStore
from services.gateway.door.keys import ApiKeys, used_as_json
from services.gateway.proxy.upstream import Upstream

SYNC, GOODBYE = "/internal/keys/sync", "/internal/keys/goodbye"
WAIT_SECONDS = 20
SLACK_SECONDS = 5.0
"""How much longer than asked an answer may take."""
FIRST_SECONDS = 2.0
"""A console younger than 5 s answers no revocation: by then each process must have asked again."""
START_SECONDS = 10.0
PAUSE_SECONDS = 1.0
DEGRADED_SECONDS = 60.0
MOST_BYTES = 1024 * 1024


class _Failed(Exception):  # noqa: N818 - reads as what happened
    """The console did not answer, or its answer is unusable; what was in force stays in force."""


def process_name(port: int) -> str:
    """Return a name that this process shares with its successor: host, port and worker."""
    return f"{socket.gethostname()}:{port}/{os.environ.get('GATEWAY_WORKER', '0')}"


class KeySync:
    """Enter it before the port opens, so that it leaves after the last request."""

    def __init__(self, console: Upstream, keys: ApiKeys, store: KeyStore, process: str) -> None:
        self._console = console
        self._keys = keys
        self._store = store
        self._sender = {"process": process, "instance": secrets.token_hex(8)}
        self._held = self._confirmed = Kept(epoch="", version=0, keys=[])
        self._behind = self._silent = False
        self._listed = False
        self._answered_at = time.monotonic()
        self._fault = ""

    async def __aenter__(self) -> Self:
        await self._read()
        await self._first()
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(_Failed):
            await self._post(GOODBYE, {}, FIRST_SECONDS)

    async def _first(self) -> None:
        """Return when the console knows this process, unless it is away or does not answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while not await self._try() and self._silent:
                    log.info("keys.waiting_for_the_console")

    async def run(self) -> None:
        while True:
            if not await self._try():
                if not self._held.version:  # the store may also have been away
                    await self._read()
                await asyncio.sleep(PAUSE_SECONDS)
            metrics.KEYS_STALE.set(self._age())

    def state(self) -> dict[str, str]:
        """Return the health of the keys."""
        age = self._age()
        if age < DEGRADED_SECONDS:
            return {"status": "healthy"}
        return {"status": "degraded", "detail": f"not confirmed for {age:.0f} s: {self._fault}"}

    def _age(self) -> float:
        return time.monotonic() - self._answered_at

    async def _try(self) -> bool:
        """:returns: False, if it is too early to ask again"""
        used = self._keys.take_used()
        try:
            await self._ask(used)
        except _Failed as failed:
            if not self._behind:  # else it has counted them, but hands out no keys
                self._keys.put_back(used)
            if str(failed) != self._fault:
                log.warning("keys.not_synchronised", fault=str(failed), version=self._held.version)
            self._fault = str(failed)
            return False
        if self._fault:
            log.info("keys.synchronised", version=self._held.version)
        self._fault, self._listed, self._answered_at = "", True, time.monotonic()
        return True

    async def _ask(self, used: dict[str, tuple[float, int]]) -> None:
        # No long poll until the console knows this process: it would serve its old keys meanwhile.
        wait, slack = (WAIT_SECONDS, SLACK_SECONDS) if self._listed else (0, FIRST_SECONDS)
        asked = {
            "epoch": self._confirmed.epoch,
            "version": self._confirmed.version,
            "wait": wait,
            "used": used_as_json(used),
            "held": self._keys.digests() if self._behind else None,
        }
        if self._behind and self._held.people:  # a console of the previous release does not know it
            asked["people"] = self._held.people
        answer = await self._post(SYNC, asked, wait + slack)
        if answer is None:
            with suppress(OSError, ValueError):  # Redis may have lost what it had
                await self._store.keep(self._held)
            return
        if answer.version < self._held.version:
            raise _Failed(f"the console has version {answer.version}, which is older")
        if answer.version > self._held.version:
            self._keys.adopt(answer.keys)
            self._held = answer
            log.info("keys.adopted", version=answer.version, keys=len(self._keys))
        try:
            await self._store.keep(self._held)
        except (OSError, ValueError) as error:  # unconfirmed: it would come back with a restart
            raise _Failed(f"KEYS_STATE_FILE: {error}") from error
        self._confirmed = self._held

    async def _post(self, path: str, body: dict[str, Any], seconds: float) -> Kept | None:
        """:returns: None, if there is nothing to say"""
        sent = json.dumps(self._sender | body).encode()
        self._silent = False
        headers = {str(hdrs.CONTENT_TYPE): "application/json"}
        try:
            async with (
                asyncio.timeout(seconds),
                self._console.ask(
                    hdrs.METH_POST, path, headers=headers, body=sent, timeout=seconds
                ) as answer,
            ):
                self._behind = answer.status == 409
                if answer.status == 204:
                    return None
                body_of_answer = await answer.read(MOST_BYTES)
                if answer.status != 200:
                    raise _Failed(f"the console answered {answer.status}")
        except (Problem, TimeoutError) as error:
            self._silent = isinstance(error, TimeoutError) or error.status == 504
            raise _Failed(getattr(error, "detail", None) or "the console did not answer") from error
        try:
            return Kept.model_validate_json(body_of_answer)
        except ValidationError:
            raise _Failed("the answer of the console cannot be read") from None

    async def _read(self) -> None:
        try:
            kept = await self._store.read()
        except (OSError, ValueError) as error:
            log.error("keys.unreadable_store", error=repr(error))  # noqa: TRY400
            return
        if kept is not None:
            self._keys.adopt(kept.keys)
            self._held = self._confirmed = kept
            log.info("keys.read", version=kept.version, keys=len(self._keys))
