"""Receivers of subscriptions, as other companies run them: each path one, each with its manners."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.ports import HOST


@dataclass
class Manners:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    reads: bool = True


@dataclass
class Got:
    body: dict[str, Any]
    headers: dict[str, str]
    raw: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def is_signed(self, secret: str) -> bool:
        try:
            Webhook(secret).verify(self.raw, self.headers)
        except WebhookVerificationError:
            return False
        return True


class Receivers:
    def __init__(self) -> None:
        self.manners: defaultdict[str, Manners] = defaultdict(Manners)
        self.got: defaultdict[str, list[Got]] = defaultdict(list)
        self.asked: defaultdict[str, int] = defaultdict(int)
        self.url = ""

    def of(self, name: str) -> str:
        return f"{self.url}/{name}"

    async def handle(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        manners = self.manners[name]
        self.asked[name] += 1
        if manners.reads:
            raw = await request.text()
        await asyncio.sleep(manners.seconds)
        if manners.reads and manners.status // 100 == 2:
            headers = {key.lower(): value for key, value in request.headers.items()}
            self.got[name].append(Got(json.loads(raw), headers, raw))
        return web.Response(status=manners.status, headers=manners.headers, text="as you wish")


@asynccontextmanager
async def receivers() -> AsyncIterator[Receivers]:
    subject = Receivers()
    app = web.Application()
    app.router.add_post("/{name}", subject.handle)
    async with TestServer(app, host=HOST) as server:
        subject.url = str(server.make_url("")).rstrip("/")
        yield subject
