"""Stands for the console towards gateways: hands out keys, and knows who has which version.

Its rules are those of docs/models/revocation.pml; the console's own tests hold that it keeps them.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from aiohttp import web

from tests.support.ports import HOST

INTERNAL_KEY = "console-key-of-tests"
SETTLED_SECONDS = 5.0
SUCCEEDED_SECONDS = 30.0
FAR = "2999-01-01T00:00:00+00:00"


def api_key(id_: str, text: str, *scopes: str, **changes: Any) -> dict[str, Any]:
    """Return a key as the console hands it out."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {
        "id": id_,
        "digests": [{"sha256": digest, "until": None}],
        "scopes": list(scopes),
        "limits": [],
        "networks": [],
        "expires_at": FAR,
    } | changes


@dataclass
class Console:
    port: int
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    epoch: str = "e1"
    version: int = 1
    readers: dict[tuple[str, str], int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    people: dict[str, str] = field(default_factory=dict)
    restored: bool = False
    """Behind the gateways: it hands out no keys."""
    _seen: dict[tuple[str, str], float] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _started_at: float = float("-inf")
    _runner: web.AppRunner | None = None

    @property
    def settled(self) -> bool:
        """Whether it has run for long enough that every process has asked it."""
        return self._runner is not None and monotonic() - self._started_at > SETTLED_SECONDS

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/internal/keys/sync", self._sync)
        app.router.add_post("/internal/keys/goodbye", self._goodbye)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self.port, reuse_address=True)
        await site.start()
        self._started_at = monotonic()
        self._seen = dict.fromkeys(self._seen, self._started_at)
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def change(self, *keys: dict[str, Any], revoked: Sequence[str] = ()) -> int:
        """Make keys and revoke others; return the version that has it."""
        self.keys |= {key["id"]: key for key in keys}
        for id_ in revoked:
            self.keys.pop(id_, None)
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()
        return self.version

    def waiting_for(self, version: int) -> list[tuple[str, str]]:
        now = monotonic()
        for reader in [*self.readers]:  # it left, if its successor is here
            others = [other for other in self.readers if other[0] == reader[0] and other != reader]
            if now - self._seen[reader] > SUCCEEDED_SECONDS and any(
                self._seen[other] > self._seen[reader] for other in others
            ):
                del self.readers[reader]
        return [reader for reader, has in self.readers.items() if has < version]

    async def revoke(self, id_: str, seconds: float = 3.0) -> bool:
        """Return whether every process has confirmed it in time."""
        version = self.change(revoked=[id_])
        loop = asyncio.get_running_loop()
        before = loop.time() + seconds
        while self.waiting_for(version):
            if loop.time() > before:
                return False
            await asyncio.sleep(0.005)
        return True

    async def _sync(self, request: web.Request) -> web.Response:
        asked = await request.json()
        assert request.headers["X-Internal-Key"] == INTERNAL_KEY
        self.asked.append(asked)
        reader = (asked["process"], asked["instance"])
        self.readers[reader] = asked["version"]
        self._seen[reader] = monotonic()
        for use in asked["used"]:
            self.used[use["id"]] = self.used.get(use["id"], 0) + use["calls"]
        if self.restored:
            return web.Response(status=409)
        has = (asked["epoch"], asked["version"])
        if has == (self.epoch, self.version):
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), asked["wait"])
            except TimeoutError:
                return web.Response(status=204)
        answer = {"epoch": self.epoch, "version": self.version, "keys": [*self.keys.values()]}
        return web.json_response(answer | {"people": self.people})

    async def _goodbye(self, request: web.Request) -> web.Response:
        said = await request.json()
        reader = (said["process"], said["instance"])
        self.left.append(reader)
        self.readers.pop(reader, None)
        return web.Response(status=204)
